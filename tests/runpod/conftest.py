import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import aiohttp
import pytest

from tests.fake_runpod import platform
from tests.live import SMALL, engine

SERVICE = "fastwan2.2-5b-network-storage"
DROPPED = ("RUNPOD_", "BUCKET_", "WAN_", "COMFYUI_")


class Worker:
    """A worker in a process of its own, as in a container."""

    def __init__(self, process, log, engine_url):
        self.process = process
        self.log = log
        self.engine_url = engine_url

    def text(self):
        """Return what it said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    async def fault(self, **switches):
        """Break the engine on purpose."""
        await self._engine("POST", "/embedded/faults", json=switches)

    async def prompts(self):
        """Return every prompt that the engine took."""
        return await self._engine("GET", "/embedded/log")

    async def idle(self, timeout_s=10):
        """Return when the engine has nothing to do."""
        async with asyncio.timeout(timeout_s):
            while True:
                queue = await self._engine("GET", "/queue")
                if not (queue["queue_running"] or queue["queue_pending"]):
                    return
                await asyncio.sleep(0.05)

    async def _engine(self, method, path, **options):
        async with (
            aiohttp.ClientSession(self.engine_url) as http,
            http.request(method, path, **options) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json(content_type=None)

    async def wait(self, timeout_s=20):
        """Return its exit code."""
        return await asyncio.to_thread(self.process.wait, timeout_s)


@contextlib.asynccontextmanager
async def worker(folder, env, *options):
    """Run `wan runpod worker` until it ends by itself, or is ended."""
    folder.mkdir(exist_ok=True)
    log = folder / "worker.log"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(DROPPED)}
    command = [sys.executable, "-m", "common.cli.main", "runpod", "worker", SERVICE]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            env={**clean, "WAN_DATA": str(folder / "data"), **env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Worker(process, log, env.get("COMFYUI_URL"))
        finally:
            # Its heartbeat is a process of its own, which dies with it or here.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait, 10)


@pytest.fixture(scope="module")
def anyio_backend():
    """Let one worker serve all tests of a module: its start takes seconds."""
    return "asyncio"


@pytest.fixture
async def engine_url(tmp_path):
    """Serve an engine for one test."""
    async with engine(tmp_path / "engine") as url:
        yield url


@pytest.fixture(scope="module")
async def runpod():
    """Serve the stand-in of the platform."""
    async with platform() as fake:
        yield fake


@pytest.fixture
async def own_runpod():
    """Serve a platform whose queue only this test's worker knows."""
    async with platform() as fake:
        yield fake


@pytest.fixture(scope="module")
async def fast(tmp_path_factory, runpod):
    """Serve an engine that pretends no work, and a worker over it."""
    folder = tmp_path_factory.mktemp("fast")
    async with (
        engine(folder / "engine") as url,
        worker(
            folder,
            {
                **runpod.env(),
                "COMFYUI_URL": url,
                "WAN_INPUT_ALLOW_HOSTS": "127.0.0.1",
            },
        ) as running,
    ):
        yield running


def small(**fields):
    """Return the input of the smallest job."""
    return {**SMALL, **fields}


@pytest.fixture(scope="module")
def s3():
    """Serve S3 with one bucket; yield its address."""
    pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        s3_client(url, "s3").create_bucket(Bucket="clips")
        yield url
    finally:
        server.stop()


def s3_client(url, kind):
    """Return a client with keys that nobody checks yet."""
    import boto3

    return boto3.client(
        kind,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
    )
