"""
The near part of a picture: ridges, trees, houses, as wide strips that slide.

A strip is painted once, wider than the picture, and cut out anew for each frame; the
nearer it is, the faster it slides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from common.engine.render.mood import Colour, Mood
from common.engine.render.noise import Field, line, smooth, tile


@dataclass(frozen=True)
class Strip:
    """One layer of land."""

    image: Image.Image  #: RGBA, as wide as the picture and what slides through it
    top: int  #: row of the picture where it begins
    speed: float  #: pixels per second
    start: float  #: pixels cut off on the left at second 0

    def lay(self, picture: Image.Image, t: float) -> None:
        """Put the part that is seen at a moment onto the picture."""
        room = self.image.width - picture.width - 1
        left = min(max(self.start + self.speed * t, 0.0), float(room))
        whole = int(left)
        size = (picture.width, self.image.height)
        here = self.image.crop((whole, 0, whole + size[0], size[1]))
        if left > whole:
            after = self.image.crop((whole + 1, 0, whole + 1 + size[0], size[1]))
            here = Image.blend(here, after, left - whole)
        picture.paste(here, (0, self.top), here)


@dataclass(frozen=True)
class _Ground:
    """What all layers of one picture share."""

    mood: Mood
    width: int
    height: int
    horizon: float
    sun: float  #: where the light stands, 0 left … 1 right
    seconds: float
    grain: Field


def strips(
    mood: Mood, size: tuple[int, int], horizon: float, sun: float, seconds: float
) -> list[Strip]:
    """Return the layers of a film, far to near; none for silk and space."""
    width, height = size
    if mood.place in ("silk", "space"):
        return []
    grain = tile(3, 128, 5)
    ground = _Ground(mood, width, height, horizon, sun, seconds, grain)
    kinds = _KINDS[mood.place]
    depths = [float(depth) for depth in np.linspace(0.06, 1.0, len(kinds))]
    if mood.place == "sea":
        return [_strip(ground, d, "island", horizon, horizon) for d in (0.12, 0.34)]
    drop = 0.97 - horizon
    bases = [horizon + 0.02 + drop * depth**1.25 for depth in depths]
    # A layer ends where the next one certainly covers it.
    floors = [*bases[1:], 1.0]
    layers = zip(depths, kinds, bases, floors, strict=True)
    return [_strip(ground, *layer) for layer in layers]


def _strip(
    ground: _Ground, depth: float, kind: str, base: float, floor: float
) -> Strip:
    """Paint one layer: its ridge rises over `base`, and it is seen down to `floor`."""
    mood, height = ground.mood, ground.height
    rng = mood.layout
    # Near layers go 5 % of the width in a second; a long film slows them down.
    speed = (0.004 + 0.046 * depth**1.6) * ground.width * mood.tempo
    travel = min(speed * ground.seconds, 1.5 * ground.width)
    speed = travel / max(ground.seconds, 0.04)
    wide = ground.width + int(travel) + 3
    x = (np.arange(wide, dtype=np.float32) / height) + np.float32(rng.uniform(0, 50))
    ridge = _RIDGES[kind](rng, x, depth)
    reach = _REACH[kind] * (1 - 0.35 * depth if kind == "mountain" else 1)
    crest = ((base - reach * ridge) * height).astype(np.float32)
    top = max(0, int(crest.min()) - 1)
    bottom = max(min(int(floor * height) + 2, height), top + 2)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    cover = np.clip(rows + 1 - crest[None, :], 0, 1)
    body = _colours(ground, depth, kind, rows, crest, x)
    if kind == "island":
        cover *= smooth(0.0, 2.5, base * height - rows)
    if kind == "city":
        _add_windows(ground, depth, body, rows, crest)
    rgba = np.empty((*cover.shape, 4), np.uint8)
    rgba[..., :3] = np.clip(body, 0, 1) * 255 + 0.5
    rgba[..., 3] = cover * 255
    forward = mood.direction > 0
    room = float(wide - ground.width - 2)
    image = Image.fromarray(rgba)
    return Strip(image, top, speed if forward else -speed, 0.0 if forward else room)


def _colours(
    ground: _Ground, depth: float, kind: str, rows: Field, crest: Field, x: Field
) -> Field:
    """Return a layer's colours: hazy far away, lit from the sun's side, rough."""
    palette = ground.mood.palette
    tone: Colour = palette.far + (palette.near - palette.far) * np.float32(depth**0.75)
    below = (rows - crest[None, :]) / ground.height
    slope = np.gradient(crest).astype(np.float32)
    spread = max(int(ground.height * 0.02), 1)
    slope = np.convolve(slope, np.ones(spread, np.float32) / spread, "same")
    across = np.linspace(0, 1, len(crest), dtype=np.float32)
    facing = np.clip(slope * np.tanh((across - ground.sun) * 5), -1, 1)
    rough = _surface(ground, depth, x, rows)
    strength = {"mountain": 0.34, "island": 0.34, "desert": 0.10, "city": 0.05}.get(
        kind, 0.22
    )
    shade = 1 + strength * rough + 0.16 * facing[None, :] * np.exp(-below * 9)
    body = tone * shade[..., None]
    rim = np.exp(-below * 90) * (0.30 - 0.14 * depth)
    if ground.mood.time == "night":
        rim = rim * 0.4
    body = body + (palette.glow - body) * rim[..., None]
    if kind == "desert":
        dusk = smooth(0.0, 0.30, below)[..., None]
        body = body + (palette.low - body) * ((1 - dusk) * (0.34 - 0.2 * depth))
    if ground.mood.snow and kind in ("mountain", "hill", "desert", "forest"):
        white = np.array([0.93, 0.96, 1.0]) * (0.62 + 0.38 * shade[..., None])
        limit = 0.05 if kind == "forest" else 0.13
        snow = smooth(limit, 0.0, below + 0.10 * rough)[..., None] * (1 - 0.45 * depth)
        body = body + (white - body) * snow * 0.85
    # Haze gathers at the foot of each layer but the nearest.
    foot = smooth(0.02, 0.30, below)[..., None] * (0.78 * (1 - depth) ** 1.1)
    hazy: Field = body + (palette.low - body) * foot
    return hazy


def _surface(ground: _Ground, depth: float, x: Field, rows: Field) -> Field:
    """Return how rough a layer is at each pixel, about -0.5 … 0.5."""
    size = len(ground.grain)
    across = int((x[-1] - x[0]) * 70 * (0.5 + depth)) + 2
    down = int(len(rows) / ground.height * 190) + 2
    columns = (int(x[0] * 1000) + np.arange(across)) % size
    lines = (int(rows[0, 0]) + np.arange(down)) % size
    texels = Image.fromarray(ground.grain[lines[:, None], columns[None, :]])
    stretched = texels.resize((len(x), len(rows)), Image.Resampling.BICUBIC)
    rough: Field = np.asarray(stretched) - np.float32(0.5)
    return rough


def _island(rng: np.random.Generator, x: Field, depth: float) -> Field:
    return np.clip(_mountain(rng, x, depth) - 0.42, 0, 1)


def _mountain(rng: np.random.Generator, x: Field, depth: float) -> Field:
    sharp = 1 - np.abs(line(rng, x * (1.3 + depth), 5, 0.48))
    broad = line(rng, x * 0.7, 2, 0.5)
    return np.clip(0.55 * sharp + 0.25 * broad + 0.25, 0, 1.2)


def _hill(rng: np.random.Generator, x: Field, depth: float) -> Field:
    return np.clip(0.5 + 0.42 * line(rng, x * (0.9 + depth), 3, 0.35), 0, 1.2)


def _desert(rng: np.random.Generator, x: Field, depth: float) -> Field:
    # A dune rises slowly on one side and falls off on the other.
    along = line(rng, x * 0.8, 2, 0.3) * 0.35 + x * (0.9 - 0.3 * depth)
    saw = along - np.floor(along)
    lean = 0.72
    dune = np.where(saw < lean, saw / lean, (1 - saw) / (1 - lean))
    return (0.25 + 0.6 * smooth(0, 1, dune) ** 1.1).astype(np.float32)


def _forest(rng: np.random.Generator, x: Field, depth: float) -> Field:
    ground = 0.30 + 0.20 * line(rng, x * 0.9, 2, 0.4)
    pitch = 0.014 + 0.034 * depth  # distance between trees, in heights of the picture
    place = x / pitch
    cell = np.floor(place).astype(np.int64)
    sizes = rng.uniform(0.35, 1.0, 97).astype(np.float32)
    shift = rng.uniform(-0.3, 0.3, 97).astype(np.float32)
    best = np.zeros_like(x)
    for near in (-1, 0, 1):
        tree = (cell + near) % 97
        across = np.abs(place - (cell + near) - 0.5 - shift[tree])
        # A fir: boughs step out on the way down.
        taper = 1 - across / (0.44 + 0.25 * sizes[tree])
        boughs = 0.05 * (np.mod(across * 9, 1) - 0.5)
        tall = sizes[tree] * np.clip(taper, 0, 1)
        best = np.maximum(best, np.where(taper > 0, tall + boughs * tall, 0))
    return ground + best * (0.32 + 0.38 * depth)


def _city(rng: np.random.Generator, x: Field, depth: float) -> Field:
    pitch = 0.035 + 0.085 * depth
    place = x / pitch + 0.35 * line(rng, x * 3, 1, 0.5)
    cell = np.floor(place).astype(np.int64)
    heights = rng.uniform(0.12, 0.8, 61) ** 1.2
    heights[rng.integers(0, 61, 9)] = rng.uniform(0.75, 1.15, 9)
    roof = heights.astype(np.float32)[cell % 61]
    gap = (place - cell) < 0.06
    mast = (np.abs(place - cell - 0.5) < 0.02) & (heights[cell % 61] > 0.7)
    return np.where(gap, roof * 0.55, roof + 0.12 * mast).astype(np.float32)


_RIDGES = {
    "island": _island,
    "mountain": _mountain,
    "hill": _hill,
    "desert": _desert,
    "forest": _forest,
    "city": _city,
}
#: How high a layer rises over its base, in heights of the picture.
_REACH = {
    "island": 0.13,
    "mountain": 0.34,
    "hill": 0.15,
    "desert": 0.16,
    "forest": 0.27,
    "city": 0.42,
}
#: What the layers of a place are, far to near.
_KINDS = {
    "sea": ("island", "island"),
    "mountain": ("mountain", "mountain", "mountain", "hill", "forest"),
    "forest": ("mountain", "hill", "forest", "forest", "forest"),
    "desert": ("mountain", "desert", "desert", "desert"),
    "city": ("hill", "city", "city", "city"),
}


def _add_windows(
    ground: _Ground, depth: float, body: Field, rows: Field, crest: Field
) -> None:
    """Light some windows in the houses; few by day."""
    mood = ground.mood
    tall = max(2.0, ground.height * (0.007 + 0.011 * depth))
    wide = tall * 0.72
    y, x = rows[:, 0] / tall, np.arange(len(crest), dtype=np.float32) / wide
    share = {"night": 0.34, "sunset": 0.24, "dawn": 0.18}.get(mood.time, 0.08)
    lamps = mood.layout.uniform(0, 1, (3, 53, 97)).astype(np.float32)
    power = (0.45 + 0.55 * lamps[1]) * (0.4 + 0.6 * depth) * (lamps[0] < share)
    warm = np.array([1.0, 0.80, 0.48], np.float32)
    tint = np.where((lamps[2] < 0.7)[..., None], warm, mood.palette.glow)
    glass = (np.abs(y % 1 - 0.5) < 0.27)[:, None] & (np.abs(x % 1 - 0.5) < 0.27)
    glass &= rows - crest[None, :] > tall * 0.8
    line_no, column = np.nonzero(glass)
    at = y[line_no].astype(np.int64) % 53, x[column].astype(np.int64) % 97
    dark = body[line_no, column]
    body[line_no, column] = dark + (tint[at] - dark) * power[at][:, None]
