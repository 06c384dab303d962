"""
ComfyUI's HTTP: one session, and its troubles in our words.

Nothing above this package sees an aiohttp exception or a status code.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from common.comfy.scrub import scrub

# Connecting failed, so not a byte of the request was sent.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class EngineUnreachable(Exception):
    """
    The engine does not answer, or not as ComfyUI does.

    `maybe_sent`: the request may have arrived, and have been obeyed.
    """

    def __init__(self, message: str, *, maybe_sent: bool) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class OutputMissing(Exception):
    """The engine names an output file that is not there (deleted, or never written)."""


class OutputTooLarge(Exception):
    """An output file is larger than allowed."""


class Answer:
    """Status and JSON of a response; `json` is None when the body is not JSON."""

    def __init__(self, status: int, json: object) -> None:
        self.status = status
        self.json = json


class Http:
    """
    A keep-alive session with one engine.

    Args:
        url: such as "http://127.0.0.1:8188"; a path prefix is kept, and a name and
            password before the host are sent as such.
        connect_s, answer_s: limits for the connection, and for each silence after it.
    """

    def __init__(self, url: str, *, connect_s: float, answer_s: float) -> None:
        self.url = url.rstrip("/")
        self.reachable = False  #: whether the last request was answered
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        if self._session is None or self._session.closed:
            raise EngineUnreachable("the client is not started", maybe_sent=False)
        return self._session

    async def open(self) -> None:
        """Open the session; connects to nothing yet."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._connect_s, sock_read=self._answer_s
            ),
            connector=aiohttp.TCPConnector(keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
        self.reachable = False

    async def get(self, path: str) -> object:
        """GET JSON; anything but 200 is EngineUnreachable."""
        return _expect_ok(await self._json("GET", path), f"GET {_route(path)}")

    async def post(self, path: str, json: object = None, data: Any = None) -> object:
        """POST JSON or a form; anything but 200 is EngineUnreachable."""
        answer = await self._json("POST", path, json=json, data=data)
        return _expect_ok(answer, f"POST {_route(path)}")

    async def try_post(self, path: str, json: object) -> Answer:
        """POST JSON and give back whatever was answered."""
        return await self._json("POST", path, json=json)

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET a file without reading it; OutputMissing for any refusal."""
        with self._translated(f"GET {path}"):
            async with self.session.get(self.url + path, params=params) as response:
                self.reachable = True
                if response.status != 200:
                    raise OutputMissing(f"the engine answered {response.status}")
                yield response

    async def _json(self, method: str, path: str, **kwargs: Any) -> Answer:
        with self._translated(f"{method} {_route(path)}"):
            async with self.session.request(
                method, self.url + path, **kwargs
            ) as response:
                body: object = None
                with contextlib.suppress(ValueError, RecursionError):
                    # content_type=None: some answers carry the wrong one.
                    body = await response.json(content_type=None)
                self.reachable = True
                return Answer(response.status, body)

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            self.reachable = False
            maybe_sent = not isinstance(error, _NEVER_SENT)
            said = type(error).__name__ if not str(error) else scrub(str(error))
            raise EngineUnreachable(f"{what}: {said}", maybe_sent=maybe_sent) from error


def shown(url: str) -> str:
    """
    Return an address without the name and password in it, for people.

    >>> shown("http://joe:secret@gpu.example:8188/comfy")
    'http://gpu.example:8188/comfy'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _route(path: str) -> str:
    """Name a path in a message without its ids."""
    return "/" + path.split("?", 1)[0].strip("/").split("/", 1)[0]


def _expect_ok(answer: Answer, what: str) -> object:
    if answer.status != 200:
        raise EngineUnreachable(
            f"{what}: the engine answered {answer.status}", maybe_sent=True
        )
    return answer.json
