"""POST /estimate: what a request would take, without making anything."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from common.api import body
from common.api.jobs import Owner
from common.api.schema import PROBLEMS, request_body
from common.jobs.intake import Submission
from common.runtime import Runtime


class AdviceView(BaseModel):
    """A smaller request that fits: send yours again with these fields."""

    set: dict[str, float] = Field(description="The fields to change.")
    vram_gb: float = Field(description="What it then takes.")
    text: str


class EstimateView(BaseModel):
    """What a request would take. Sizes are computed, not measured."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "vram_gb": 16.9,
                "card_gb": 12.6,
                "seconds": [31.5, 48.2],
                "fits": False,
                "advice": [
                    {
                        "set": {"width": 832, "height": 448},
                        "vram_gb": 12.3,
                        "text": "832×448 takes 12.3 GB",
                    }
                ],
            }
        }
    )

    vram_gb: float | None = Field(
        description="10^9 bytes on the card, with all weights of a stage there."
    )
    card_gb: float | None = Field(
        description="The card's memory; null for a CPU and the embedded engine."
    )
    seconds: tuple[float, float] | None = Field(
        description="How long runs like it took on this card: nine in ten took at"
        " least, and at most, so long. null while there were too few."
    )
    fits: bool | None = Field(
        description="false: ComfyUI keeps part of the weights in the machine's memory,"
        " which is slower, or runs out. null: the card is not known."
    )
    advice: list[AdviceView] = Field(description="Empty unless `fits` is false.")


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["jobs"], responses=PROBLEMS)
    max_file_bytes = runtime.settings.max_upload_mb << 20

    @router.post(
        "/estimate",
        response_model=EstimateView,
        openapi_extra=request_body(runtime.service),
        summary="What a request would take",
        description="Takes the body of `/generate` and refuses what that refuses. Files"
        " are not looked at and nothing is kept; a file may be left out.",
    )
    async def estimate(request: Request, owner: Owner) -> Response:
        fields, files = await body.read(
            request, runtime.service.request, max_file_bytes
        )
        checked = await runtime.intake.checked(Submission(fields, files, owner))
        found = await runtime.estimator.estimate(checked, fields)
        return JSONResponse(asdict(found))

    return router
