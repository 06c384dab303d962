"""
Editors: what makes pictures of pictures and a text, behind one method.

The embedded one works on the caller's picture with Pillow and never pretends to be the
model; the other one is the model. Nothing heavy is imported before its first edit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from PIL.Image import Image

Kind = Literal["embedded", "qwen"]

#: Called after each step with how many are done and of how many, and perhaps a JPEG of
#: the picture so far. It raises to stop the edit.
OnStep = Callable[[int, int, bytes | None], None]


@dataclass(frozen=True)
class Edit:
    """What is to be made."""

    images: tuple[Image, ...]  #: one to three, RGB
    prompt: str
    negative_prompt: str
    steps: int
    cfg: float
    seed: int  #: of the first picture; each further one has the next seed
    width: int  #: pixels of what comes out
    height: int
    count: int = 1

    @property
    def seeds(self) -> range:
        """Return the seed of each picture, so that any can be made again by itself."""
        return range(self.seed, self.seed + self.count)


class Editor(Protocol):
    """Makes the pictures of an edit."""

    def edit(self, task: Edit, on_step: OnStep) -> list[Image]:
        """Return `count` pictures of the size that was asked for, RGB."""


class EditorMissing(Exception):
    """The model cannot be used here; the message says what to install or fetch."""


class WeightsMissing(EditorMissing):
    """It could be used, if files were there that the message names."""


@cache
def editor(kind: Kind, models: tuple[Path, ...]) -> Editor:
    """
    Return the engine's editor; the same one each time, because it keeps its weights.

    Args:
        models: folders with the weights, which the embedded one does not need.
    """
    if kind == "embedded":
        from common.engine.editors.embedded import EmbeddedEditor

        return EmbeddedEditor()
    from common.engine.editors.qwen import QwenEditor

    if not models:
        raise EditorMissing("say where the weights are: --models DIR")
    return QwenEditor(models)
