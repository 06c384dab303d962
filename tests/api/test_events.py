"""Following a job: server-sent events and the WebSocket, and who watches badly."""

import asyncio
import contextlib
import json
import uuid

import aiohttp
import pytest

from common.api import jobs
from common.jobs import bus
from tests.api.conftest import unwatched
from tests.live import both


async def frames(live, job_id, last_id=None):
    """Return all frames of a stream of server-sent events."""
    return [frame async for frame in live.events(job_id, last_id)]


async def socket_frames(live, job_id, query=""):
    """Return all frames of a WebSocket in the same form."""
    url = f"{live.url}/jobs/{job_id}/ws{query}"
    async with live.http.ws_connect(url) as socket:
        found = [json.loads(message.data) async for message in socket]
        assert socket.close_code == 1000
    return [(frame["event"], frame["id"], frame["data"]) for frame in found]


@pytest.fixture(params=[frames, socket_frames], ids=["sse", "ws"])
def follow(request):
    """Follow a job in either way."""
    return request.param


class TestFrames:
    async def test_a_stream_begins_now_and_ends_with_the_job(self, tmp_path, follow):
        """Whole jobs, with ids that grow, progress that never goes back, previews."""
        async with both(tmp_path, speed=3) as live:
            job = await live.job(steps=4)
            found = await asyncio.wait_for(follow(live, job["id"]), 30)
            seen = [(number, data) for event, number, data in found if event == "job"]
            previews = [data["url"] for event, _, data in found if event == "preview"]
            numbers = [number for number, _ in seen]
            values = [data["progress"]["value"] for _, data in seen]

            assert seen[0][1]["status"] in ("queued", "running")
            assert seen[-1][1]["status"] == "succeeded"
            assert {data["id"] for _, data in seen} == {job["id"]}
            assert numbers == sorted(set(numbers))
            assert values == sorted(values)
            assert previews
            assert len(set(previews)) == len(previews)

    async def test_a_finished_job_is_told_at_once(self, live, follow):
        """One frame, and the end."""
        done = await live.finished((await live.job())["id"])
        ((event, _, data),) = await follow(live, done["id"])

        assert (event, data) == ("job", done)

    async def test_both_ways_tell_the_same(self, tmp_path):
        """The same frames under the same ids."""
        async with both(tmp_path, speed=3) as live:
            job = await live.job(steps=3)
            streams = await asyncio.gather(
                frames(live, job["id"]), socket_frames(live, job["id"])
            )
            sse, ws = (
                {n: data for event, n, data in stream if event == "job"}
                for stream in streams
            )
            common = sse.keys() & ws.keys()

            assert len(common) > 3
            assert {n: sse[n] for n in common} == {n: ws[n] for n in common}


class TestResuming:
    async def test_nothing_is_missed_and_nothing_told_twice(self, tmp_path):
        """A watcher that breaks off after each frame sees what a steady one sees."""
        async with both(tmp_path, speed=2) as live:
            job = await live.job(steps=6)
            steady = asyncio.create_task(frames(live, job["id"]))
            while not live.runtime.bus.watchers():
                await asyncio.sleep(0.01)
            last, broken = None, []
            while not (broken and broken[-1][2]["completed_at"]):
                async with contextlib.aclosing(live.events(job["id"], last)) as stream:
                    async for event, number, data in stream:
                        if event == "job":
                            broken.append((event, number, data))
                            last = number
                            break
            whole = [frame for frame in await steady if frame[0] == "job"]

            assert [number for _, number, _ in broken] == sorted(
                {number for _, number, _ in broken}
            )
            assert broken[-len(whole) + 1 :] == whole[1:] or broken == whole

    @pytest.mark.parametrize("last", ["x", "-1", "9" * 30, "99999999", "0", ""])
    async def test_any_last_id_is_answered(self, live, last):
        """An id that we never gave counts as none; the last frame always comes."""
        done = await live.finished((await live.job())["id"])
        found = await frames(live, done["id"], last)

        assert found[-1][2] == done

    async def test_an_id_from_elsewhere_counts_as_none(self, held):
        """The first frame is the present state, as without one."""
        job = await held.job(seed=1)
        url = f"{held.url}/jobs/{job['id']}/events"
        headers = {"Last-Event-ID": "99999999"}
        async with held.http.get(url, headers=headers) as answer:
            assert await answer.content.readline() == b"event: job\n"

    async def test_after_the_end_there_is_nothing_more(self, live):
        """204, upon which a browser gives up instead of asking for ever."""
        done = await live.finished((await live.job())["id"])
        last = (await frames(live, done["id"]))[-1][1]
        headers = {"Last-Event-ID": str(last)}
        url = f"{live.url}/jobs/{done['id']}/events"
        async with live.http.get(url, headers=headers) as answer:
            assert (answer.status, await answer.read()) == (204, b"")

    async def test_a_socket_resumes_by_its_address(self, live):
        """Browsers cannot give a WebSocket a header."""
        done = await live.finished((await live.job())["id"])
        found = await socket_frames(live, done["id"], "?last_event_id=1")

        assert found[-1][2] == done


