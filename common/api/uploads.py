"""Files that callers send ahead of their requests."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from common.api import body
from common.api.jobs import Owner
from common.api.schema import PROBLEMS, UploadView
from common.runtime import Runtime

FILE_PART = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["uploads"], responses=PROBLEMS)
    max_bytes = runtime.settings.max_upload_mb << 20

    @router.post(
        "/uploads", status_code=201, response_model=UploadView, openapi_extra=FILE_PART
    )
    async def upload(request: Request, owner: Owner) -> Response:
        """Store a file ahead; its `id` is taken wherever a file is."""
        data = await body.read_file(request, max_bytes)
        stored = await runtime.intake.upload(data, owner)
        return JSONResponse(asdict(stored), 201)

    return router
