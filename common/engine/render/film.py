"""A film: the frames of a recipe, each painted when it is asked for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from PIL import Image

from common.engine.render.mark import mark
from common.engine.render.motion import Motion
from common.engine.render.noise import smooth
from common.engine.render.scene import Scene, scene
from common.engine.render.talk import Talk
from common.engine.values import Pixels, Recipe

#: Frames per second that motion is timed for; the real rate is chosen after painting.
PACE = 24.0

#: Longest side of a preview, in pixels. Source: ComfyUI's previews.
PREVIEW = 512

#: Side of the blocks that noise is made of: one latent cell.
CELL = 8


class Film:
    """The frames of a recipe. `noise` is how much of it is left: 0 none, 1 all."""

    def __init__(
        self, recipe: Recipe, noise: float = 0.0, size: tuple[int, int] | None = None
    ) -> None:
        self._recipe = recipe
        self._noise = noise
        self.width, self.height = size or (recipe.width, recipe.height)
        self.count = recipe.frames

    def __iter__(self) -> Iterator[Pixels]:
        """Paint frame after frame."""
        for index in range(self.count):
            picture = self._frame(index)
            if self._noise > 0:
                picture = self._noisy(picture, self._noise, index)
            mark(picture)
            yield np.asarray(picture)

    def preview(self, noise: float) -> bytes:
        """Return a JPEG of the film on its way out of the noise."""
        picture = self._small._noisy(self._small._still, noise, 0)
        mark(picture)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        return file.getvalue()

    @cached_property
    def _small(self) -> Film:
        scale = min(1.0, PREVIEW / max(self.width, self.height))
        size = max(2, round(self.width * scale)), max(2, round(self.height * scale))
        return Film(self._recipe, size=size)

    @cached_property
    def _still(self) -> Image.Image:
        return self._frame(0)

    @cached_property
    def _scene(self) -> Scene:
        recipe = self._recipe
        size = (self.width, self.height)
        seconds = recipe.frames / PACE
        return scene(recipe.prompt, recipe.seed, recipe.flavour, size, seconds)

    @cached_property
    def _start(self) -> Motion | None:
        return self._motion(self._recipe.guides.start)

    @cached_property
    def _end(self) -> Motion | None:
        return self._motion(self._recipe.guides.end)

    def _motion(self, pixels: Pixels | None) -> Motion | None:
        if pixels is None:
            return None
        recipe = self._recipe
        size = (self.width, self.height)
        return Motion(pixels, recipe.prompt, recipe.seed, recipe.flavour, size)

    @cached_property
    def _talk(self) -> Talk | None:
        guides = self._recipe.guides
        if guides.start is None or guides.speaking is None:
            return None
        return Talk(guides.start, guides.speaking, (self.width, self.height))

    @property
    def began(self) -> int:
        """Frames of the film before this window of it."""
        speaking = self._recipe.guides.speaking
        return speaking.began if speaking else 0

    def _frame(self, index: int) -> Image.Image:
        """Paint one frame: from the start to the end picture, where there are any."""
        if self._talk is not None:
            return self._talk.at(index)
        t, last = index / PACE, (self.count - 1) / PACE
        begin = self._start.at(t) if self._start else None
        if self._end is None:
            return begin or self._scene.at(t)
        there = np.float32(t / last if last else 1.0)
        share = float(smooth(0.15, 0.95, np.asarray(there)))
        if share <= 0:
            return begin or self._scene.at(t)
        finish = self._end.at(last - t)
        if share >= 1:
            return finish
        return Image.blend(begin or self._scene.at(t), finish, share)

    def _noisy(self, picture: Image.Image, noise: float, index: int) -> Image.Image:
        """Return a picture under noise: details go first, then everything."""
        if noise <= 0:
            return picture.copy()
        cells = (-(-self.width // CELL), -(-self.height // CELL))
        facts = f"{self._recipe.flavour} {self._recipe.seed} {index}"
        seed = list(hashlib.sha256(facts.encode()).digest()[:8])
        grains = np.random.default_rng(seed).normal(0.45, 0.24, (cells[1], cells[0], 3))
        blocks = Image.fromarray((np.clip(grains, 0, 1) * 255).astype(np.uint8))
        veil = blocks.resize(picture.size, Image.Resampling.BICUBIC)
        blur = 1 + round(7 * noise)
        coarse = (max(1, picture.width // blur), max(1, picture.height // blur))
        soft = picture.resize(coarse, Image.Resampling.BOX)
        soft = soft.resize(picture.size, Image.Resampling.BICUBIC)
        return Image.blend(soft, veil, min(noise, 1.0) ** 0.8)
