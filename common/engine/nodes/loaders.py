"""Loaders and what is put on a model: they read nothing, and take a moment for it."""

from __future__ import annotations

import struct
from typing import Any

from common.engine.run import Node, NodeFailed, Run
from common.engine.values import Conditioning, Model, TextEncoder, Vae

#: How long loading a file takes at speed 1.
LOAD_S = 0.3

#: Largest header that safetensors accepts. Source: safetensors.
HEADER_LIMIT = 100_000_000


def load_file(run: Run, folder: str, name: str) -> None:
    """
    Take the time of loading a file, and look at its header if it is really there.

    Raises:
        NodeFailed: a cut, empty or foreign file, as safetensors says it; or none, where
            files must be there.
    """
    path = run.library.find(folder, name)
    if path is None and run.library.strict:
        raise NodeFailed("FileNotFoundError", f"No such file or directory: {name!r}")
    if path is not None:
        with path.open("rb") as file:
            start = file.read(8)
            size = path.stat().st_size
        wrong = None
        if len(start) < 8:
            wrong = "header too small"
        elif (length := struct.unpack("<Q", start)[0]) > HEADER_LIMIT:
            wrong = "header too large"
        elif 8 + length > size:
            wrong = "invalid header length"
        if wrong is not None:
            raise NodeFailed(
                "safetensors._safetensors_rust.SafetensorError",
                f"Error while deserializing header: {wrong}",
            )
    run.pretend(LOAD_S)


def load_unet(run: Run, unet_name: str, weight_dtype: str) -> tuple[Any, ...]:
    """Load a diffusion model."""
    load_file(run, "diffusion_models", unet_name)
    return (Model(unet_name, (weight_dtype,)),)


def load_clip(
    run: Run,
    clip_name: str,
    type: str,
    device: str = "default",
) -> tuple[Any, ...]:
    """Load a text encoder."""
    load_file(run, "text_encoders", clip_name)
    return (TextEncoder(clip_name),)


def load_vae(run: Run, vae_name: str) -> tuple[Any, ...]:
    """Load a VAE."""
    if vae_name != "pixel_space":
        load_file(run, "vae", vae_name)
    return (Vae(vae_name),)


def load_lora(
    run: Run, model: Model, lora_name: str, strength_model: float
) -> tuple[Any, ...]:
    """Put a LoRA on a model; strength 0 is none at all, as in ComfyUI."""
    if strength_model == 0:
        return (model,)
    load_file(run, "loras", lora_name)
    return (model.changed(f"{lora_name}:{strength_model}"),)


def shift(run: Run, model: Model, shift: float) -> tuple[Any, ...]:
    """Set a model's sampling shift."""
    return (model.changed(f"shift:{shift}"),)


def encode_text(run: Run, text: str, clip: TextEncoder) -> tuple[Any, ...]:
    """Turn a text into conditioning."""
    return (Conditioning(text),)


NODES: dict[str, Node] = {
    "UNETLoader": load_unet,
    "CLIPLoader": load_clip,
    "VAELoader": load_vae,
    "LoraLoaderModelOnly": load_lora,
    "ModelSamplingSD3": shift,
    "CLIPTextEncode": encode_text,
}
