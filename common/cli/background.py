"""A service in a thread of this process, while the main thread talks to a person."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from common.api.server import Server
from common.runtime import Runtime
from common.service import Service
from common.settings import Settings

STEP_S = 0.02
GRACE_S = 10.0  # beyond draining: closing streams, the store and the engine


class Background:
    """
    Serves from entering the block until leaving it.

    Entering raises what keeps the service from starting, such as DataInUse.
    """

    def __init__(
        self, service: Service, settings: Settings, listener: socket.socket
    ) -> None:
        self._service = service
        self._settings = settings
        self._listener = listener
        self._runtime: Runtime | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        # Not Thread.join: up to Python 3.12 a Ctrl-C in it marks a thread that lives as
        # ended, and then nothing would wait for its jobs.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    @property
    def runtime(self) -> Runtime:
        """What runs."""
        assert self._runtime is not None
        return self._runtime

    def __enter__(self) -> Background:
        self._thread.start()
        while not (self._server and self._server.started):
            if self._ended.wait(STEP_S):
                break
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        """End it: running jobs may finish first, unless Ctrl-C comes once more."""
        self._stop()
        end = time.monotonic() + self._settings.drain_s + GRACE_S
        try:
            while time.monotonic() < end and not self._ended.wait(STEP_S):
                pass
        except KeyboardInterrupt:
            self._stop()
            self._ended.wait(GRACE_S)

    def wait(self) -> None:
        """Wait until the service ends by itself, which it should not, or Ctrl-C."""
        # Without a time-out no signal would come through on Windows.
        while not self._ended.wait(0.2):
            pass
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        if not self._ended.is_set() and self._loop and self._server:
            self._loop.call_soon_threadsafe(self._server.stop)

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = error
        finally:
            self._ended.set()

    async def _work(self) -> None:
        # Made here, because parts of it belong to this thread's loop.
        self._loop = asyncio.get_running_loop()
        self._runtime = Runtime(self._service, self._settings)
        self._server = Server(self._runtime)
        await self._server.work(self._listener)
