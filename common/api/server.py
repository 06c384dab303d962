"""
Serve an application until told to stop, and then without losing a job.

uvicorn alone never exits while a watcher's stream is open. On the first SIGTERM or
SIGINT the service drains while it still answers, then closes; on the second it goes at
once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from common.api.app import create
from common.api.wire import Connection, Socket
from common.runtime import Runtime

log = logging.getLogger(__name__)

STREAMS_S = 3  # watchers have had their last frame by then


def config(runtime: Runtime) -> uvicorn.Config:
    """Return how uvicorn is to serve a runtime that is open."""
    return uvicorn.Config(
        create(runtime),
        host=runtime.settings.host,
        port=runtime.settings.port,
        http=Connection,
        ws=Socket,
        lifespan="off",  # `work` opens the runtime, so that its errors are raised
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STREAMS_S,
        timeout_keep_alive=65,  # longer than a proxy keeps its side idle
        ws_max_size=64 * 1024,
    )


class Server(uvicorn.Server):
    """A uvicorn server that drains its runtime before it stops."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(config(runtime))
        self._runtime = runtime
        self._draining: asyncio.Task[None] | None = None

    async def work(self, listener: socket.socket | None = None) -> None:
        """
        Open the runtime and serve until stopped.

        Raises:
            DataInUse, Unusable: with what to do about it.
        """
        async with self._runtime.running():
            await self.serve([listener] if listener else None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say where."""
        await super().startup(sockets)
        ports = [one.getsockname()[1] for one in sockets or ()]
        port = ports[0] if ports else self.config.port
        log.info(
            "%s on http://%s:%s (%s engine); /docs describes it",
            self._runtime.service.title,
            self.config.host,
            port,
            self._runtime.settings.engine_kind,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would otherwise be cut, and close."""
        self._runtime.bus.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first signal, stop at once on the second."""
        if threading.current_thread() is not threading.main_thread():
            yield  # whoever made the thread calls `stop`
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self._later(loop)) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _later(self, loop: asyncio.AbstractEventLoop) -> signal.Handlers:
        def handle(_signal: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.stop)

        return handle  # type: ignore[return-value]  # a callable, as signal() takes

    def stop(self) -> None:
        """Begin to stop; the second time, at once."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="drain")
        else:
            self.should_exit = True
            self.force_exit = True

    async def _drain(self) -> None:
        try:
            await self._runtime.drain()
        finally:
            self.should_exit = True


def serve(runtime: Runtime, listener: socket.socket | None = None) -> None:
    """Serve until stopped; `listener` is a bound socket, when the caller made one."""
    server = Server(runtime)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(server.work(listener))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed; it does not exist for Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
