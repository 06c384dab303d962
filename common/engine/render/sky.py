"""
The far part of a picture, painted small and soft: sky, clouds, aurora, water, silk.

Units: x runs 0 … width/height from the left, y runs 0 … 1 from the top, t in seconds.
"""

from __future__ import annotations

import numpy as np

from common.engine.render.mood import Mood
from common.engine.render.noise import Field, smooth, tile

#: Side of the cloud textures, a power of two.
TILE = 256


class Sky:
    """Paints the background of one film, `rows` high."""

    def __init__(self, mood: Mood, columns: int, rows: int) -> None:
        layout, detail = mood.layout, mood.detail
        self.mood = mood
        self.horizon = _horizon(mood)
        aspect = columns / rows
        self.x = ((np.arange(columns, dtype=np.float32) + 0.5) / rows)[None, :]
        self.y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None]
        self.sun_x = float(aspect * layout.uniform(0.2, 0.8))
        self.sun_y = float(self.horizon * _sun_height(mood, layout))
        self._phase = layout.uniform(0, 6.28, 8) + detail.normal(0, 0.03, 8)
        self._clouds = [tile(1, TILE, 5), tile(2, TILE, 4)]
        self._cover = float(layout.uniform(0.42, 0.56)) + float(detail.normal(0, 0.004))
        # Clouds lie on a ceiling over the viewer, so they shrink towards the horizon.
        height = np.maximum(self.horizon - self.y, 0) + 0.07
        scale = layout.uniform(9, 13)
        over = layout.uniform(0, TILE, 2)
        plane_x = (self.x - aspect / 2) / height * scale + over[0]
        plane_y = scale * 1.6 / height + over[1] + 0 * self.x
        self._plane_x = plane_x.astype(np.float32)
        self._plane_y = plane_y.astype(np.float32)
        self._air = self._gradient()
        self._halo = self._glow()

    def paint(self, t: float) -> Field:
        """Return the background at a moment: rows, columns, RGB, about 0 … 1."""
        if self.mood.place == "silk":
            return self._silk(t)
        picture = self._air + self._halo * self.mood.palette.glow
        if self.mood.place == "space":
            picture += self._nebula(t)
        else:
            if self.mood.aurora:
                picture += self._aurora(t)
            self._add_clouds(picture, t)
        if self.mood.place == "sea":
            self._add_water(picture, t)
        return picture

    def _gradient(self) -> Field:
        palette = self.mood.palette
        down = np.clip(self.y / self.horizon, 0, 1)[..., None]
        upper = smooth(0.0, 0.62, down)
        lower = smooth(0.45, 1.0, down)
        air = palette.top + (palette.middle - palette.top) * upper
        air = air + (palette.low - air) * lower
        return np.broadcast_to(air, (*np.broadcast(self.x, self.y).shape, 3)).copy()

    def _glow(self) -> Field:
        distance = np.hypot(self.x - self.sun_x, (self.y - self.sun_y) * 1.15)
        wide = {"night": 0.16, "storm": 0.15}.get(self.mood.time, 0.42)
        near = np.exp(-((distance / 0.10) ** 2)) * 0.35
        return ((near + wide / (1 + (distance / 0.22) ** 2))[..., None]).astype(
            np.float32
        )

    def _add_clouds(self, picture: Field, t: float) -> None:
        """Lay clouds over the sky; edges towards the light shine."""
        palette = self.mood.palette
        wind = self.mood.tempo * self.mood.direction
        a = _sample(self._clouds[0], self._plane_x + 2.6 * wind * t, self._plane_y)
        b = _sample(
            self._clouds[1],
            self._plane_x * 2.1 + 4.4 * wind * t,
            self._plane_y * 2.1 + 0.9 * t,
        )
        density = 0.68 * a + 0.32 * b
        body = smooth(self._cover, self._cover + 0.26, density)
        # Far clouds melt into the haze, and there are none below the horizon.
        body *= smooth(0.0, 0.35 * self.horizon, self.horizon - self.y)
        lit = 1 - smooth(self._cover, self._cover + 0.42, density)
        light = np.clip(self._halo * 1.9, 0, 1) * 0.8 + 0.2
        shine = palette.cloud + (palette.glow - palette.cloud) * (
            lit[..., None] * light
        )
        strength = 0.5 if self.mood.time == "night" else 0.86
        picture += (shine - picture) * (body[..., None] * strength)

    def _aurora(self, t: float) -> Field:
        """Return curtains of light that hang over the horizon and sway."""
        p, slow = self._phase, t * self.mood.tempo
        light = np.zeros((*np.broadcast(self.x, self.y).shape, 3), np.float32)
        hues = ((0.20, 0.95, 0.55), (0.30, 0.75, 0.95), (0.72, 0.30, 0.90))
        for band, hue in enumerate(hues):
            sway = 0.05 * np.sin(self.x * 2.3 + p[band] + 0.35 * slow) + 0.03 * np.sin(
                self.x * 5.1 - p[band + 1] - 0.5 * slow
            )
            foot = self.horizon * (0.52 + 0.13 * band * 0.6) + sway
            above = (foot - self.y) / (0.20 + 0.05 * band)
            shape = np.where(above > 0, np.exp(-above * 1.7), np.exp(above * 22))
            rays = 0.55 + 0.45 * np.sin(
                self.x * (19 + 4 * band)
                + 2.2 * np.sin(self.x * 3 + 0.4 * slow + p[3])
                + 0.8 * slow
            )
            fold = 0.5 + 0.5 * np.sin(self.x * 1.7 + p[band + 4] - 0.22 * slow)
            amount = shape * (0.35 + 0.65 * rays) * fold * (0.34 - 0.07 * band)
            light += amount[..., None].astype(np.float32) * np.array(hue, np.float32)
        return light

    def _flow(self, t: float, scale: float) -> tuple[Field, Field]:
        """Return two fields that fold into each other for ever."""
        p = self._phase
        x = (self.x * scale + 0 * self.y).astype(np.float32)
        y = (self.y * scale + 0 * self.x).astype(np.float32)
        pace = t * 0.32 * self.mood.tempo
        for turn in range(1, 5):
            x, y = (
                x + 0.78 / turn * np.sin(turn * 1.25 * y + pace + p[turn]),
                y + 0.78 / turn * np.cos(turn * 1.15 * x - pace * 0.8 + p[turn + 3]),
            )
        return x, y

    def _silk(self, t: float) -> Field:
        palette = self.mood.palette
        x, y = self._flow(t, 2.1)
        fold = (0.5 + 0.5 * np.sin(x * 1.3 + y * 0.7))[..., None]
        sheen = np.clip(np.sin(x + y * 1.6), 0, 1)[..., None] ** 3
        deep = np.clip(0.5 + 0.5 * np.sin(y * 1.4 - x * 0.5), 0, 1)[..., None]
        picture = palette.near + (palette.middle - palette.near) * smooth(0, 1, fold)
        picture = picture + (palette.top - picture) * (0.75 * smooth(0.35, 1, deep))
        picture = picture + (palette.low - picture) * (
            0.55 * smooth(0.55, 1.0, fold) * (1 - deep)
        )
        picture = picture + (palette.glow - picture) * (sheen * 0.62)
        picture += self._halo * palette.glow * 0.35
        return picture.astype(np.float32)

    def _nebula(self, t: float) -> Field:
        palette = self.mood.palette
        x, y = self._flow(t * 0.35, 1.5)
        dust = _sample(self._clouds[0], x * 26, y * 26)
        veil = smooth(0.35, 0.95, dust) * (0.5 + 0.5 * np.sin(x + y))
        core = smooth(0.55, 1.0, dust) * (0.5 + 0.5 * np.sin(x * 1.7 - y))
        light = veil[..., None] * palette.far * 1.35 + core[..., None] * palette.low
        return light.astype(np.float32)

    def _add_water(self, picture: Field, t: float) -> None:
        """Mirror the sky in moving water below the horizon."""
        rows = len(self.y)
        first = int(self.horizon * rows)
        if first >= rows - 1:
            return
        palette, pace = self.mood.palette, t * self.mood.tempo
        depth = (self.y[first:] - self.horizon) / (1 - self.horizon)  # 0 far … 1 near
        far = 1 / (depth + 0.06)
        p = self._phase
        wave = (
            np.sin(far * 5.2 + pace * 2.1 + 2.0 * np.sin(self.x * 2.2 + p[0]))
            + np.sin(far * 8.7 - pace * 1.7 + self.x * 3.4 + p[1])
            + 0.7 * np.sin(far * 3.1 + pace * 1.1 - self.x * 5.3 / (depth + 0.4) + p[2])
        )
        lift = depth * (0.10 + 0.05 * wave) * rows
        offset = np.arange(rows - first, dtype=np.float32)[:, None] * 0.85
        source = np.clip(first - 1 - offset - lift, 0, first - 1).astype(np.int64)
        columns = np.arange(picture.shape[1])[None, :]
        mirror = picture[source, columns]
        water = palette.near * 0.35 + palette.top * 0.35
        clear = (0.80 - 0.42 * depth)[..., None]
        surface = mirror * clear + water * (1 - clear)
        # The sun's path: glints on the waves that face us, wider near by.
        path = np.exp(-(((self.x - self.sun_x) / (0.05 + 0.30 * depth)) ** 2))
        glint = smooth(0.9, 2.3, wave + 0.6 * np.sin(self.x * 41 + far * 9 - pace * 3))
        shine = (glint * path * (0.85 - 0.4 * depth))[..., None]
        surface += shine * palette.glow * 0.85
        surface += (0.05 * (wave * depth))[..., None] * palette.low
        picture[first:] = surface


