"""Serve an engine: as a process of its own, or inside another one and in tests."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web

from common.engine import breakage, transfer
from common.engine.engine import ENGINE, Engine
from common.engine.routes import routes
from common.engine.settings import EngineSettings
from common.engine.sockets import FEATURES

logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """The address is taken or not ours; the message says what to do."""


async def _socket(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    sid = request.query.get("clientId") or uuid4().hex
    return await engine.sockets.serve(request, sid, engine.hello(sid))


@web.middleware
async def _same_origin(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Refuse a page of another origin, as ComfyUI does on loopback."""
    origin = request.headers.get("Origin")
    if origin and urlsplit(origin).netloc.lower() != request.host.lower():
        return web.Response(status=403)
    return await handler(request)


def _app(engine: Engine) -> web.Application:
    limit = int(FEATURES["max_upload_size"])
    app = web.Application(middlewares=[_same_origin], client_max_size=limit)
    app[ENGINE] = engine
    app[transfer.SETTINGS] = engine.settings
    app.add_routes(routes())
    app.add_routes([web.get("/ws", _socket), web.get("/api/ws", _socket)])
    if engine.settings.faults:
        app.add_routes(breakage.ROUTES)
    return app


@asynccontextmanager
async def serve(settings: EngineSettings) -> AsyncIterator[Engine]:
    """
    Serve an engine until the block ends; then drop everything at once.

    Raises:
        CannotListen: the address cannot be bound.
    """
    engine = Engine(settings)
    runner = web.AppRunner(_app(engine), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "stop what uses it, or choose another host or port"
            ) from error
        port = runner.addresses[0][1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        engine.url = f"http://{host}:{port}"
        engine.start()
        try:
            yield engine
        finally:
            engine.close()
    finally:
        await runner.cleanup()


def run(settings: EngineSettings) -> None:
    """
    Serve an engine until SIGINT or SIGTERM.

    Raises:
        CannotListen: the address cannot be bound.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_until_signal(settings))


async def _until_signal(settings: EngineSettings) -> None:
    stop = asyncio.Event()
    async with serve(settings) as engine:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no handlers on a loop; Ctrl-C is KeyboardInterrupt there.
            with suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        logger.info("embedded engine on %s, files in %s", engine.url, settings.data)
        await stop.wait()