async def test_an_idle_stream_is_kept_alive(held, monkeypatch):
    """A comment now and then, so that no proxy takes the stream for dead."""
    assert bus.QUIET_S == 15
    monkeypatch.setattr(bus, "QUIET_S", 0.05)
    job = await held.job(seed=1)
    async with held.http.get(f"{held.url}/jobs/{job['id']}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Cache-Control"] == "no-store"
        lines = [await answer.content.readline() for _ in range(12)]

    assert b": ping\n" in lines


class TestPreview:
    async def test_the_newest_image_is_there_while_the_job_runs(self, tmp_path):
        """An image that no cache keeps; 404 before the first and after the end."""
        async with both(tmp_path, speed=1) as live:
            job = await live.job(steps=6)
            kinds = []
            async for event, _, data in live.events(job["id"]):
                if event == "preview" and not kinds:
                    async with live.http.get(live.url + data["url"]) as answer:
                        assert answer.headers["Cache-Control"] == "no-store"
                        kinds.append(answer.content_type)
                        image = await answer.read()

            assert kinds[0] in ("image/jpeg", "image/png")
            assert image[:2] in (b"\xff\xd8", b"\x89P")
            assert (await live.get(f"/jobs/{job['id']}/preview"))[0] == 404

    async def test_a_job_that_waits_has_none(self, held):
        """404, as a problem."""
        job = await held.job(seed=1)
        status, body = await held.get(f"/jobs/{job['id']}/preview")

        assert (status, body["code"]) == (404, "not_found")


class TestManyWatchers:
    async def test_one_that_never_reads_holds_up_nobody(self, tmp_path, monkeypatch):
        """Two hundred on one job, one socket to the engine; all are told the end."""
        dialled = []
        dial = aiohttp.ClientSession.ws_connect
        monkeypatch.setattr(
            aiohttp.ClientSession,
            "ws_connect",
            lambda self, url, **options: (
                dialled.append(url) or dial(self, url, **options)
            ),
        )
        async with both(tmp_path, speed=1) as live:
            live.http._connector._limit = 0  # the client's own cap is a hundred
            job = await live.job(steps=4)
            port = int(live.url.rpartition(":")[2])
            reader, stuck = await asyncio.open_connection("127.0.0.1", port, limit=64)
            line = f"GET /jobs/{job['id']}/events HTTP/1.1\r\nhost: localhost\r\n\r\n"
            stuck.write(line.encode())
            found = await asyncio.gather(
                *(live.finished(job["id"], 60) for _ in range(200))
            )
            stuck.close()

            assert {job["status"] for job in found} == {"succeeded"}
            assert len(dialled) == 1
            assert reader is not None

    async def test_those_who_vanish_leave_nothing_behind(self, held, follow):
        """No topic counts them once their connection is cut."""
        job = await held.job(seed=1)
        tasks = [asyncio.create_task(follow(held, job["id"])) for _ in range(20)]
        async with asyncio.timeout(10):
            while held.runtime.bus.watchers() < 20:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        await unwatched(held)

    async def test_there_is_a_last_one(self, held, monkeypatch):
        """Streams are counted, and one too many is told to come again."""
        monkeypatch.setattr(jobs, "MAX_STREAMS", 2)
        job = await held.job(seed=1)
        url = f"{held.url}/jobs/{job['id']}/events"
        async with held.http.get(url) as first, held.http.get(url) as second:
            await first.content.readline()
            await second.content.readline()
            async with held.http.get(url) as third:
                body = await third.json()

        assert (third.status, body["code"]) == (429, "rate_limited")
        assert int(third.headers["Retry-After"]) > 0


class TestSocket:
    async def test_what_a_watcher_says_is_ignored(self, tmp_path):
        """The job is followed to its end whatever is sent."""
        async with both(tmp_path, speed=2) as live:
            job = await live.job(steps=4)
            async with live.http.ws_connect(f"{live.url}/jobs/{job['id']}/ws") as ws:
                await ws.send_str("cancel")
                await ws.send_bytes(b"\0" * 1000)
                last = [json.loads(m.data) async for m in ws][-1]

            assert last["data"]["status"] == "succeeded"

    async def test_a_frame_over_64_kib_ends_it(self, held):
        """1009, and the job goes on."""
        job = await held.job(seed=1)
        async with held.http.ws_connect(f"{held.url}/jobs/{job['id']}/ws") as ws:
            await ws.send_bytes(b"\0" * (1 << 17))
            async with asyncio.timeout(10):
                async for _ in ws:
                    pass

        assert ws.close_code == 1009
        assert (await held.get(f"/jobs/{job['id']}"))[1]["status"] == "queued"

    async def test_a_job_that_is_not_there_is_404(self, live):
        """The handshake is refused as any other request is."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await live.http.ws_connect(f"{live.url}/jobs/{uuid.uuid4()}/ws")

        assert refused.value.status == 404
