"""The first public form of this API, kept for those who built on it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from common.api.download import output_of
from common.api.jobs import AJob
from common.api.schema import PROBLEMS
from common.errors import NotFound
from common.jobs.view import legacy_view
from common.runtime import Runtime


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["first form"], responses=PROBLEMS)

    @router.get("/status/{job_id}")
    async def status(job: AJob) -> Response:
        """Return the job in the first form; `/jobs/{job_id}` says more."""
        return JSONResponse(legacy_view(job, runtime.settings.root_path))

    @router.head("/download/{job_id}", include_in_schema=False)
    @router.get("/download/{job_id}", response_class=FileResponse)
    async def download(job: AJob, request: Request) -> Response:
        """Download the job's first file."""
        if not job.outputs:
            raise NotFound("the job has no video yet")
        return await output_of(runtime, job, job.outputs[0].name, request)

    return router
