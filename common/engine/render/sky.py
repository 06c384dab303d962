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
        self._cover = float(layout.uniform(0.37, 0.50)) + float(detail.normal(0, 0.004))
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
        picture: Field = self._air + self._halo * self.mood.palette.glow
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
        if self.mood.place == "space":
            air = 0.30 * palette.top + 0 * air
        full = (*np.broadcast(self.x, self.y).shape, 3)
        whole: Field = np.broadcast_to(air, full).copy()
        return whole

    def _glow(self) -> Field:
        distance = np.hypot(self.x - self.sun_x, (self.y - self.sun_y) * 1.15)
        wide = {"night": 0.16, "storm": 0.15, "dawn": 0.30}.get(self.mood.time, 0.36)
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
        x, y = self._flow(t, 2.4)
        along = x * 1.5 + y * 0.8
        fold = 0.5 + 0.5 * np.sin(along + 1.2 * np.sin(y * 2.0))
        deep = 0.5 + 0.5 * np.sin(y * 1.9 - x * 1.1 + 1)
        thread = np.sin(along * 3.1 + y * 2.2 + self._phase[6])
        sheen = np.clip(thread, 0, 1) ** 4 * (0.35 + 0.65 * fold)
        layers = (
            (palette.middle, 0.92 * smooth(0.05, 1.0, fold)),
            (palette.top, 0.80 * smooth(0.45, 1.0, deep)),
            (palette.low, 0.70 * smooth(0.62, 1.0, fold) * smooth(0.9, 0.3, deep)),
            (palette.glow, 0.55 * sheen),
            (palette.glow, 0.5 * self._halo[..., 0]),
        )
        picture = 0.30 * palette.near + 0.70 * palette.cloud
        for tint, share in layers:
            picture = picture + (tint - picture) * share[..., None]
        return picture

    def _nebula(self, t: float) -> Field:
        palette = self.mood.palette
        x, y = self._flow(t * 0.3, 1.5)
        dust = _sample(self._clouds[0], x * 22, y * 22)
        fine = _sample(self._clouds[1], x * 51, y * 51)
        cloud = 0.7 * dust + 0.3 * fine
        veil = smooth(0.30, 0.85, cloud) * (0.65 + 0.35 * np.sin(x + y))
        core = smooth(0.58, 0.95, cloud) * (0.55 + 0.45 * np.sin(x * 1.7 - y))
        hot = 0.6 * palette.low + 0.4 * palette.glow
        light: Field = veil[..., None] * palette.far * 1.25 + core[..., None] * hot
        return light

    def _add_water(self, picture: Field, t: float) -> None:
        """Mirror the sky in moving water below the horizon."""
        rows = len(self.y)
        first = int(self.horizon * rows)
        if first >= rows - 1:
            return
        palette, pace = self.mood.palette, t * self.mood.tempo
        # 0 far … 1 near; the centre of the first row may lie over the horizon.
        depth = np.maximum(self.y[first:] - self.horizon, 0) / (1 - self.horizon)
        far = np.log(depth + 0.02)  # waves shrink towards the horizon
        across = self.x / (depth + 0.12)
        p = self._phase
        wave = (
            np.sin(far * 17 + pace * 2.0 + 1.6 * np.sin(across * 0.9 + p[0]))
            + np.sin(far * 29 - pace * 2.7 + across * 1.1 + p[1])
            + 0.8 * np.sin(far * 43 + pace * 3.1 - across * 2.3 + p[2])
        )
        lift = depth * (0.10 + 0.035 * wave) * rows
        offset = np.arange(rows - first, dtype=np.float32)[:, None] * 0.85
        source = np.clip(first - 1 - offset - lift, 0, first - 1).astype(np.int64)
        columns = np.arange(picture.shape[1])[None, :]
        mirror = picture[source, columns]
        water = palette.near * 0.35 + palette.top * 0.35
        clear = (0.80 - 0.42 * depth)[..., None]
        surface = mirror * clear + water * (1 - clear)
        # The sun's path: glints on the waves that face us, wider near by.
        path = np.exp(-(((self.x - self.sun_x) / (0.05 + 0.30 * depth)) ** 2))
        glint = smooth(0.9, 2.2, wave + 0.7 * np.sin(across * 7 + far * 11 - pace * 3))
        shine = (glint * path * (0.95 - 0.45 * depth))[..., None]
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
