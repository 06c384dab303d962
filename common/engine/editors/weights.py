"""Which weights of Qwen image edit suit a card, where they lie, and what they leave."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from common.engine.editors import EditorMissing

Precision = Literal["int4", "fp4"]
Offload = Literal["none", "model", "layers"]

#: In the manifest; a variant for each precision.
MODEL = "qwen-image-edit@2509"

#: The pipeline without its transformer: text encoder, VAE, tokenizer, processor.
PIPELINE = "Qwen-Image-Edit-2509"

# Below the models folder: where `wan models ensure` puts them, then where people put
# them before there was a place for each kind.
_PIPELINES = (f"diffusers/{PIPELINE}", PIPELINE, f"../{PIPELINE}")
_TRANSFORMERS = ("diffusion_models/", "", "../")

# Compute capabilities. Source: `get_precision` and `check_hardware_compatibility` in
# nunchaku 1.2's utils.py, which takes no others: data-centre Hopper (9.0) and Blackwell
# (10.0) are not among them.
_INT4 = {(7, 5), (8, 0), (8, 6), (8, 9)}
_FP4 = {(12, 0), (12, 1)}

# The transformer has 12.7 (int4) or 13.1 GB (fp4), the text encoder some 16.6 in bf16,
# the VAE 0.25; a picture of a megapixel takes a few more.
_ALL_GB = 40.0
# Below, nunchaku's own example moves the transformer layer by layer. Source:
# examples/v1/qwen-image-edit-2509-lightning.py.
_MODEL_GB = 18.0


def precision(capability: tuple[int, int]) -> Precision:
    """
    Return the 4-bit format of a card, by its CUDA compute capability.

    Raises:
        EditorMissing: nunchaku has no kernels for it.
    """
    if capability in _FP4:
        return "fp4"
    if capability in _INT4:
        return "int4"
    major, minor = capability
    raise EditorMissing(
        f"nunchaku has no 4-bit kernels for a card of compute capability"
        f" {major}.{minor}; use an RTX 20, 30, 40 or 50, an A100 or an L4, L40 or A10"
    )


def offload(free_gb: float) -> Offload:
    """
    Return what leaves the card while it is not in use, by the free memory in GB.

    "model": the text encoder, the transformer and the VAE take turns. "layers": the
    transformer's blocks do, too, which fits 4 GB and is slower.
    """
    if free_gb >= _ALL_GB:
        return "none"
    return "model" if free_gb > _MODEL_GB else "layers"


def transformer_file(kind: Precision) -> str:
    """Return the transformer's file: rank 128, distilled to 8 steps."""
    return f"svdq-{kind}_r128-qwen-image-edit-2509-lightningv2.0-8steps.safetensors"


def pipeline_folder(models: Sequence[Path]) -> Path:
    """Return where the pipeline is; where it belongs, when it is nowhere."""
    places = [folder / place for folder in models for place in _PIPELINES]
    there = (one for one in places if (one / "model_index.json").is_file())
    return next(there, places[0])


@contextmanager
def pipeline(models: Sequence[Path]) -> Iterator[Path]:
    """
    Lend a folder with the pipeline's files, as long as it takes to load them.

    A file that is broken in one models folder is repaired in another, by itself: where
    several have the pipeline it is a folder of links, to the first of each file.
    """
    first = pipeline_folder(models)
    place = next(p for m in models for p in _PIPELINES if m / p == first)
    layers = [folder / place for folder in models if (folder / place).is_dir()]
    if len(layers) < 2:
        yield first
        return
    with TemporaryDirectory(prefix="wan-pipeline-") as made:
        for layer in layers:
            for file in layer.rglob("*"):
                link = Path(made) / file.relative_to(layer)
                if file.is_file() and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file.resolve())
        yield Path(made)


def transformer_path(models: Sequence[Path], kind: Precision) -> Path:
    """Return where the transformer is; where it belongs, when it is nowhere."""
    name = transformer_file(kind)
    places = [f / f"{place}{name}" for f in models for place in _TRANSFORMERS]
    return next((one for one in places if one.is_file()), places[0])


def variant_of_card() -> dict[str, str]:
    """Return which variant of the model suits this machine's card, by the model."""
    try:
        return {MODEL: precision(_capability())}
    except EditorMissing:
        return {}


def obstacle(models: Sequence[Path], *, fetched: bool = False) -> str | None:
    """
    Return what keeps the model from running on this machine, if anything does.

    Cheap: torch is looked for and not imported, so that no memory of the card is taken.

    Args:
        models: the folders that hold the weights, as `EngineSettings.models`.
        fetched: weights that are absent are no obstacle, they will come.
    """
    try:
        kind = precision(_capability())
    except EditorMissing as error:
        return str(error)
    if not fetched and (missing := absent(models, kind)):
        return f"{models[0]} has no {' and no '.join(missing)}"
    for name in ("torch", "diffusers", "nunchaku"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; README.md says how"
    return None


def _capability() -> tuple[int, int]:
    """Return the compute capability of the first card."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            card = pynvml.nvmlDeviceGetHandleByIndex(0)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(card)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise EditorMissing("this machine has no NVIDIA card with a driver") from error
    return int(major), int(minor)


def absent(models: Sequence[Path], kind: Precision) -> list[str]:
    """Return what of the weights is in none of the folders, as paths below one."""
    needed = (
        pipeline_folder(models) / "model_index.json",
        transformer_path(models, kind),
    )
    gone = (one for one in needed if not one.is_file())
    return [one.relative_to(models[0]).as_posix() for one in gone]
