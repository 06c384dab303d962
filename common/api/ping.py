"""
The probe of a load balancer that tells a start from an illness.

It is RunPod's, where the time between the first 204 and the first 200 is the cold start
and any other answer takes a worker out of the pool.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from common.readiness import look
from common.runtime import Runtime


def routes(runtime: Runtime) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["service"])
    was_ready = False

    @router.head("/ping", include_in_schema=False)
    @router.get(
        "/ping",
        response_class=Response,
        responses={
            204: {"description": "It starts."},
            503: {"description": "It was ready, and is not any more."},
        },
    )
    async def ping() -> Response:
        """Answer 200 when a job could run now, and 204 before that."""
        nonlocal was_ready
        ready = not (await look(runtime)).missing
        was_ready = was_ready or ready
        ill = was_ready or runtime.dispatcher.draining
        return Response(status_code=200 if ready else 503 if ill else 204)

    return router
