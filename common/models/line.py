"""One HTTP connection at a time, kept open, which any thread can hang up."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from common.models.answers import Answer, Moved, Odd, judge
from common.models.sources.address import Address

#: Redirects that are followed; the hub needs two.
HOPS = 5


class HungUp(Exception):
    """Another thread ended what this line was doing."""


class Line:
    """
    Asks for ranges, follows redirects, and keeps the last connection for the next.

    An address's own headers go to its own origin (scheme, host and port) only.
    """

    def __init__(self, connect_s: float, stall_s: float) -> None:
        self._connect_s = connect_s
        self._stall_s = stall_s
        self._origin: tuple[str, str] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._over = False
        self._body: http.client.HTTPResponse | None = None
        self._landed: tuple[Address, str] | None = None

    def ask(self, address: Address, start: int, stop: int) -> Answer:
        """
        Ask for the bytes from `start` to before `stop`; `read` gives them.

        Where an address led before is asked first: signed addresses live for a while.

        Raises:
            OSError, http.client.HTTPException: the connection did not do.
        """
        url = address.url
        if self._landed and self._landed[0] is address:
            url = self._landed[1]
        for _ in range(HOPS + 1):
            own = _origin(urlsplit(url)) == _origin(urlsplit(address.url))
            headers = dict(address.headers) if own else {}
            headers["Range"] = f"bytes={start}-{stop - 1}"
            answer = self._get(url, headers, start, stop)
            if not isinstance(answer, Moved):
                self._landed = (address, url)
                return answer
            to = urljoin(url, _spelled(answer.location, "latin-1"))
            if to.startswith("http://") and url.startswith("https://"):
                return Odd("it redirects from https to http", final=True)
            if not to.startswith(("http://", "https://")):
                return Odd("it redirects to no web address", final=True)
            url = to
        return Odd("it redirects for ever", final=True)

    def read(self, view: memoryview) -> int:
        """Fill the view with bytes of the body; fewer at the body's end."""
        if self._body is None:
            raise HungUp
        return self._body.readinto(view)

    def end(self) -> None:
        """Leave a body; the connection stays if nothing of it is still to come."""
        if self._body is not None and not self._body.isclosed():
            self.close()
        self._body = None

    def hang_up(self) -> None:
        """End whatever this line does in its own thread, for good."""
        with self._lock:
            self._over = True
        self.break_off()

    def break_off(self) -> None:
        """End the connection in use; the next question opens another."""
        with self._lock:
            if self._socket is not None:
                # What waits for bytes wakes up, which a close would not do.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            self._socket = None
        if self._body is not None:
            self._body.close()
            self._body = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(
        self, url: str, headers: Mapping[str, str], start: int, stop: int
    ) -> Answer:
        parts = urlsplit(url)
        kept = self._connection is not None and self._origin == _origin(parts)
        try:
            body = self._request(parts, headers)
        except (ConnectionError, http.client.BadStatusLine):
            # A server may close a connection that it kept as we write into it.
            self.close()
            if not kept or self._over:
                raise
            body = self._request(parts, headers)
        found = {name.lower(): value for name, value in body.getheaders()}
        answer = judge(body.status, found, start, stop, datetime.now(UTC))
        self._body = body
        if body.status not in (200, 206):
            if (body.length or 0) <= 1 << 16:
                body.read(1 << 16)
            self.end()
        return answer

    def _request(
        self, parts: SplitResult, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        connection = self._connect(parts)
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        proxied: dict[str, str] = {}
        if parts.scheme == "http" and (proxy := proxy_of(parts)):
            path = parts._replace(fragment="").geturl()
            proxied = proxy_headers(proxy)
        path = _spelled(path)
        fixed = {"Accept-Encoding": "identity", "User-Agent": "wan-models"}
        connection.request("GET", path, headers={**fixed, **proxied, **headers})
        with self._lock:  # http.client may have opened it anew
            self._socket = connection.sock
            if self._over:
                raise HungUp
        connection.sock.settimeout(self._stall_s)
        return connection.getresponse()

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        if self._connection is not None and self._origin == _origin(parts):
            return self._connection
        self.close()
        connection = _connection(parts, self._connect_s)
        connection.connect()
        self._connection, self._origin = connection, _origin(parts)
        return connection


def _spelled(path: str, encoding: str = "utf-8") -> str:
    """
    Return a path, or what a redirect says, as a request line takes it.

    >>> _spelled("/a b/\u00e8")
    '/a%20b/%C3%A8'
    """
    text = re.sub(r"[\s\x00-\x1f\x7f]", "%20", path)
    return re.sub(r"[^\x00-\x7f]", lambda one: quote(one[0].encode(encoding)), text)


def _origin(parts: SplitResult) -> tuple[str, str]:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, f"{parts.hostname}:{port}"


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """Return a connection that is not open yet, through a proxy if there is one."""
    host, port = parts.hostname or "", parts.port
    proxy = proxy_of(parts)
    at = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
    if parts.scheme == "http":
        return http.client.HTTPConnection(*at, timeout=timeout)
    secure = http.client.HTTPSConnection(*at, timeout=timeout, context=_trust())
    if proxy:
        secure.set_tunnel(host, port or 443, proxy_headers(proxy))
    return secure


def proxy_of(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for an address."""
    url = urllib.request.getproxies().get(parts.scheme)
    if not url or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(url if "//" in url else f"http://{url}")


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """Return what tells a proxy who we are."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


@functools.cache
def _trust() -> ssl.SSLContext:
    """Return the system's roots; where a Python comes without any, those of certifi."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
