"""The HTTP application of one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

import common
from common.api import (
    docs,
    estimate,
    jobs,
    legacy,
    models,
    ping,
    problems,
    schema,
    service_card,
    uploads,
)
from common.api.gate import Gate, Policy
from common.runtime import Runtime
from common.settings import LOOPBACK, BadSettings, Settings

MULTIPART_SLACK_BYTES = 2 << 20  # boundaries and text parts beside the file


def create(runtime: Runtime) -> FastAPI:
    """
    Return the application; entering its lifespan starts the runtime.

    Raises:
        BadSettings: it would listen beyond this machine without an API key.
    """
    settings = runtime.settings
    service = runtime.service

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with runtime.running():
            yield

    app = FastAPI(
        title=service.title,
        version=common.__version__,
        description=(service.request.__doc__ or "").strip(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.runtime = runtime
    problems.install(app)
    app.include_router(service_card.routes(runtime))
    app.include_router(models.routes(runtime))
    app.include_router(ping.routes(runtime))
    app.include_router(jobs.routes(runtime))
    app.include_router(estimate.routes(runtime))
    app.include_router(uploads.routes(runtime))
    app.include_router(legacy.routes(runtime))
    app.include_router(docs.routes(service, settings.root_path))
    app.openapi = partial(schema.document, app, service.request, settings.root_path)  # type: ignore[method-assign]
    app.add_middleware(Gate, policy=policy(settings))
    return app


def policy(settings: Settings) -> Policy:
    """Return who may call, and with how much."""
    keys = tuple(key.get_secret_value() for key in settings.api_keys)
    if settings.public and not keys:
        raise BadSettings(
            f"WAN_HOST is {settings.host}, which other machines can reach: set"
            " WAN_API_KEYS, or listen on 127.0.0.1"
        )
    hosts = frozenset(settings.allowed_hosts)
    if not settings.public:
        # Even on loopback: a web page can point its own name at 127.0.0.1.
        hosts |= LOOPBACK
    return Policy(
        keys=keys,
        hosts=hosts,
        origins=frozenset(settings.cors_origins),
        max_body_bytes=(settings.max_upload_mb << 20) + MULTIPART_SLACK_BYTES,
        root=settings.root_path,
    )
