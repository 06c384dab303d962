"""
HTTP/1.1 connections that nobody can hold for nothing: heads and readers have limits.

uvicorn bounds neither the time nor the size of a request's head, and waits for ever for
a reader that does not read; each such connection would keep its place and its memory.
Bodies are bounded in `common.api.gate`, where the caller is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

from common.api.problems import MEDIA_TYPE, headers, text
from common.errors import MalformedRequest, RequestTimeout, ServiceError

HEAD_S = 10.0  # from the first byte, or the connection, to the end of the head
HEAD_BYTES = 64 * 1024
STALL_S = 30.0  # for a reader to take what is buffered, 64 KiB
REST_S = (
    5.0  # for the rest of a body that was refused; closing at once loses the answer
)


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket whose reader must read, pongs too."""

    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Give the reader some time, and take no more of its pings until then."""
        super().pause_writing()
        self.transport.pause_reading()
        self._stalled = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on; the reader reads."""
        if self._stalled:
            self._stalled.cancel()
        if not self.read_paused:
            self.transport.resume_reading()
        super().resume_writing()

    async def send(self, message: Any) -> None:
        """Note that a refusal ends the handshake; uvicorn takes it for a crash."""
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        if self._stalled:
            self._stalled.cancel()
        super().connection_lost(exc)


class Connection(HttpToolsProtocol):
    """
    A connection whose request heads are bounded and whose reader must read.

    On httptools, not h11: it refuses folded headers, lower-case methods and long URLs,
    and takes half the time.
    """

    _head_bytes: int | None = None  #: None = no head is on its way
    _body_open = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(  # type: ignore[override]  # as uvicorn does
        self, transport: asyncio.Transport
    ) -> None:
        """Wait for a head, but not for long."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Leave trailers out: the request was judged by its head."""
        if not self._body_open:
            super().on_header(name, value)

    def handle_websocket_upgrade(self) -> None:
        """Refuse what no WebSocket can begin with; uvicorn would hang, for ever."""
        names = {name for name, _ in self.scope["headers"]}
        if self.scope["method"] != "GET" or names & {
            b"content-length",
            b"transfer-encoding",
        }:
            self._refuse(MalformedRequest("a WebSocket begins with a GET, no body"))
            return
        super().handle_websocket_upgrade()

    def on_headers_complete(self) -> None:
        """Let the request take its time from here on."""
        self._stop("head")
        self._head_bytes = None
        self._body_open = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body is over."""
        self._stop("rest")
        self._body_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let the rest of a refused body pass by, unread, but not for ever."""
        if self._body_open:
            self._start("rest", REST_S, self.transport.abort)
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that does not end."""
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(MalformedRequest("the request's head is over 64 KiB"))

    def pause_writing(self) -> None:
        """Give the reader some time to read."""
        super().pause_writing()
        self._start("stall", STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on; the reader reads."""
        self._stop("stall")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(MalformedRequest("this is not an HTTP/1.1 request"))

    def _expect_head(self) -> None:
        self._head_bytes = 0
        late = RequestTimeout("the request's head came too slowly")
        self._start("head", HEAD_S, lambda: self._refuse(late))

    def _refuse(self, error: ServiceError) -> None:
        """Answer although there is no request that the application could see."""
        self._stop("head")
        self._head_bytes = None
        if self.transport.is_closing():
            return
        if self._may_speak():
            body = text(error, "").encode()
            lines = {
                "content-type": MEDIA_TYPE,
                "content-length": str(len(body)),
                "connection": "close",
                **headers(error),
            }
            head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            self.transport.write(head.encode("latin-1") + b"\r\n" + body)
        if self.cycle is not None:
            self.cycle.disconnected = True  # it has had its answer
            self.cycle.message_event.set()
        self.transport.close()

    def _may_speak(self) -> bool:
        """Tell whether an answer now would be taken for that of the refused request."""
        if self.cycle is None or self.cycle.response_complete:
            return not (self.cycle and self._body_open)
        return self._body_open and not (self.cycle.response_started or self.pipeline)

    def _start(self, name: str, seconds: float, then: Callable[[], object]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, then)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()
