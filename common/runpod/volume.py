"""
The network volume: where it is mounted, and ComfyUI told of every folder on it.

The bytes are the same at `/runpod-volume`, where a serverless worker has them, and at
`/workspace`, where the pod had them that filled it. A map with a folder missing is why
models that are there are not found.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.disk import atomic_write
from common.models.config import Config
from common.models.layers import Layers
from common.models.path_map import path_map
from common.settings import Settings

VOLUMES = (Path("/runpod-volume"), Path("/workspace"))
MAP = "extra_model_paths.yaml"


def mounted(
    settings: Settings, data: Path, volumes: Sequence[Path] = VOLUMES
) -> Settings:
    """
    Return the settings with the volume as the place of weights, if they name none.

    A ComfyUI that we start is given the map of all folders; another has its own.

    Args:
        data: the service's folder, on the worker's own disk: the map is put there.
    """
    if settings.models is None:
        volume = next((path for path in volumes if path.is_dir()), None)
        if volume is None:
            return settings
        settings = settings.model_copy(update={"models": volume})
    if settings.comfyui_dir is None and settings.comfyui_cmd is None:
        return settings
    layers = Layers.open(Config.of(settings).roots)
    data.mkdir(parents=True, exist_ok=True)
    atomic_write(data / MAP, path_map(layers.layers).encode())
    flag = f"--extra-model-paths-config {shlex.quote(str((data / MAP).resolve()))}"
    arguments = f"{settings.comfy_launch_args} {flag}".strip()
    return settings.model_copy(update={"comfy_launch_args": arguments})
