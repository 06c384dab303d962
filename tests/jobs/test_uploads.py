"""Uploads: whose they are, and how long they are kept."""

from common.jobs.uploads import Upload
from tests.jobs.conftest import AT, accepted


async def test_an_upload_belongs_to_its_owner(store):
    """Another's does not exist."""
    mine = Upload("u", "audio", "audio/wav", 3, duration_s=1.5)
    await store.uploads.add(mine, "me")

    assert await store.uploads.get("u", "me") == mine
    assert await store.uploads.get("u", "you") is None


async def test_uploads_expire(store, clock):
    """Those that no job brought along, past their time."""
    await store.uploads.add(Upload("u", "image", "image/png", 3), "")
    await store.add(accepted(uploads=(Upload("own", "image", "image/png", 3),)))

    assert await store.uploads.forget(AT.timestamp() - 1) == []
    assert await store.uploads.forget(AT.timestamp() + 1) == ["u"]
