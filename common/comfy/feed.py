"""
The one standing socket of a ComfyUI: opened before the first prompt, read for ever.

ComfyUI awaits each send in turn, so a client that stops reading stalls all others:
the task here only reads, parses and hands out, and never waits for a consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp

from common.comfy.follower import Follower, SocketLost
from common.comfy.http import EngineUnreachable, Http
from common.comfy.scrub import scrub
from common.events import Ended, Event, Failed, loads, parse, parse_binary

log = logging.getLogger(__name__)

MAX_TEXT_CHARS = 32 * 2**20  #: a longer frame is read, to keep the socket, and dropped
CLOSE_S = 2.0  #: how long a closing handshake may take
MAX_BACKOFF_S = 5.0
STEADY_S = 5.0  #: a socket that stood so long was no failure
# Previews then say which prompt they belong to. Kept per connection by the server.
FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
_SPOKEN = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


class Feed:
    """
    Keeps the socket standing and gives each prompt's events to its follower.

    Args:
        before_connect: awaited before each attempt; may raise EngineUnreachable.
        silence_s: a socket that says nothing for so long, though pinged, is dropped.
        client_file: remembers the client id over a restart of ours, so that a prompt
            that still runs is heard again. Its server saw the old socket die with us.
    """

    def __init__(
        self,
        http: Http,
        before_connect: Callable[[], Awaitable[object]],
        *,
        silence_s: float,
        client_file: Path | None = None,
    ) -> None:
        self._client_file = client_file
        self.client_id = ""
        self.alive = asyncio.Event()
        self._http = http
        self._before_connect = before_connect
        # aiohttp waits half the interval for the pong.
        self._heartbeat_s = silence_s * 2 / 3
        self._followers: dict[str, Follower] = {}
        self._running: str | None = None  # by the frames; owns frames without an id
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Start the task."""
        self.client_id = self._remembered() or self._fresh_id()
        self._task = asyncio.create_task(self._stand(), name="comfy-feed")

    async def close(self) -> None:
        """End the task and the socket; followers are told."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @contextlib.contextmanager
    def follow(self, prompt_id: str) -> Iterator[Follower]:
        """Register a listener for the length of the `with` block."""
        if prompt_id in self._followers:
            raise ValueError(f"prompt {prompt_id} is followed already")
        follower = self._followers[prompt_id] = Follower()
        if not self.alive.is_set():
            follower.put(SocketLost())
        try:
            yield follower
        finally:
            del self._followers[prompt_id]

    async def reconnect(self) -> None:
        """Close the socket, which may be deaf, and stand up anew under a fresh id."""
        socket, self._socket = self._socket, None
        self.client_id = self._fresh_id()
        self.alive.clear()
        if socket is not None:
            await socket.close()
        self.hurry()

    def hurry(self) -> None:
        """Try now if a back-off is being waited out."""
        self._kick.set()

    async def _stand(self) -> None:
        """Connect, read, and connect again, for ever."""
        failures = 0
        while True:
            self._kick.clear()
            began = time.monotonic()
            try:
                await self._read_one_socket()
            except (aiohttp.ClientError, EngineUnreachable, OSError) as error:
                if failures == 0:
                    log.warning("no socket to the engine: %s", scrub(str(error)))
            except Exception:
                log.exception("the engine's socket task stumbled")
            if time.monotonic() - began > STEADY_S:
                failures = 0
            delay = min(MAX_BACKOFF_S, 0.1 * 2 ** min(failures, 10))
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * random.uniform(0.5, 1)):  # noqa: S311
                    await self._kick.wait()

    async def _read_one_socket(self) -> None:
        """
        Hold one connection until it ends.

        A second socket under an id whose first is still registered turns deaf once
        the server notices the first one's end, and stays open. So an id is used again
        only when the server itself closed.
        """
        client_id = self.client_id
        stood = clean = False
        await self._before_connect()
        url = self._http.url.replace("http", "ws", 1) + f"/ws?clientId={client_id}"
        try:
            async with self._http.session.ws_connect(
                url,
                heartbeat=self._heartbeat_s,
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            ) as socket:
                if client_id != self.client_id:
                    return  # `reconnect` was called meanwhile
                await socket.send_json(FLAGS)
                self._socket = socket
                stood = True
                self.alive.set()
                log.info("the engine's socket stands")
                while (message := await socket.receive()).type in _SPOKEN:
                    self._hear(message)
                clean = message.type is aiohttp.WSMsgType.CLOSE
        finally:
            self.alive.clear()
            self._socket = self._running = None
            if not (clean or self._closing) and self.client_id == client_id:
                self.client_id = self._fresh_id()
            if stood:
                self._lost()

    def _remembered(self) -> str | None:
        """Return the id that an earlier process used last."""
        with contextlib.suppress(OSError, ValueError):
            if self._client_file is not None:
                return uuid.UUID(self._client_file.read_text()).hex
        return None

    def _fresh_id(self) -> str:
        client_id = uuid.uuid4().hex
        if self._client_file is not None:
            with contextlib.suppress(OSError):  # it is for progress only
                self._client_file.write_text(client_id)
        return client_id

    def _lost(self) -> None:
        log.info("the engine's socket is gone")
        for follower in self._followers.values():
            follower.put(SocketLost())

    def _hear(self, message: aiohttp.WSMessage) -> None:
        raw = None
        found: tuple[str | None, Event] | None = None
        if message.type is aiohttp.WSMsgType.BINARY:
            found = parse_binary(message.data)
        elif len(message.data) <= MAX_TEXT_CHARS:
            raw = loads(message.data)
            found = parse(raw) if raw is not None else None
        if found is None:
            return
        prompt_id, event = found
        if prompt_id is None:
            prompt_id = self._running
        else:
            self._running = None if isinstance(event, Ended) else prompt_id
        follower = self._followers.get(prompt_id) if prompt_id else None
        if follower is None:
            return
        if isinstance(event, Failed):
            log.warning("prompt %s failed: %s%s", prompt_id, event, _traceback(raw))
        follower.put(event)


def _traceback(raw: dict[str, object] | None) -> str:
    """Return the engine's traceback: it belongs in the log, and only there."""
    data = (raw or {}).get("data")
    lines = data.get("traceback") if isinstance(data, dict) else None
    if not isinstance(lines, list):
        return ""
    return "\n" + "".join(line for line in lines if isinstance(line, str))[:20_000]
