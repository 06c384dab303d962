"""Serving until told to stop, and stopping without losing a job."""

import asyncio
import contextlib
import logging
import socket

import aiohttp
import pytest

from common.api.server import Server
from common.runtime import DataInUse, Runtime
from common.settings import Settings
from tests.live import Live, engine, fastwan


@contextlib.asynccontextmanager
async def serving(folder, engine_url, **options):
    """Serve as the command line does; yield the server, its work, and who may call."""
    settings = Settings.read(
        data=folder, engine="comfyui", comfyui_url=engine_url, **options
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(Runtime(fastwan(), settings))
        work = asyncio.create_task(server.work(listener))
        url = "http://{}:{}".format(*listener.getsockname())
        async with aiohttp.ClientSession() as http:
            try:
                while not server.started and not work.done():
                    await asyncio.sleep(0.01)
                yield server, work, Live(server._runtime, url, engine_url, http)
            finally:
                server.stop()
                server.stop()
                await asyncio.gather(work, return_exceptions=True)


async def test_a_running_job_is_finished_first(tmp_path):
    """Asked to stop, it takes nothing new, answers who watches, and then goes."""
    async with (
        engine(tmp_path / "engine", speed=2) as engine_url,
        serving(tmp_path / "data", engine_url) as (server, work, live),
    ):
        job = await live.job(steps=4)
        await live.until(job["id"], lambda j: j["progress"]["step"])
        watcher = asyncio.create_task(live.finished(job["id"]))
        server.stop()
        await asyncio.sleep(0.05)
        refused, _ = await live.submit(seed=8)
        done = await watcher
        async with asyncio.timeout(20):
            await work

    assert refused == 503
    assert done["status"] == "succeeded"


async def test_asked_twice_it_goes_at_once(tmp_path):
    """However long the job would take, and whoever watches it."""
    async with (
        engine(tmp_path / "engine") as engine_url,
        serving(tmp_path / "data", engine_url) as (server, work, live),
    ):
        await live.fault(zombie=True)
        job = await live.job()
        await live.until(job["id"], lambda j: j["status"] == "running")
        watcher = asyncio.create_task(live.finished(job["id"]))
        server.stop()
        await asyncio.sleep(0.1)
        server.stop()
        async with asyncio.timeout(10):
            await work
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def test_an_upload_in_progress_is_told(tmp_path, caplog):
    """503 with a time to come again, when the rest of its body can wait no longer."""
    async with (
        engine(tmp_path / "engine") as engine_url,
        serving(tmp_path / "data", engine_url) as (server, work, live),
    ):
        server.config.timeout_graceful_shutdown = 0.1
        port = int(live.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /uploads HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
            b"content-type: multipart/form-data; boundary=b\r\n\r\n--b"
        )
        await asyncio.sleep(0.1)
        server.stop()
        async with asyncio.timeout(10):
            answer = await reader.read()
            await work
        writer.close()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 30\r\n" in answer
    assert b'"shutting_down"' in answer
    assert not [r for r in caplog.records if r.exc_info]


async def test_watchers_of_waiting_jobs_are_let_go(tmp_path, caplog):
    """Their streams end as whole answers, so that they ask again, and quietly."""
    async with (
        engine(tmp_path / "engine") as engine_url,
        serving(tmp_path / "data", engine_url, drain_s=0) as (server, work, live),
    ):
        await live.fault(zombie=True)
        await live.job()
        job = await live.job(seed=1)
        sse = asyncio.create_task(every(live.events(job["id"])))
        url = f"{live.url}/jobs/{job['id']}/ws"
        async with live.http.ws_connect(url) as socket_:
            await socket_.receive()
            server.stop()
            async with asyncio.timeout(10):
                async for _ in socket_:
                    pass
                seen = await sse
                await work

    assert socket_.close_code == 1012
    assert {frame[2]["status"] for frame in seen} == {"queued"}
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def every(stream):
    """Return all of a stream."""
    return [frame async for frame in stream]


async def test_a_data_folder_serves_one_process(tmp_path):
    """The second is told, instead of running the first one's jobs."""
    async with (
        engine(tmp_path / "engine") as engine_url,
        serving(tmp_path / "data", engine_url) as (_, _, live),
    ):
        settings = Settings.read(
            data=tmp_path / "data", engine="comfyui", comfyui_url=engine_url
        )
        with pytest.raises(DataInUse, match="WAN_DATA"):
            await Server(Runtime(fastwan(), settings)).work()
        assert (await live.get("/health"))[0] == 200
