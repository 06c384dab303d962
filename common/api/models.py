"""The weights that this service loads: what is there, how far the rest is, LoRAs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from common.api.schema import PROBLEMS
from common.comfy.scrub import scrub
from common.errors import NotFound
from common.loras import SUFFIX, pair_of
from common.manifest import Manifest
from common.models.errors import Missing
from common.runtime import Runtime
from common.weights import Variant, Weight

FOLDER = "loras"


class TroubleView(BaseModel):
    """Why a file could not be fetched; it is tried again by itself."""

    code: str
    message: str
    hint: str | None


class WeightView(BaseModel):
    """One file. Paths are relative: where `models` is, is the operator's matter."""

    file: str
    folder: str = Field(description="Below ComfyUI's `models`.")
    state: str = Field(
        description="verified, unverified (usable, and nobody hashed it here), stale,"
        " corrupt, unlinked, partial or absent; present, missing or unknown where the"
        " service does not look at the volume and the engine's list is all it has."
    )
    usable: bool | None = Field(description="null: no engine says.")
    listed: bool | None = Field(description="By the engine; null: it does not answer.")
    done_bytes: int
    size_bytes: int | None
    sha256: str | None
    licence: str | None
    needed_for: str = Field(description="Which requests load it.")
    layer: int | None = Field(description="Which root has it, from 0, the lowest.")
    where: str | None = Field(description="Its path in that root.")
    near: str | None = Field(description="A file that is there and may be meant.")
    reason: str | None = Field(description="Why it is not verified.")
    error: TroubleView | None


class ModelsView(BaseModel):
    """All files that some request loads."""

    state: str = Field(
        description="ready: what plain requests need is there. downloading, verifying:"
        " it is on its way. missing: it is not. unknown: no engine answers."
    )
    done_bytes: int = Field(description="Of what is being fetched; 0 when nothing is.")
    total_bytes: int
    eta_s: float | None
    files: list[WeightView]


class PairView(BaseModel):
    """The two halves of a LoRA for a model that is two."""

    high: str
    low: str


class LoraView(BaseModel):
    """One LoRA."""

    name: str = Field(description="What a request calls it.")
    file: str
    size_bytes: int | None
    state: str = Field(description="present, or a state of /models where that is known")
    licence: str | None
    pair: PairView | None = Field(description="null: one file for all models.")


class LorasView(BaseModel):
    """The LoRAs on the volume, as the engine lists them."""

    state: str = Field(description="ready, or unknown while no engine answers.")
    loras: list[LoraView]


class ModelHealth(BaseModel):
    """One model of the manifest that this service loads."""

    model: str
    variant: str
    state: str = Field(description="ready, missing or unknown")
    missing: list[str] = Field(description="Files.")


class HealthView(BaseModel):
    """Whether weights are there."""

    state: str
    missing: list[str]
    models: list[ModelHealth]


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["service"])
    stock = runtime.stock
    unready: dict[int | str, dict[str, object]] = {
        503: {"description": "Something is missing.", "model": HealthView}
    }

    @router.get("/models", response_model=ModelsView)
    async def models() -> Response:
        """Say of each file that this service loads whether it is there."""
        overall = await stock.overall()
        return JSONResponse(
            {
                "state": overall.state,
                "done_bytes": overall.done_bytes,
                "total_bytes": overall.total_bytes,
                "eta_s": overall.eta_s,
                "files": [view(one, stock.layers) for one in overall.weights],
            }
        )

    @router.get("/loras", response_model=LorasView)
    async def loras() -> Response:
        """List the LoRAs that a request may name."""
        listed = await runtime.choices("LoraLoaderModelOnly", "lora_name")
        if listed is None:
            return JSONResponse({"state": "unknown", "loras": []})
        names = [name.replace("\\", "/") for name in listed if name.endswith(SUFFIX)]
        sizes = await asyncio.to_thread(_sizes, names, stock.layers)
        states = {f"{one.folder}/{one.name}": one.state for one in await stock.look()}
        found = [_lora(name, names, stock.manifest, sizes, states) for name in names]
        return JSONResponse({"state": "ready", "loras": found})

    @router.head("/health/models", include_in_schema=False)
    @router.get("/health/models", response_model=HealthView, responses=unready)
    async def health() -> Response:
        """Answer 200 when the weights that plain requests need are there."""
        overall = await stock.overall()
        body = {
            "state": overall.state,
            "missing": sorted(overall.needed),
            "models": [_health(one) for one in stock.variants(overall.weights)],
        }
        return JSONResponse(body, 200 if overall.state == "ready" else 503)

    @router.head("/health/models/{model}", include_in_schema=False)
    @router.get(
        "/health/models/{model}",
        response_model=HealthView,
        responses={**unready, **PROBLEMS},
    )
    async def health_of(model: str) -> Response:
        """Answer 200 when a variant of one model is there."""
        found = stock.variants(await stock.look())
        mine = [one for one in found if one.model == model]
        if not mine:
            known = ", ".join(dict.fromkeys(one.model for one in found)) or "none"
            raise NotFound(f"this service loads no such model; it loads: {known}")
        best = next((one for one in mine if one.state == "ready"), mine[0])
        body = {
            "state": best.state,
            "missing": _absent(best),
            "models": [_health(one) for one in mine],
        }
        return JSONResponse(body, 200 if best.state == "ready" else 503)

    return router


def view(weight: Weight, layers: tuple[Path, ...]) -> dict[str, object]:
    """Return one file as callers see it."""
    known, found, trouble = weight.known, weight.found, weight.trouble
    layer = None
    where = None
    if found is not None and found.path is not None and found.layer is not None:
        layer = layers.index(found.layer)
        where = found.path.relative_to(found.layer).as_posix()
    return {
        "file": weight.name,
        "folder": weight.folder,
        "state": weight.state,
        "usable": None if weight.missing is None else not weight.missing,
        "listed": weight.listed,
        "done_bytes": weight.done_bytes,
        "size_bytes": weight.size,
        "sha256": found.sha256 if found else known and known.sha256,
        "licence": known and known.licence,
        "needed_for": weight.needed_for,
        "layer": layer,
        "where": where,
        "near": weight.near and f"models/{weight.near}",
        "reason": found.reason and scrub(found.reason) if found else None,
        "error": trouble
        and {"code": trouble.code, "message": weight.why, "hint": trouble.hint},
    }


def _lora(
    name: str,
    names: list[str],
    manifest: Manifest | None,
    sizes: dict[str, int],
    states: dict[str, str],
) -> dict[str, object]:
    pair = pair_of(name, names)
    known = None
    if manifest is not None:
        try:
            known = manifest.file(name, FOLDER)
        except Missing:
            known = None
    return {
        "name": name.removesuffix(SUFFIX),
        "file": name,
        "size_bytes": sizes.get(name, known.size if known else None),
        "state": states.get(f"{FOLDER}/{name}", "present"),
        "licence": known and known.licence,
        "pair": None if pair.high == pair.low else pair._asdict(),
    }


def _sizes(names: list[str], layers: tuple[Path, ...]) -> dict[str, int]:
    """Return the bytes of each LoRA on the volume; the highest layer's file counts."""
    found = {}
    for root in layers:
        for name in names:
            try:
                found[name] = (root / "models" / FOLDER / name).stat().st_size
            except OSError:
                continue
    return found


def _health(variant: Variant) -> dict[str, object]:
    return {
        "model": variant.model,
        "variant": variant.name,
        "state": variant.state,
        "missing": _absent(variant),
    }


def _absent(variant: Variant) -> list[str]:
    return [one.name for one in variant.weights if one.missing]
