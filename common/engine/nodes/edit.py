"""Qwen image edit: the one node that is ours and not ComfyUI's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from common.engine.editors import Edit, EditorMissing, editor
from common.engine.run import Node, NodeFailed, Run
from common.engine.values import Frames, Pixels

#: How long one step of the embedded editor takes at speed 1.
STEP_S = 0.25


@dataclass(frozen=True, eq=False)
class Pictures:
    """Several pictures of one size as IMAGE."""

    all: tuple[Pixels, ...]

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return int(self.all[0].shape[1])

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return int(self.all[0].shape[0])

    @property
    def count(self) -> int:
        """Return how many there are."""
        return len(self.all)

    def __iter__(self) -> Iterator[Pixels]:
        """Yield one after the other."""
        return iter(self.all)


def edit(
    run: Run,
    image: Frames,
    prompt: str,
    negative_prompt: str,
    width: int,
    height: int,
    steps: int,
    cfg: float,
    seed: int,
    count: int,
    image_2: Frames | None = None,
    image_3: Frames | None = None,
) -> tuple[Any, ...]:
    """Make `count` pictures of one to three pictures and a text."""
    kind = run.settings.editor
    given = [one for one in (image, image_2, image_3) if one is not None]
    task = Edit(
        images=tuple(Image.fromarray(next(iter(frames))) for frames in given),
        prompt=prompt,
        negative_prompt=negative_prompt,
        steps=steps,
        cfg=cfg,
        seed=seed,
        width=width,
        height=height,
        count=count,
    )

    def on_step(done: int, of: int, jpeg: bytes | None) -> None:
        if kind == "embedded":
            run.pretend(STEP_S)
        run.check()
        run.report(done, of, jpeg)

    try:
        pictures = editor(kind, run.settings.models).edit(task, on_step)
    except EditorMissing as error:
        raise NodeFailed(type(error).__name__, str(error)) from error
    return (Pictures(tuple(np.asarray(picture) for picture in pictures)),)


NODES: dict[str, Node] = {"QwenImageEdit": edit}
