"""A planet that drifts through space, painted once."""

from __future__ import annotations

import numpy as np
from PIL import Image

from common.engine.render.land import Strip
from common.engine.render.mood import Mood
from common.engine.render.noise import line, smooth


def planet(mood: Mood, size: tuple[int, int], seconds: float) -> Strip:
    """Return a planet with bands and a rim of air, lit from one side."""
    width, height = size
    rng, palette = mood.layout, mood.palette
    radius = height * rng.uniform(0.24, 0.40)
    speed = 0.010 * width * mood.tempo
    travel = min(speed * seconds, 0.5 * width)
    wide = width + int(travel) + 3
    reach = int(radius * 1.25) + 2
    middle = wide * rng.uniform(0.28, 0.72)
    centre = height * rng.uniform(0.42, 0.72)
    top = max(0, int(centre) - reach)
    rows = np.arange(top, min(int(centre) + reach, height), dtype=np.float32)[:, None]
    x = (np.arange(wide, dtype=np.float32)[None, :] - middle) / radius
    y = (rows - centre) / radius
    away = np.hypot(x, y)
    depth = np.sqrt(np.clip(1 - away**2, 0, 1))
    lean = rng.uniform(-0.5, 0.5)
    # Bands bend with the sphere, and storms fold them.
    latitude = (y * np.cos(lean) + x * np.sin(lean)) * 2.4 + 3
    fold = 0.10 * np.sin(x * 7 / (depth + 0.35) + y * 5) * depth
    band = line(rng, np.ravel(latitude + fold), 4, 0.6).reshape(away.shape)
    light = np.clip(-0.72 * x - 0.38 * y + 0.58 * depth, 0, 1)
    tint = (
        palette.far + (palette.low - palette.far) * smooth(-0.7, 0.8, band)[..., None]
    )
    body = tint * (0.04 + 1.15 * light[..., None])
    rim = np.exp(-(((away - 1) / 0.035) ** 2)) * np.clip(0.35 - 0.9 * x, 0.04, 1)
    body = body + (palette.glow - body) * np.clip(rim * 0.55, 0, 1)[..., None]
    solid = np.clip((1 - away) * radius + 0.5, 0, 1)
    air = np.exp(-np.clip(away - 1, 0, None) / 0.05) * np.clip(0.2 - 0.8 * x, 0, 0.55)
    rgba = np.empty((*away.shape, 4), np.uint8)
    rgba[..., :3] = np.clip(body, 0, 1) * 255
    rgba[..., 3] = np.clip(np.maximum(solid, air * (away >= 1)), 0, 1) * 255
    forward = mood.direction > 0
    pace = travel / max(seconds, 0.04)
    start = 0.0 if forward else float(wide - width - 2)
    return Strip(Image.fromarray(rgba), top, pace if forward else -pace, start)
