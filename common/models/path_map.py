"""
`extra_model_paths.yaml`: where ComfyUI finds the weights of all layers.

The writable layer is ComfyUI's default: searched first. The others follow ComfyUI's own
folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from common.models.layer import Layer

# ComfyUI's key: folders below `models/`. We put files into the first; the second has
# its old name, for volumes that were filled by older tools. Source: folder_paths.py of
# ComfyUI 0.33.0, without `custom_nodes` and `datasets`, which hold no weights.
FOLDERS: dict[str, tuple[str, ...]] = {
    "audio_encoders": ("audio_encoders",),
    "background_removal": ("background_removal",),
    "checkpoints": ("checkpoints",),
    "classifiers": ("classifiers",),
    "clip_vision": ("clip_vision",),
    "configs": ("configs",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "detection": ("detection",),
    "diffusers": ("diffusers",),
    "diffusion_models": ("diffusion_models", "unet"),
    "embeddings": ("embeddings",),
    "frame_interpolation": ("frame_interpolation",),
    "geometry_estimation": ("geometry_estimation",),
    "gligen": ("gligen",),
    "hypernetworks": ("hypernetworks",),
    "latent_upscale_models": ("latent_upscale_models",),
    "loras": ("loras",),
    "model_patches": ("model_patches",),
    "optical_flow": ("optical_flow",),
    "photomaker": ("photomaker",),
    "style_models": ("style_models",),
    "text_encoders": ("text_encoders", "clip"),
    "upscale_models": ("upscale_models",),
    "vae": ("vae",),
    "vae_approx": ("vae_approx",),
}


def path_map(layers: Iterable[Layer]) -> str:
    """
    Return the text of extra_model_paths.yaml for layers, lowest first.

    ComfyUI expands `~` and `$NAME` in a root, so a root must hold neither.
    """
    parts = ["# Written by `wan models path-map`; changes are lost.\n"]
    ordered = list(layers)
    for number, layer in enumerate(ordered):
        default = number == len(ordered) - 1
        # What is JSON is YAML: quotes, backslashes and colons in a path do no harm.
        base = json.dumps(str(layer.root), ensure_ascii=False)
        parts.append(f"wan_{number}:\n    base_path: {base}\n")
        if default:
            parts.append("    is_default: true\n")
        for key, folders in FOLDERS.items():
            # Each default is put in front of the one before: the first must come last.
            lines = reversed(folders) if default else folders
            parts.append(f"    {key}: |\n")
            parts += [f"        models/{folder}\n" for folder in lines]
    return "".join(parts)
