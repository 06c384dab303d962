"""A service on a real port over an embedded engine on a real port, in this process."""

import asyncio
import contextlib
import json
import shutil
from pathlib import Path

import aiohttp
import uvicorn

from common.api.server import config
from common.engine.server import serve
from common.engine.settings import EngineSettings
from common.job import Status
from common.runtime import Runtime
from common.service import Service, find, load
from common.settings import Settings

SMALL = {
    "prompt": "a red fox in snow",
    "width": 256,
    "height": 256,
    "frames": 5,
    "steps": 2,
    "seed": 7,
}
DONE = {status.value for status in Status if status.terminal}


class Live:
    """What a test holds of a running service."""

    def __init__(self, runtime, url, engine_url, http):
        self.runtime = runtime
        self.url = url
        self.engine_url = engine_url
        self.http = http

    async def submit(self, headers=None, **fields):
        """POST /generate and return (status, body)."""
        body = {**SMALL, **fields}
        async with self.http.post(
            f"{self.url}/generate", json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json()

    async def job(self, **fields):
        """Submit and return the accepted job."""
        status, body = await self.submit(**fields)
        assert status == 202, body
        return body

    async def get(self, path):
        """GET and return (status, JSON)."""
        async with self.http.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.json()

    async def post(self, path, **options):
        """POST and return (status, JSON)."""
        async with self.http.post(f"{self.url}{path}", **options) as answer:
            return answer.status, await answer.json()

    async def finished(self, job_id, timeout_s=30):
        """Follow a job by its events and return it when it is over."""
        last = None
        async with asyncio.timeout(timeout_s):
            async for event, _, data in self.events(job_id):
                if event == "job":
                    last = data
        assert last is not None
        assert last["status"] in DONE, last
        return last

    async def until(self, job_id, condition, timeout_s=30):
        """Follow a job until a condition holds, and return it."""
        async with asyncio.timeout(timeout_s):
            async for event, _, data in self.events(job_id):
                if event == "job" and condition(data):
                    return data
        raise AssertionError("the job ended before")

    async def events(self, job_id, last_id=None):
        """Yield (event, id, data) of a job's stream until it ends."""
        headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        url = f"{self.url}/jobs/{job_id}/events"
        async with self.http.get(url, headers=headers) as answer:
            assert answer.status == 200
            frame = {}
            async for raw in answer.content:
                line = raw.decode().rstrip("\n")
                if line:
                    key, _, value = line.partition(": ")
                    frame[key] = value
                elif "data" in frame:
                    yield (
                        frame["event"],
                        int(frame["id"]) if "id" in frame else None,
                        json.loads(frame["data"]),
                    )
                    frame = {}

    async def fault(self, **switches):
        """Break the engine on purpose."""
        async with self.http.post(
            f"{self.engine_url}/embedded/faults", json=switches
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def prompts(self):
        """Return the engine's log of every prompt it took."""
        async with self.http.get(f"{self.engine_url}/embedded/log") as answer:
            return await answer.json()


def fastwan() -> Service:
    """Return the first service."""
    return load(find("fastwan2.2-5b-network-storage"))


def mistyped(folder: Path) -> Service:
    """Return the first service with a letter wrong in the name of its VAE."""
    folder.mkdir()
    for name in ("api_wrapper.py", "workflow_api.json"):
        shutil.copy(fastwan().folder / name, folder)
    workflow = folder / "workflow_api.json"
    text = workflow.read_text(encoding="utf-8")
    workflow.write_text(text.replace("wan2.2_vae", "wan2.2_vea"), encoding="utf-8")
    return load(folder)


@contextlib.asynccontextmanager
async def engine(folder: Path, **options):
    """Serve an embedded engine with its fault switches."""
    options = {"speed": 0.0, "faults": True, **options}
    settings = EngineSettings(data=folder, port=0, **options)
    async with serve(settings) as running:
        yield running.url


@contextlib.asynccontextmanager
async def wrapper(
    data: Path, engine_url: str, service=None, limits=None, reach=True, **options
):
    """Serve a service over an engine that is there already."""
    settings = Settings.read(
        data=data, engine="comfyui", comfyui_url=engine_url, port=0, **options
    )
    runtime = Runtime(service or fastwan(), settings)
    for name, value in (limits or {}).items():
        object.__setattr__(runtime.runner.limits, name, value)
    served = config(runtime)
    served.timeout_graceful_shutdown = 1
    served.lifespan = "on"
    server = uvicorn.Server(served)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server._serve())
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("the server did not start")
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession() as http:
            for one in runtime.engines if reach else ():
                with contextlib.suppress(Exception):
                    await one.comfy.wait_until_ready(10)
            yield Live(runtime, f"http://127.0.0.1:{port}", engine_url, http)
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def both(folder: Path, speed=0.0, **options):
    """Serve an engine and a service over it."""
    async with (
        engine(folder / "engine", speed=speed) as engine_url,
        wrapper(folder / "data", engine_url, **options) as live,
    ):
        yield live
