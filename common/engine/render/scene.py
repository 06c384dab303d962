"""A film from a text alone: sky, land and weather, put together."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from common.engine.render.land import strips
from common.engine.render.mood import read
from common.engine.render.planet import planet
from common.engine.render.sky import Sky
from common.engine.render.weather import Weather

#: The sky is painted this much smaller: it is soft, and then 16 times cheaper.
SHRINK = 4


@lru_cache(maxsize=2)
def scene(
    prompt: str, seed: int, flavour: str, size: tuple[int, int], seconds: float
) -> Scene:
    """Return a scene; the last two, of a film and its previews, are kept."""
    return Scene(prompt, seed, flavour, size, seconds)


class Scene:
    """One text, one seed, one composition; painted at any moment in seconds."""

    def __init__(
        self,
        prompt: str,
        seed: int,
        flavour: str,
        size: tuple[int, int],
        seconds: float,
    ) -> None:
        width, height = size
        mood = read(prompt, seed, flavour)
        small = max(width // SHRINK, 16), max(height // SHRINK, 16)
        self._size = size
        self._sky = Sky(mood, *small)
        horizon = self._sky.horizon
        sun = (self._sky.sun_x, self._sky.sun_y)
        self._land = strips(mood, size, horizon, sun[0] * height / width, seconds)
        if mood.place == "space":
            self._land.append(planet(mood, size, seconds))
        self._weather = Weather(mood, size, horizon, sun)
        # Half a step of noise hides the bands of a smooth sky.
        shape = (small[1], small[0], 3)
        self._dither = mood.detail.uniform(0, 1, shape).astype(np.float32)

    def at(self, t: float) -> Image.Image:
        """Paint the moment t."""
        far = np.clip(self._sky.paint(t), 0, 1) * 254 + self._dither
        sky = Image.fromarray(far.astype(np.uint8))
        sky = sky.resize(self._size, Image.Resampling.BICUBIC)
        pixels = np.array(sky)
        self._weather.behind(pixels, t)
        picture = Image.fromarray(pixels)
        for strip in self._land:
            strip.lay(picture, t)
        pixels = np.array(picture)
        self._weather.before(pixels, t)
        picture = Image.fromarray(pixels)
        picture.paste((0, 0, 0), (0, 0), _corners(self._size))
        return picture


@lru_cache(maxsize=4)
def _corners(size: tuple[int, int]) -> Image.Image:
    """Return how much darker the corners of a picture are, as a lens has it."""
    x, y = (np.linspace(-1, 1, min(side, 64)) for side in size)
    away = (x[None, :] ** 2 + y[:, None] ** 2) / 2
    small = Image.fromarray((88 * away**1.6).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)