def _horizon(mood: Mood) -> float:
    base = {"sea": 0.54, "city": 0.80, "forest": 0.72, "space": 1.0, "silk": 1.0}
    chance = float(mood.layout.uniform(-0.03, 0.04))
    level = base.get(mood.place, 0.68)
    return level if level == 1.0 else level + chance


def _sun_height(mood: Mood, layout: np.random.Generator) -> float:
    """Return how far down the sky the sun or moon is: 0 zenith, 1 horizon."""
    low, high = {
        "sunset": (0.74, 0.90),
        "dawn": (0.66, 0.86),
        "night": (0.20, 0.42),
    }.get(mood.time, (0.18, 0.42))
    return float(layout.uniform(low, high))


def _sample(texture: Field, x: Field, y: Field) -> Field:
    """Read a tile at fractional positions, in texels, that may be anywhere."""
    size = len(texture)
    flat = texture.ravel()
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    ix, iy = left.astype(np.int32), top.astype(np.int32)
    mask = size - 1
    x0, x1 = ix & mask, (ix + 1) & mask
    y0, y1 = (iy & mask) * size, ((iy + 1) & mask) * size
    upper = flat[y0 + x0] * (1 - fx) + flat[y0 + x1] * fx
    lower = flat[y1 + x0] * (1 - fx) + flat[y1 + x1] * fx
    mixed: Field = upper * (1 - fy) + lower * fy
    return mixed
