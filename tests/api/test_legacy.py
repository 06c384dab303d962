"""The first public form of the API, which is kept."""

import pytest

from tests.live import both


async def test_a_job_in_the_old_words(held):
    """Queued, then canceled as an error; 0 to 100; no address before the end."""
    job = await held.job(seed=1)
    status, body = await held.get(f"/status/{job['id']}")
    assert (status, body["status"], body["progress"]) == (200, "queued", 0)
    assert body["download_url"] is None
    assert (await held.get(f"/download/{job['id']}"))[0] == 404

    await held.post(f"/jobs/{job['id']}/cancel")
    assert (await held.get(f"/status/{job['id']}"))[1]["status"] == "error"


async def test_progress_is_a_percentage_that_grows(tmp_path):
    """Processing in between, completed and 100 at the end."""
    async with both(tmp_path, speed=2) as live:
        job = await live.job(steps=6)
        seen = []
        async for _ in live.events(job["id"]):
            seen.append((await live.get(f"/status/{job['id']}"))[1])
        values = [body["progress"] for body in seen]

        assert {body["status"] for body in seen} <= {
            "queued",
            "processing",
            "completed",
        }
        assert "processing" in [body["status"] for body in seen]
        assert values == sorted(values)
        assert (seen[-1]["status"], values[-1]) == ("completed", 100)
        assert seen[-1]["download_url"] == f"/download/{job['id']}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_video_is_downloaded_by_its_job(live, method):
    """The same file as under its newer address, in parts too."""
    job = await live.finished((await live.job())["id"])
    size = job["outputs"][0]["size_bytes"]
    url = f"{live.url}/download/{job['id']}"
    async with live.http.request(method, url) as answer:
        assert answer.content_type == "video/mp4"
        assert int(answer.headers["Content-Length"]) == size
    async with live.http.get(url, headers={"Range": "bytes=-9"}) as answer:
        assert (answer.status, len(await answer.read())) == (206, 9)


async def test_an_error_is_said_without_details(live):
    """The message of the job's error."""
    await live.fault(error_at_node="KSampler")
    job = await live.finished((await live.job())["id"])
    body = (await live.get(f"/status/{job['id']}"))[1]

    assert (body["status"], body["error"]) == ("error", job["error"]["message"])
