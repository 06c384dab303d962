"""
What every request passes before a route sees it: host, origin, key, body limits.

Plain ASGI, so that a stream is never buffered and a refused request costs nothing: a
wrong key is answered before its body is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.api.docs import ASSETS
from common.api.problems import response as problem
from common.errors import (
    ForbiddenOrigin,
    MalformedRequest,
    MisdirectedRequest,
    PayloadTooLarge,
    RequestTimeout,
    ServiceError,
    ShuttingDown,
    Unauthorized,
    UnsupportedMediaType,
)

log = logging.getLogger(__name__)

# Probes have no key, and the documentation holds nothing that the source does not.
MODELS_HEALTH = "/health/models"
METRICS = "/metrics"
OPEN_PATHS = frozenset(
    {"/health", MODELS_HEALTH, "/ready", "/ping", "/openapi.json"}
    | {"/docs", *(f"/docs/{name}" for name in ASSETS)}
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-site",
    "x-frame-options": "DENY",
}
_STARTS = ("http.response.start", "websocket.http.response.start")
NO_SCRIPTS = "sandbox; default-src 'none'"

# A body may take this long plus its size at this pace; slower ones hold a place for
# nothing.
BODY_S = 10.0
BODY_BYTES_PER_S = 64 * 1024

MAX_URL_BYTES = 8192

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Policy:
    """Who may send what."""

    keys: tuple[str, ...]  #: empty = no key is asked for (loopback only)
    hosts: frozenset[str]  #: host names we answer to; empty = any
    origins: frozenset[str]  #: origins of web pages that may call us
    max_body_bytes: int
    root: str = ""  #: the path that a proxy serves us under


class Gate:
    """The ASGI middleware that applies a policy."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy
        self._digests = [hashlib.sha256(key.encode()).digest() for key in policy.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._place(scope)
        heads = Headers(scope=scope)
        given = heads.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        origin = self._allowed_origin(heads)
        sender = _Sender(send, request_id, origin)
        try:
            _check_url(scope)
            self._check_host(scope, heads)
            self._check_origin(scope, heads, origin)
            if preflight := self._preflight(scope, heads, origin):
                await preflight(scope, receive, sender)
                return
            state["owner"] = self._owner(scope, heads)
            body = self._body(scope, heads, receive)
            await self._app(scope, body, sender)
        except asyncio.CancelledError:
            if sender.began:
                raise
            # The server stops; it would call what we pass on a crash of ours.
            error = ShuttingDown("the service is stopping", retry_after_s=30)
            await problem(error, request_id)(scope, receive, sender)
        except Exception as error:
            if sender.began:
                raise
            if not isinstance(error, ServiceError):
                log.exception("%s failed", request_id)
                error = ServiceError("the service failed; its log has the request id")
            await problem(error, request_id)(scope, receive, sender)

    def _place(self, scope: Scope) -> None:
        """Put the request under our path, whether the proxy stripped it or not."""
        root = self._policy.root
        if root and not scope["path"].startswith(f"{root}/"):
            scope["path"] = root + scope["path"]
        scope["root_path"] = root

    def _check_host(self, scope: Scope, heads: Headers) -> None:
        names = heads.getlist("host")
        if len(names) > 1:
            raise MalformedRequest("the Host header is given twice")
        try:
            host = (urlsplit(f"//{names[0]}").hostname if names else "") or ""
        except ValueError:
            raise MalformedRequest("the Host header is no host") from None
        # Prometheus calls by address, with a key; a page that borrows a name has none.
        path = scope["path"].removeprefix(self._policy.root)
        if self._policy.keys and path == METRICS:
            return
        if self._policy.hosts and host not in self._policy.hosts:
            raise MisdirectedRequest(
                "this server does not answer to that host name;"
                " WAN_ALLOWED_HOSTS lists the names it answers to"
            )

    def _allowed_origin(self, heads: Headers) -> str | None:
        origin = heads.get("origin")
        return origin if origin in self._policy.origins else None

    def _check_origin(self, scope: Scope, heads: Headers, allowed: str | None) -> None:
        """Refuse pages of other origins; programs send no Origin."""
        origin = heads.get("origin")
        if origin is not None and allowed is None:
            # A proxy that speaks TLS for us leaves the host, and not the scheme.
            scheme, _, host = origin.partition("://")
            if scheme not in ("http", "https") or host != heads.get("host"):
                raise ForbiddenOrigin(
                    "web pages of this origin may not call the service;"
                    " WAN_CORS_ORIGINS lists those that may"
                )
        cross = heads.get("sec-fetch-site") in ("cross-site", "same-site")
        changes = scope.get("method", "GET") not in SAFE_METHODS
        if cross and allowed is None and (changes or scope["type"] == "websocket"):
            raise ForbiddenOrigin("another site's page may not call the service")

    def _preflight(
        self, scope: Scope, heads: Headers, origin: str | None
    ) -> ASGIApp | None:
        asks = "access-control-request-method" in heads
        if scope.get("method") != "OPTIONS" or not asks or origin is None:
            return None
        return Response(
            status_code=204,
            headers={
                "access-control-allow-methods": "GET, POST, DELETE",
                "access-control-allow-headers": (
                    "authorization, content-type, idempotency-key, last-event-id,"
                    " prefer, x-api-key, x-request-id"
                ),
                "access-control-max-age": "600",
            },
        )

    def _owner(self, scope: Scope, heads: Headers) -> str:
        """
        Return whose request this is: a digest of the key, "" where none is needed.

        Raises:
            Unauthorized: a key is needed, and this one is absent or unknown.
        """
        path = scope["path"].removeprefix(self._policy.root)
        is_open = path in OPEN_PATHS or path.startswith(f"{MODELS_HEALTH}/")
        if not self._digests or is_open:
            return ""
        kind, _, token = heads.get("authorization", "").partition(" ")
        key = token.strip() if kind.lower() == "bearer" else heads.get("x-api-key", "")
        # Bytes as they came, which are compared as digests, whatever they are.
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        if not any(hmac.compare_digest(digest, known) for known in self._digests):
            raise Unauthorized(
                "send a valid API key as 'Authorization: Bearer …' or 'X-API-Key: …'"
            )
        return digest.hex()[:16]

    def _body(self, scope: Scope, heads: Headers, receive: Receive) -> Receive:
        """Return `receive` with a limit on the body's size and time."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            return receive
        if heads.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("send the body without Content-Encoding")
        most = self._policy.max_body_bytes
        length = heads.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18:
            raise MalformedRequest("Content-Length is not a number")
        if int(length) > most:
            raise _too_large(most)
        seen = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = False

        async def limited() -> Message:
            nonlocal seen, done
            if done:  # only the end of the connection is left to hear of
                return await receive()
            end = began + BODY_S + seen / BODY_BYTES_PER_S
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout("the body came too slowly") from None
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                done = not message.get("more_body", False)
                if seen > most:
                    raise _too_large(most)
            return message

        return limited


class _Sender:
    """Adds to each response what all of them carry."""

    def __init__(self, send: Send, request_id: str, origin: str | None) -> None:
        self._send = send
        self._request_id = request_id
        self._origin = origin
        self.began = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in _STARTS:
            self.began = True
            heads = MutableHeaders(scope=message)
            heads["x-request-id"] = self._request_id
            for name, value in SECURITY_HEADERS.items():
                heads.setdefault(name, value)
            if "text/html" not in heads.get("content-type", ""):
                heads.setdefault("content-security-policy", NO_SCRIPTS)
            if self._origin is not None:
                heads["access-control-allow-origin"] = self._origin
                heads["access-control-expose-headers"] = (
                    "location, preference-applied, retry-after, x-request-id"
                )
                heads.add_vary_header("Origin")
        elif message["type"] == "websocket.accept":
            self.began = True
        await self._send(message)


def _check_url(scope: Scope) -> None:
    """Refuse addresses that are longer than any of ours."""
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_URL_BYTES:
        raise MalformedRequest(f"the URL is over {MAX_URL_BYTES} bytes")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over {most // 2**20} MiB")
