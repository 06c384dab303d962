"""A running service for tests that block: `tests.live` in a thread of its own."""

import asyncio
import contextlib
import threading

import requests

from tests.live import both


class Served:
    """What a blocking test holds of a running service."""

    def __init__(self, live, loop):
        self.url = live.url
        self.engine_url = live.engine_url
        self.runtime = live.runtime
        self._loop = loop

    def fault(self, **switches):
        """Break the engine on purpose."""
        answer = requests.post(
            f"{self.engine_url}/embedded/faults", json=switches, timeout=10
        )
        answer.raise_for_status()


@contextlib.contextmanager
def served(folder, **options):
    """Serve FastWan over an embedded engine until the block ends."""
    ready, over = threading.Event(), None
    found = []

    async def serve():
        nonlocal over
        over = asyncio.Event()
        try:
            async with both(folder, **options) as live:
                found.append(Served(live, asyncio.get_running_loop()))
                ready.set()
                await over.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        found[0]._loop.call_soon_threadsafe(over.set)
        thread.join(30)
