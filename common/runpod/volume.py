"""
The network volume: where it is mounted.

The bytes are the same at `/runpod-volume`, where a serverless worker has them, and at
`/workspace`, where the pod had them that filled it. A ComfyUI that we start is told of
every folder on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.container.plan import VOLUMES
from common.settings import Settings


def mounted(settings: Settings, volumes: Sequence[Path] = VOLUMES) -> Settings:
    """Return the settings with the volume as where weights are, if they name none."""
    volume = next((path for path in volumes if path.is_dir()), None)
    if settings.models is not None or volume is None:
        return settings
    return settings.model_copy(update={"models": volume})
