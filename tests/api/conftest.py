import asyncio
import contextlib
from json import loads

import aiohttp
import pytest

from tests.live import Live, both


@contextlib.asynccontextmanager
async def caller(live, **headers):
    """Talk to a running service with headers of one's own."""
    async with aiohttp.ClientSession(headers=headers) as http:
        yield Live(live.runtime, live.url, live.engine_url, http)


@pytest.fixture
async def keyed(tmp_path):
    """Serve with two keys; yield their owners and somebody without."""
    async with (
        both(tmp_path, api_keys="key-of-anna,key-of-bert") as live,
        caller(live, authorization="Bearer key-of-anna") as anna,
        caller(live, **{"x-api-key": "key-of-bert"}) as bert,
    ):
        yield anna, bert, live


@pytest.fixture
async def held(live):
    """Serve over an engine that takes prompts and never runs them."""
    await live.fault(zombie=True)
    first = await live.job()
    await live.until(first["id"], lambda job: job["status"] == "running")
    await unwatched(live)
    yield live
    await live.fault(reset=True)


async def unwatched(live):
    """Wait until every stream is closed on the service's side too."""
    async with asyncio.timeout(10):
        while live.runtime.bus.watchers():
            await asyncio.sleep(0.01)


async def call(live, method, path, json=None, data=None, **headers):
    """Return status, headers and the parsed body, if it is JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with live.http.request(
        method, live.url + path, json=json, data=data, headers=named
    ) as answer:
        body = await answer.read()
        is_json = "json" in answer.headers.get("Content-Type", "")
        loaded = loads(body) if is_json and body else body
        return answer.status, answer.headers, loaded
