"""
Weights: one manifest, verified files on any volume.

    from common.models import ModelEnsurer

    path = ModelEnsurer.from_config().ensure("t2v-A14B@2.2.0")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.models.ensurer import ModelEnsurer
    from common.models.errors import ModelsError
    from common.models.gc import GarbageCollector

__all__ = ["GarbageCollector", "ModelEnsurer", "ModelsError"]

_HOMES = {
    "GarbageCollector": "common.models.gc",
    "ModelEnsurer": "common.models.ensurer",
    "ModelsError": "common.models.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the manifest needs the errors, the ensurer both."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
