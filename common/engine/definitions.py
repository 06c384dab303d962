"""
Node definitions as /object_info gives them, with the choices of this machine.

`object_info.json` is ComfyUI 0.12.1's own answer for the classes that run here, without
its texts; `own_nodes.json` holds those that are ours. Lists of files are empty there
and filled in at run time.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from common.engine.settings import EngineSettings

#: One class, as in /object_info: input, output, output_node, …
Definition = dict[str, Any]

#: Files that the services use: they count as present, because nothing reads them here.
WEIGHTS: dict[str, tuple[str, ...]] = {
    "audio_encoders": ("wav2vec2-chinese-base_fp16.safetensors",),
    "diffusion_models": (
        "wan2.1_i2v_480p_14B_fp8_scaled.safetensors",
        "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
        "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
        "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
        "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
        "wan2.2_ti2v_5B_fp16.safetensors",
    ),
    "loras": (
        "Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16.safetensors",
        "high_noise_model.safetensors",
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors",
        "lightx2v-i2v-a14b-seko-v1-high_noise_model.safetensors",
        "lightx2v-i2v-a14b-seko-v1-low_noise_model.safetensors",
        "lightx2v-t2v-a14b-seko-v1.1-high_noise_model.safetensors",
        "lightx2v-t2v-a14b-seko-v1.1-low_noise_model.safetensors",
        "low_noise_model.safetensors",
        "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors",
        "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors",
        "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
        "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
    ),
    "model_patches": (
        "wan2.1_infiniteTalk_multi_fp16.safetensors",
        "wan2.1_infiniteTalk_single_fp16.safetensors",
    ),
    "text_encoders": (
        "umt5_xxl_fp16.safetensors",
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    ),
    "vae": ("wan2.2_vae.safetensors", "wan_2.1_vae.safetensors"),
}

#: Older names of two folders, which ComfyUI still looks into.
ALIASES = {"diffusion_models": ("unet",), "text_encoders": ("clip",)}

#: Which input of which class chooses a file, and from where.
FILE_INPUTS = {
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("VAELoader", "vae_name"): "vae",
    ("AudioEncoderLoader", "audio_encoder_name"): "audio_encoders",
    ("ModelPatchLoader", "name"): "model_patches",
    ("LoadImage", "image"): "input",
    ("LoadAudio", "audio"): "input",
}


class Library:
    """The files that loaders may choose from."""

    def __init__(self, settings: EngineSettings) -> None:
        self._input = settings.folder("input")
        self._roots = [*settings.models, settings.data / "models"]
        self.strict = settings.strict

    def find(self, folder: str, name: str) -> Path | None:
        """Return the real file of this name, or None for one that we only list."""
        for root in self._roots:
            for alias in (folder, *ALIASES.get(folder, ())):
                path: Path = root / alias / name
                if path.is_file():
                    return path
        return None

    def names(self, folder: str) -> list[str]:
        """Return the names to choose from, sorted."""
        if folder == "input":
            return sorted(p.name for p in self._input.iterdir() if p.is_file())
        found = set() if self.strict else set(WEIGHTS[folder])
        for root in self._roots:
            for alias in (folder, *ALIASES.get(folder, ())):
                base = root / alias
                paths = base.rglob("*.safetensors") if base.is_dir() else ()
                found.update(str(path.relative_to(base)) for path in paths)
        return sorted(found) + (["pixel_space"] if folder == "vae" else [])

    def definitions(self) -> dict[str, Definition]:
        """Return every definition, with the files that are there now."""
        filled = dict(_recorded())
        for (class_type, name), folder in FILE_INPUTS.items():
            definition = filled[class_type]
            required = definition["input"]["required"]
            spec = [self.names(folder), *required[name][1:]]
            if required[name][0] == "COMBO":  # the newer form of a list
                options = required[name][1] | {"options": self.names(folder)}
                spec = ["COMBO", options]
            inputs = definition["input"] | {"required": required | {name: spec}}
            filled[class_type] = definition | {"input": inputs}
        return filled


@cache
def _recorded() -> dict[str, Definition]:
    return _read("object_info.json") | _read("own_nodes.json")


def _read(file: str) -> dict[str, Definition]:
    text = Path(__file__).with_name(file).read_text("utf-8")
    loaded: dict[str, Definition] = json.loads(text)
    return loaded
