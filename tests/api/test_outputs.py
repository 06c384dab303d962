"""GET /jobs/{id}/outputs/{name}: files, whole and in parts."""

import asyncio
import hashlib
import logging
from pathlib import Path

import pytest

from common.api.download import File
from common.poster import make_poster
from tests.live import both


@pytest.fixture
async def made(live):
    """Make a video."""
    job = await live.finished((await live.job())["id"])
    return live, job["outputs"][0]


async def get(live, url, method="GET", **headers):
    """Return status, headers and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with live.http.request(method, live.url + url, headers=named) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_video_comes_as_it_was_checked(made):
    """Its hash is the ETag; browsers may neither guess its kind nor run it."""
    live, output = made
    status, headers, body = await get(live, output["url"])

    assert status == 200
    assert hashlib.sha256(body).hexdigest() == output["sha256"]
    assert headers["ETag"] == f'"{output["sha256"]}"'
    assert headers["Content-Type"] == output["content_type"] == "video/mp4"
    assert int(headers["Content-Length"]) == output["size_bytes"] == len(body)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Accept-Ranges"] == "bytes"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["Content-Disposition"].startswith("inline")


async def test_a_poster_is_a_jpeg(made):
    """With an ETag of its own."""
    live, output = made
    status, headers, body = await get(live, output["poster_url"])

    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body.startswith(b"\xff\xd8")
    assert headers["ETag"] != f'"{output["sha256"]}"'


async def test_a_poster_is_made_once(made, monkeypatch):
    """Many who ask at once decode the film once, and get the same file."""
    live, output = made
    calls = []

    def counted(video, poster):
        calls.append(video)
        make_poster(video, poster)

    monkeypatch.setattr("common.api.download.make_poster", counted)
    folder = live.runtime.files.job(output["url"].split("/")[2])
    assert not (folder / "poster.jpg").exists()

    asked = [get(live, output["poster_url"]) for _ in range(5)]
    answers = [await one for one in asyncio.as_completed(asked)]

    assert {status for status, *_ in answers} == {200}
    assert len(calls) == 1
    inode = (folder / "poster.jpg").stat().st_ino
    assert (await get(live, output["poster_url"]))[2] == answers[0][2]
    assert (folder / "poster.jpg").stat().st_ino == inode


async def test_no_poster_of_a_video_that_is_gone(made):
    """404 when someone removed the file."""
    live, output = made
    folder = live.runtime.files.job(output["url"].split("/")[2])
    (folder / "video.mp4").unlink()

    assert (await get(live, output["poster_url"]))[0] == 404


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-50", -50, None)],
)
async def test_a_part_is_that_part(made, asked, start, end):
    """206: a download goes on where it broke off."""
    live, output = made
    whole = (await get(live, output["url"]))[2]
    status, headers, body = await get(live, output["url"], range=asked)

    assert status == 206
    assert body == whole[start:end]
    assert headers["Content-Range"].endswith(f"/{len(whole)}")


async def test_a_part_outside_the_file_is_refused(made):
    """416, as a problem, with the file's size."""
    live, output = made
    status, headers, body = await get(live, output["url"], range="bytes=99999999-")

    assert status == 416
    assert headers["Content-Range"] == f"bytes */{output['size_bytes']}"
    assert headers["Content-Type"] == "application/problem+json"
    assert b"range_not_satisfiable" in body


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 10000, 2)),
        "bytes=x",
        "bytes=-",
        "bytes=5-1",
        "lines=1",
    ],
    ids=["5000 ranges", "nonsense", "empty", "backwards", "unit"],
)
async def test_an_odd_range_is_ignored(made, asked):
    """One range is enough for a download to go on; many are how servers are hurt."""
    live, output = made
    status, _, body = await get(live, output["url"], range=asked[:8000])

    assert (status, len(body)) == (200, output["size_bytes"])


async def test_a_part_of_another_file_is_the_whole(made):
    """`If-Range` with an ETag that is not this file's."""
    live, output = made
    headers = {"range": "bytes=0-9", "if_range": '"other"'}

    assert (await get(live, output["url"], **headers))[0] == 200


async def test_what_the_caller_has_is_not_sent_again(made):
    """304 for the ETag, alone or in a list."""
    live, output = made
    tag = f'"{output["sha256"]}"'
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        status, headers, body = await get(live, output["url"], if_none_match=known)
        assert (status, body) == (304, b"")
        assert headers["ETag"] == tag

    assert (await get(live, output["url"], if_none_match='"other"'))[0] == 200


async def test_head_tells_the_size(made):
    """Without the body."""
    live, output = made
    status, headers, body = await get(live, output["url"], method="HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == output["size_bytes"]


@pytest.mark.parametrize(
    "name",
    [
        "nobody.mp4",
        "..%2f..%2fjobs.sqlite3",
        "VIDEO.MP4",
        "video.mp4%00",
        ".lock",
    ],
)
async def test_only_names_in_the_record_exist(made, name):
    """404, whatever lies in the folder."""
    live, output = made
    folder = output["url"].rpartition("/")[0]

    assert (await get(live, f"{folder}/{name}"))[0] == 404


async def test_a_planted_link_is_not_followed(made, tmp_path):
    """Even under the output's own name."""
    live, output = made
    secret = tmp_path / "secret"
    secret.write_text("canary")
    path = next((live.runtime.data / "jobs").glob("*/video.mp4"))
    path.unlink()
    path.symlink_to(secret)
    status, _, body = await get(live, output["url"])

    assert status == 404
    assert b"canary" not in body


async def test_a_file_that_is_gone_is_404(made):
    """The record outlives a disk that was tidied by hand."""
    live, output = made
    next((live.runtime.data / "jobs").glob("*/video.mp4")).unlink()

    assert (await get(live, output["url"]))[0] == 404


async def test_a_file_that_goes_while_it_is_asked_for_is_404(made, monkeypatch, caplog):
    """A job may be deleted at any time; what is told has not begun before the file."""
    live, output = made
    sends = File.__call__

    async def deleted(self, *asgi):
        Path(self.path).unlink()
        await sends(self, *asgi)

    monkeypatch.setattr(File, "__call__", deleted)
    status, headers, body = await get(live, output["url"])

    assert status == 404
    assert headers["Content-Type"] == "application/problem+json"
    assert b"the file is gone" in body
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_job_without_outputs_has_none(tmp_path):
    """404 for both forms of the address."""
    async with both(tmp_path) as live:
        await live.fault(error_at_node="KSampler")
        job = await live.finished((await live.job())["id"])

        assert (await live.get(f"/jobs/{job['id']}/outputs/video.mp4"))[0] == 404
        assert (await live.get(f"/download/{job['id']}"))[0] == 404
