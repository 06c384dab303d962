"""
The WebSocket side: who is connected, and which frame goes to whom.

Frames come from the worker thread and leave in that order. Each socket has a queue and
a writer of its own, so a client that does not read loses its previews and then its
connection, but stops nobody else.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from common.engine.faults import Faults

#: Frames that may wait for one slow reader: previews, and all others.
PREVIEWS_WAITING = 256
FRAMES_WAITING = 4096

Turn = AbstractAsyncContextManager[Any]

FEATURES = {"supports_preview_metadata": True, "max_upload_size": 100 * 1024 * 1024}


@dataclass(frozen=True)
class Preview:
    """
    A picture of a run on its way.

    As type 1 it is a JPEG and nothing else; as type 4 it says what it belongs to, but
    only to a client that asked for this by its feature flags.
    """

    jpeg: bytes
    about: dict[str, Any] | None = None

    def encode(self) -> bytes:
        """Return the binary frame."""
        if self.about is None:
            return struct.pack(">II", 1, 1) + self.jpeg
        about = json.dumps(self.about | {"image_type": "image/jpeg"}).encode()
        return struct.pack(">II", 4, len(about)) + about + self.jpeg


class Socket:
    """One connection."""

    def __init__(self, sid: str, ws: web.WebSocketResponse) -> None:
        self.sid = sid
        self.ws = ws
        self.wants_metadata = False
        self._waiting: deque[str | Preview] = deque()
        self._some = asyncio.Event()

    def push(self, frame: str | Preview) -> bool:
        """Queue a frame; False = this reader is too slow to keep."""
        if isinstance(frame, Preview):
            if (frame.about is not None) is not self.wants_metadata:
                return True
            if len(self._waiting) >= PREVIEWS_WAITING:
                return True
        self._waiting.append(frame)
        self._some.set()
        return len(self._waiting) <= FRAMES_WAITING

    async def write(self, turn: Callable[[], Turn]) -> None:
        """Send what is queued until the connection ends."""
        with suppress(ConnectionError):
            while True:
                await self._some.wait()
                self._some.clear()
                while self._waiting:
                    frame = self._waiting.popleft()
                    async with turn():
                        if isinstance(frame, str):
                            await self.ws.send_str(frame)
                        else:
                            await self.ws.send_bytes(frame.encode())


class Sockets:
    """All connections. `post` may be called from any thread."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._by_sid: dict[str, Socket] = {}
        self._open: dict[Socket, web.Request] = {}
        self._lock = threading.Lock()  # guards the next two
        self._posted: list[tuple[str | Preview, str | None]] = []
        self._coming = False  #: a delivery is on its way
        self._turn = asyncio.Lock()

    def post(self, frame: str | Preview, sid: str | None) -> None:
        """Send a frame to one client, or with None to all."""
        with self._lock:
            self._posted.append((frame, sid))
            first, self._coming = not self._coming, True
        if first:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            posted, self._posted, self._coming = self._posted, [], False
        muted = self._faults.take("mute_socket")
        for frame, sid in posted:
            targets = self._by_sid.values() if sid is None else [self._by_sid.get(sid)]
            for socket in list(targets):
                if socket is not None and not muted and not socket.push(frame):
                    self._cut(socket)

    def cut_all(self) -> None:
        """Cut every connection, as the death of the process would."""
        for socket in list(self._open):
            self._cut(socket)

    def _cut(self, socket: Socket) -> None:
        if (transport := self._open[socket].transport) is not None:
            transport.abort()

    def _next_turn(self) -> Turn:
        """Return what a writer holds while it sends: nothing, or what all wait for."""
        stall = self._faults.take("slow_reader_stalls")
        return self._turn if stall else nullcontext()

    async def serve(
        self, request: web.Request, sid: str, hello: list[str]
    ) -> web.WebSocketResponse:
        """Serve one connection: the hello frames, then what is posted."""
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        socket = Socket(sid, ws)
        self._open[socket] = request
        self._by_sid[sid] = socket
        for frame in hello:
            socket.push(frame)
        writer = asyncio.create_task(socket.write(self._next_turn))
        try:
            await self._read(socket)
        finally:
            del self._open[socket]
            mine = self._by_sid.get(sid) is socket
            if mine or self._faults.take("deaf_after_reconnect"):
                self._by_sid.pop(sid, None)
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        return ws

    async def _read(self, socket: Socket) -> None:
        first = True
        async for message in socket.ws:
            if first and message.type is WSMsgType.TEXT:
                first = False
                with suppress(ValueError, AttributeError):
                    said = json.loads(message.data)
                    if said.get("type") == "feature_flags":
                        flags = said.get("data", {})
                        wanted = flags.get("supports_preview_metadata")
                        socket.wants_metadata = bool(wanted)
                        answer = {"type": "feature_flags", "data": FEATURES}
                        socket.push(json.dumps(answer))
