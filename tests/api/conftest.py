import asyncio
import contextlib

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
