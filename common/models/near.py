"""A file that may be the one that is missing: misspelt, or in another folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from common.models.layers import Layers
from common.models.safetensors import SUFFIX


@dataclass(frozen=True)
class Near:
    """
    What lies in the layers and is nobody's; listed once, when it is first asked for.

    Args:
        layers: where to look.
        known: places below `models` that the manifest names: what is there is itself.
    """

    layers: Layers
    known: Collection[str]

    def to(self, name: str) -> Path | None:
        """Return a file that has nearly that name, or the very name elsewhere."""
        stem = name.rpartition("/")[2].removesuffix(SUFFIX)
        close = get_close_matches(stem, self._there, n=1, cutoff=0.8)
        return self._there[close[0]] if close else None

    @cached_property
    def _there(self) -> dict[str, Path]:
        return {
            path.stem: path  # what all names end with makes no two of them alike
            for layer in self.layers
            for path in (layer.root / "models").rglob(f"*{SUFFIX}")
            if path.relative_to(layer.root / "models").as_posix() not in self.known
        }
