"""POST /uploads: files that are sent ahead of the requests that use them."""

import io

import aiohttp
import pytest

from common.api.schema import UploadView
from tests.live import both
from tests.pictures import png


def form(data, name="file", **more):
    """Return a form with one file, and more parts."""
    parts = aiohttp.FormData()
    parts.add_field(name, data, filename="../../x.png")
    for key, value in more.items():
        parts.add_field(key, value)
    return parts


async def test_a_picture_is_kept_and_described(live):
    """201; what is stored is our own encoding, under our own name."""
    status, body = await live.post("/uploads", data=form(png(320, 256)))
    stored = live.runtime.data / "uploads" / body["id"]

    assert status == 201
    assert UploadView.model_validate(body, extra="forbid").model_dump() == body
    assert (body["kind"], body["content_type"]) == ("image", "image/png")
    assert (body["width"], body["height"], body["duration_s"]) == (320, 256, None)
    assert stored.stat().st_size == body["size_bytes"]
    assert [p.name for p in stored.parent.iterdir()] == [body["id"]]


async def test_an_upload_serves_many_jobs(live):
    """Each has its own link to it."""
    upload = (await live.post("/uploads", data=form(png(256, 256))))[1]["id"]
    for seed in range(2):
        job = await live.job(image=upload, seed=seed)
        assert (await live.finished(job["id"]))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%PDF-1.7", 415),
        (b"GIF89a" + bytes(50), 415),
        (png(256, 256)[:80], 422),
        (png(9000, 9000, rows=1), 422),
        (png(8, 8), 422),
    ],
    ids=["empty", "text", "svg", "pdf", "gif", "cut", "huge", "tiny"],
)
async def test_what_is_no_picture_we_read_is_refused(live, data, status):
    """And nothing stays on the disk."""
    answered, body = await live.post("/uploads", data=form(data))

    assert answered == status
    assert body["detail"]
    assert list((live.runtime.data / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    "parts",
    [
        lambda: form(png(), name="image"),
        lambda: form(png(), extra="1"),
        lambda: aiohttp.FormData({"file": "text"}, default_to_multipart=True),
    ],
    ids=["other name", "more parts", "no file"],
)
async def test_there_is_one_part_and_its_name_is_file(live, parts):
    """400 says so."""
    status, body = await live.post("/uploads", data=parts())

    assert (status, body["code"]) == (400, "malformed_request")


async def test_a_file_over_the_limit_is_too_large(tmp_path):
    """413, by what is announced and by what comes."""
    async with both(tmp_path, max_upload_mb=1) as live:

        async def chunks():
            for _ in range(5):
                yield bytes(1 << 20)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        for data in (io.BytesIO(bytes(5 << 20)), chunks()):
            status, body = await live.post("/uploads", data=data, headers=headers)
            assert (status, body["code"]) == (413, "payload_too_large")
