"""The worker under the SDK's own local API, for trying a service at home."""

import asyncio
import base64
import json
import socket

import aiohttp
import psutil
import pytest

from tests.runpod.conftest import small, worker

pytest.importorskip("runpod")


OWN_ENGINE = {
    "WAN_ENGINE": "embedded",
    "WAN_ENGINE_PORT": "0",
    "WAN_ENGINE_SPEED": "0",
}


@pytest.fixture
async def local(tmp_path):
    """Serve the local API, over an engine of the worker's own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    options = ("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", port)
    url = f"http://127.0.0.1:{port}"
    async with (
        worker(tmp_path, OWN_ENGINE, *options) as running,
        aiohttp.ClientSession(url) as http,
    ):
        async with asyncio.timeout(20):
            while True:
                try:
                    async with http.get("/openapi.json"):
                        break
                except aiohttp.ClientError:
                    assert running.process.poll() is None, running.text()
                    await asyncio.sleep(0.05)
        yield running, http


async def post(http, path, input_):
    """Send a request and return the answer."""
    async with http.post(path, json={"input": input_}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_the_local_api_makes_clips(local):
    """By /runsync, and by /run and /status; its engine ends with it."""
    running, local = local
    done = await post(local, "/runsync", small())
    refused = await post(local, "/runsync", small(stpes=4))
    started = await post(local, "/run", small(seed=9))
    async with local.post(f"/status/{started['id']}") as answer:
        polled = await answer.json()
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.terminate()
    await running.wait()
    _, left = psutil.wait_procs(children, timeout=5)

    assert done["status"] == polled["status"] == "COMPLETED"
    (output,) = done["output"][-1]["outputs"]
    assert base64.b64decode(output["data"])[4:8] == b"ftyp"
    (said,) = refused["output"]
    assert json.loads(said["error"])["errors"][0]["field"] == "stpes"
    assert done["output"][-1]["engine"] == "embedded"
    assert children
    assert not left
