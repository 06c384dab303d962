"""Small bright things over a picture: stars, the sun's disc, snow, rain, motes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.engine.render.mood import Mood
from common.engine.values import Pixels


class Weather:
    """What twinkles, falls or floats in one film."""

    def __init__(
        self,
        mood: Mood,
        size: tuple[int, int],
        horizon: float,
        sun: tuple[float, float],
    ) -> None:
        self._mood = mood
        self._width, self._height = size
        self._horizon = horizon
        self._sun = sun
        rng = mood.layout
        self._stars = rng.uniform(0, 1, (420, 4)).astype(np.float32)
        self._flakes = rng.uniform(0, 1, (260, 5)).astype(np.float32)
        self._motes = rng.uniform(0, 1, (38, 5)).astype(np.float32)

    def behind(self, pixels: Pixels, t: float) -> None:
        """Put stars and the sun or moon into the sky."""
        mood = self._mood
        if mood.time == "night" and mood.place != "silk":
            self._add_stars(pixels, t)
        if mood.place not in ("silk", "space") and mood.time != "storm":
            self._add_disc(pixels)

    def before(self, pixels: Pixels, t: float) -> None:
        """Let it snow or rain, or motes float in the light."""
        if self._mood.snow:
            self._add_snow(pixels, t)
        elif self._mood.rain:
            self._add_rain(pixels, t)
        elif self._mood.place != "space":
            self._add_motes(pixels, t)

    def _add_stars(self, pixels: Pixels, t: float) -> None:
        x, y, size, phase = self._stars.T
        twinkle = 0.72 + 0.28 * np.sin(t * (1.2 + 3 * phase) + 40 * phase)
        fade = 1.0 if self._mood.place == "space" else 1 - y**2
        light = size**3 * twinkle * fade * 230
        columns = x * (self._width - 1)
        lines = y * (self._horizon * self._height - 2)
        big = max(self._height / 700, 0.35)
        _splat(pixels, columns, lines, light, 0.55 * big + 0.5 * big * size**6)

    def _add_disc(self, pixels: Pixels) -> None:
        night = self._mood.time == "night"
        radius = self._height * (0.030 if night else 0.038)
        x, y = self._sun[0] * self._height, self._sun[1] * self._height
        reach = int(radius) + 2
        left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
        window = pixels[top : int(y) + reach, left : int(x) + reach]
        if window.size == 0:
            return
        lines, columns = np.mgrid[: window.shape[0], : window.shape[1]]
        distance = np.hypot(columns + left - x, lines + top - y)
        cover = np.clip(radius - distance + 0.5, 0, 1)[..., None] * 0.94
        light = (0.35 * self._mood.palette.glow + 0.65) * 255
        if night:
            u, v = (columns + left - x) / radius, (lines + top - y) / radius
            seas = np.sin(2.3 * u + 1.0) * np.sin(2.9 * v - 0.6) + 0.5 * np.sin(
                5 * u * v
            )
            light = light * (0.93 + 0.06 * seas[..., None])
        lit = window + (light - window) * cover
        window[...] = np.maximum(window, lit).astype(np.uint8)

    def _add_snow(self, pixels: Pixels, t: float) -> None:
        x, y, near, phase, sway = self._flakes.T
        tempo = self._mood.tempo
        fall = np.mod(y + t * tempo * (0.05 + 0.16 * near), 1.06) - 0.03
        drift = x + 0.02 * np.sin(t * (0.6 + sway) + 9 * phase)
        drift = np.mod(drift + self._mood.direction * t * 0.02 * (0.3 + near), 1)
        radius = self._height * (0.0011 + 0.0042 * near**3)
        light = 95 + 120 * near
        _splat(pixels, drift * self._width, fall * self._height, light, radius)

    def _add_rain(self, pixels: Pixels, t: float) -> None:
        x, y, near, _, _ = self._flakes.T
        fall = np.mod(y + t * (1.1 + 0.9 * near), 1.0)
        length = self._height * (0.02 + 0.035 * near)
        steps = np.arange(12, dtype=np.float32)[:, None] / 12
        lines = fall * self._height + steps * length
        columns = x * self._width + self._mood.direction * steps * length * 0.16
        light = np.broadcast_to(28 + 40 * near, lines.shape)
        _splat(pixels, columns.ravel(), lines.ravel(), light.ravel(), 0.45)

    def _add_motes(self, pixels: Pixels, t: float) -> None:
        x, y, near, phase, sway = self._motes.T
        rise = np.mod(y - t * self._mood.tempo * (0.008 + 0.02 * near), 1)
        drift = np.mod(x + 0.03 * np.sin(t * 0.5 * (0.5 + sway) + 9 * phase), 1)
        pulse = 0.5 + 0.5 * np.sin(t * (0.8 + sway) + 20 * phase)
        light = 62 * pulse * (0.3 + 0.7 * near)
        lines = (0.35 + 0.65 * rise) * self._height
        radius = self._height * (0.0016 + 0.006 * near**2)
        _splat(
            pixels, drift * self._width, lines, light, radius, self._mood.palette.glow
        )


def _splat(
    pixels: Pixels,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    light: NDArray[np.floating],
    radius: NDArray[np.floating] | float,
    tint: NDArray[np.float32] | None = None,
) -> None:
    """Add soft round lights, each as bright and wide as told, in pixels."""
    height, width = pixels.shape[:2]
    radius = np.broadcast_to(np.asarray(radius, np.float32), x.shape)
    reach = int(np.ceil(float(radius.max()) * 2)) + 1
    span = np.arange(-reach, reach + 1)
    columns = np.floor(x).astype(np.int64)[:, None, None] + span[None, None, :]
    lines = np.floor(y).astype(np.int64)[:, None, None] + span[None, :, None]
    across = (columns + 0.5 - x[:, None, None]) ** 2 + (
        lines + 0.5 - y[:, None, None]
    ) ** 2
    wide = np.maximum(radius, 0.35)[:, None, None]
    amount = light[:, None, None] * np.exp(-across / (wide * wide))
    seen = (amount > 1) & (columns >= 0) & (columns < width)
    seen &= (lines >= 0) & (lines < height)
    lines, columns = np.broadcast_arrays(lines, columns)
    at = (lines[seen], columns[seen])
    added = amount[seen][:, None]
    if tint is not None:
        added = added * tint
    pixels[at] = np.minimum(pixels[at] + added, 255).astype(np.uint8)
