"""Whether the service can run a job now, and what is missing if it cannot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from difflib import get_close_matches

from common.comfy import EngineUnreachable
from common.runtime import Runtime

# Where ComfyUI looks for what a loader loads. Source: ComfyUI's folder_paths.py.
FOLDERS = {
    "UNETLoader": "models/diffusion_models",
    "CLIPLoader": "models/text_encoders",
    "VAELoader": "models/vae",
    "LoraLoaderModelOnly": "models/loras",
    "CLIPVisionLoader": "models/clip_vision",
    "AudioEncoderLoader": "models/audio_encoders",
    "ModelPatchLoader": "models/model_patches",
}


@dataclass(frozen=True)
class Missing:
    """One thing that keeps jobs from running."""

    what: str  #: "engine", "worker", "store", "weights" or "draining"
    message: str
    hint: str | None = None
    file: str | None = None
    looked_in: str | None = None
    near: str | None = None  #: a file that is there and has nearly that name


async def missing(runtime: Runtime) -> list[Missing]:
    """Return what is missing, most basic first; empty = ready."""
    found = []
    if runtime.dispatcher.draining:
        found.append(Missing("draining", "the service is stopping"))
    if not await runtime.store.alive():
        found.append(Missing("store", "the job store does not answer"))
    if not runtime.dispatcher.alive:
        found.append(Missing("worker", "no slot works", "restart the service"))
    troubles = [engine.trouble() for engine in runtime.engines]
    if all(troubles):
        found.append(Missing("engine", "; ".join(filter(None, troubles))))
    else:
        found += await absent_weights(runtime)
    return found


async def absent_weights(runtime: Runtime) -> list[Missing]:
    """Return the weights of the workflow that an engine does not list."""
    found = []
    needed = runtime.service.workflow.weights()
    for engine in runtime.engines:
        if engine.trouble() is not None:
            continue
        for file, (class_type, input_) in needed.items():
            try:
                listed = await engine.comfy.choices(class_type, input_)
            except EngineUnreachable:
                return [Missing("engine", f"no ComfyUI answers at {engine.comfy.url}")]
            if file not in listed:
                found.append(_absent(file, class_type, listed))
    return found


def _absent(file: str, class_type: str, listed: tuple[str, ...]) -> Missing:
    folder = FOLDERS.get(class_type, "models")
    near = get_close_matches(file, listed, n=1, cutoff=0.8)
    return Missing(
        "weights",
        f"ComfyUI does not list {file}",
        f"put it into ComfyUI's {folder}",
        file=file,
        looked_in=folder,
        near=near[0] if near else None,
    )


def as_json(found: list[Missing], runtime: Runtime) -> dict[str, object]:
    """Return the answer of GET /ready."""
    return {
        "ready": not found,
        "missing": [
            {k: v for k, v in asdict(one).items() if v is not None} for one in found
        ],
        "timeline": runtime.timeline,
    }
