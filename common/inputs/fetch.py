"""
Fetch a file that a caller named by URL, through the guard.

Each hop is judged by its text, resolved once, judged by every address it resolved to,
and dialled at one of those; the name stays in Host and SNI. There is no second lookup
that could answer something else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from common.errors import FieldError, InputUnreachable, PayloadTooLarge
from common.inputs.guard import Refused, Target, allow_list, check_url, is_public

Resolve = Callable[[str, int], Awaitable[list[str]]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 64 << 10
_HEADERS = {
    "User-Agent": "wan-services",
    "Accept-Encoding": "identity",  # what is inflated cannot be counted on the wire
    "Connection": "close",
}
_REACH = "the server must reach the URL over the public internet; or send the file"


async def system_resolve(host: str, port: int) -> list[str]:
    """Return the addresses that the system's resolver gives."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def fetch(
    url: str,
    *,
    field: str,
    max_bytes: int,
    allow_hosts: frozenset[str],
    total_s: float = 12.0,
    connect_s: float = 5.0,
    max_hops: int = 3,
    resolve: Resolve = system_resolve,
) -> bytes:
    """
    Return what the URL answers.

    Args:
        field: of the request, for the refusal.
        max_bytes: of the body; counted as it comes, whatever the headers claim.
        allow_hosts: "host" or "host:port" that may be private and on any port.
        total_s: for everything: lookups, redirects, body.
        connect_s: for one lookup, and for one connection with its TLS handshake.
        max_hops: redirects that are followed.

    Raises:
        InputUnreachable: refused, or no whole answer. It names neither addresses nor
            the URL.
        PayloadTooLarge: over `max_bytes`.
    """
    try:
        async with asyncio.timeout(total_s):
            return await _follow(
                url, allow_list(allow_hosts), max_bytes, connect_s, max_hops, resolve
            )
    except Refused as refusal:
        raise InputUnreachable.of(field, str(refusal), _REACH) from None
    except _TooLarge:
        message = f"what the URL answers is over {max_bytes:,} bytes"
        error = FieldError(field, message, "use a smaller file")
        raise PayloadTooLarge(f"{field}: {message}", errors=[error]) from None
    except TimeoutError:
        message = "the URL did not answer in time"
        raise InputUnreachable.of(field, message, _REACH) from None
    except (aiohttp.ClientError, OSError, ValueError):
        message = "the URL did not give a whole answer"
        raise InputUnreachable.of(field, message, _REACH) from None


class _TooLarge(Exception):
    """The answer is, or claims to be, over the limit."""


class _Pinned(AbstractResolver):
    """Knows one host: the one whose addresses were judged."""

    def __init__(self, host: str, addresses: list[str]) -> None:
        self._host = host
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[ResolveResult]:
        """Return the judged addresses."""
        if host != self._host:
            raise OSError("this host was not judged")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Hold nothing."""


async def _follow(
    url: str,
    allow: frozenset[tuple[str, int]],
    max_bytes: int,
    connect_s: float,
    max_hops: int,
    resolve: Resolve,
) -> bytes:
    """Go from hop to hop, with the whole check at each."""
    for _ in range(max_hops + 1):
        target = check_url(url, allow)
        async with asyncio.timeout(connect_s):
            addresses = await _judged(target, resolve)
        answer = await _get(target, addresses, max_bytes, connect_s)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(target.url, answer)
    raise Refused(f"the URL redirects over {max_hops} times")


async def _judged(target: Target, resolve: Resolve) -> list[str]:
    """
    Return the addresses to dial, if all of them are fit.

    One private answer refuses them all: choosing among mixed ones is what rebinding
    plays with. A name that is not there reads like one that is inside, so that nobody
    can ask us which names exist in our network.
    """
    try:
        addresses = await resolve(target.host, target.port)
    except (OSError, UnicodeError):
        addresses = []
    if not addresses or not (target.exempt or all(map(is_public, addresses))):
        raise Refused("the URL's host is not on the public internet")
    return addresses


async def _get(
    target: Target, addresses: list[str], max_bytes: int, connect_s: float
) -> bytes | str:
    """Return the body, or the Location of a redirect."""
    url = URL(target.url, encoded=True)
    if (url.host, url.port) != (target.host, target.port):
        raise Refused("the URL can be read in two ways")
    # The environment's proxies and cookies are not the caller's to use. aiohttp bounds
    # header lines (8 KiB) and their number (128) itself.
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(target.host, addresses),
        family=socket.AF_UNSPEC,
        use_dns_cache=False,
        force_close=True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            auto_decompress=False,
            trust_env=False,
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status in _REDIRECTS:
            return response.headers.get("Location", "")
        if response.status != 200:
            raise Refused(f"the URL answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("the URL answered in an encoding that was not asked for")
        if (response.content_length or 0) > max_bytes:
            raise _TooLarge
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > max_bytes:
                raise _TooLarge
        return bytes(body)
