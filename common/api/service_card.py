"""What the service is, whether it can work, and how it fares."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import asdict

import psutil
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

import common
from common.comfy import Comfy
from common.gpu import gpus
from common.readiness import as_json, look
from common.runtime import Runtime


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["service"])
    service, settings = runtime.service, runtime.settings
    root = settings.root_path

    @router.get("/")
    async def card() -> Response:
        """Say what is served here."""
        states = {True: "missing", False: "present", None: "unknown"}
        weights = await runtime.stock.look()
        return JSONResponse(
            {
                "name": service.name,
                "title": service.title,
                "kind": service.kind,
                "engine": settings.engine_kind,
                "version": common.__version__,
                "models": [
                    {"file": one.name, "state": states[one.missing]} for one in weights
                ],
                "limits": {
                    "queue": settings.queue_limit,
                    "job_timeout_s": settings.job_timeout_s,
                    "upload_bytes": settings.max_upload_mb << 20,
                    "retention_hours": settings.retention_hours,
                },
                "urls": {
                    "generate": f"{root}/generate",
                    "jobs": f"{root}/jobs",
                    "docs": f"{root}/docs",
                    "openapi": f"{root}/openapi.json",
                    "ready": f"{root}/ready",
                    "models": f"{root}/models",
                    "loras": f"{root}/loras",
                },
            }
        )

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Response:
        """Answer as long as the process serves."""
        return JSONResponse({"status": "ok"})

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses={503: {"description": "Something is missing."}})
    async def ready() -> Response:
        """Say whether a job could run now, and what is missing if not."""
        found = await look(runtime)
        return JSONResponse(as_json(found, runtime), 503 if found.missing else 200)

    @router.get("/system")
    async def system() -> Response:
        """Say how the machine fares."""
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage(runtime.data)
        cards = await asyncio.to_thread(gpus)
        return JSONResponse(
            {
                "gpus": [asdict(card) for card in cards],
                "ram": {"used_bytes": memory.used, "total_bytes": memory.total},
                "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
                "engines": [engine_view(engine.comfy) for engine in runtime.engines],
                "queue": {
                    "waiting": len(runtime.waiting),
                    "running": runtime.dispatcher.busy,
                },
            }
        )

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Answer Prometheus."""
        return Response(runtime.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def engine_view(engine: Comfy) -> dict[str, object]:
    """Return what an engine said of itself when it last connected."""
    info = engine.info
    return {
        "reachable": engine.socket_alive,
        "version": info.version if info else None,
        "devices": [asdict(device) for device in info.devices] if info else [],
    }
