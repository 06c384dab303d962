import contextlib

import pytest

from common.comfy import Comfy
from common.engine.server import serve
from common.engine.settings import EngineSettings


@pytest.fixture
async def connect():
    """Return a function that gives a client whose socket stands."""
    async with contextlib.AsyncExitStack() as stack:

        async def connected(url, **limits):
            comfy = Comfy(url, **limits)
            await comfy.start()
            stack.push_async_callback(comfy.aclose)
            await comfy.wait_until_ready(10)
            return comfy

        yield connected


@pytest.fixture
async def embedded(tmp_path):
    """Return a function that serves an embedded engine and gives its address."""
    async with contextlib.AsyncExitStack() as stack:

        async def served(speed=0.0):
            settings = EngineSettings(
                data=tmp_path / "engine", port=0, speed=speed, faults=True
            )
            return (await stack.enter_async_context(serve(settings))).url

        yield served
