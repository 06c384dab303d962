"""A film from a picture: it breathes, drifts and catches the light."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

from common.engine.render.mood import read
from common.engine.render.picture import fill
from common.engine.values import Pixels

#: Squares of the mesh that the picture is bent by, across and down.
MESH = (10, 6)


class Motion:
    """A picture set in motion; the moment 0 is the picture itself."""

    def __init__(
        self,
        pixels: Pixels,
        prompt: str,
        seed: int,
        flavour: str,
        size: tuple[int, int],
    ) -> None:
        self._size = size
        self._picture = Image.fromarray(fill(Image.fromarray(pixels), *size))
        mood = read(prompt, seed, flavour)
        self._mood = mood
        rng = mood.layout
        self._phase = rng.uniform(0, 6.28, 6) + mood.detail.normal(0, 0.03, 6)
        angle = rng.uniform(-0.5, 0.5)
        self._drift = np.array([mood.direction * np.cos(angle), np.sin(angle) * 0.6])
        self._zoom = float(rng.uniform(0.022, 0.034)) * mood.tempo

    def at(self, t: float) -> Image.Image:
        """Bend and light the picture for the moment t, in seconds."""
        if t <= 0:
            return self._picture.copy()
        picture = self._bend(t)
        return ImageChops.screen(picture, self._light(t))

    def _bend(self, t: float) -> Image.Image:
        width, height = self._size
        columns, lines = MESH
        x = np.linspace(0, 1, columns + 1)[None, :]
        y = np.linspace(0, 1, lines + 1)[:, None]
        ease = t * t / (t + 0.6)  # starts softly
        zoom = 1 - 1 / (1 + self._zoom * ease)
        p, pace = self._phase, t * self._mood.tempo
        # Low parts of a picture are mostly near: they move more.
        near = 0.35 + 0.9 * y
        sway_x = np.sin(2.6 * y + 0.9 * pace + p[0]) - np.sin(2.6 * y + p[0])
        sway_y = np.sin(3.1 * x - 0.8 * pace + p[1]) - np.sin(3.1 * x + p[1])
        # All of it stays inside the room that zooming in has made.
        room = zoom / 2
        move_x = room * np.tanh(
            near * (0.75 * self._drift[0] * ease * 0.5) + 0.34 * sway_x
        )
        move_y = room * np.tanh(
            near * (0.75 * self._drift[1] * ease * 0.5) + 0.34 * sway_y
        )
        from_x = (0.5 + (x - 0.5) * (1 - zoom) + move_x) * width
        from_y = (0.5 + (y - 0.5) * (1 - zoom) + move_y) * height
        to_x = np.linspace(0, width, columns + 1).round().astype(int)
        to_y = np.linspace(0, height, lines + 1).round().astype(int)
        mesh = []
        for j in range(lines):
            for i in range(columns):
                box = (int(to_x[i]), int(to_y[j]), int(to_x[i + 1]), int(to_y[j + 1]))
                corners = ((j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1))
                quad = [float(f[c]) for c in corners for f in (from_x, from_y)]
                mesh.append((box, quad))
        return self._picture.transform(
            self._size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR
        )

    def _light(self, t: float) -> Image.Image:
        """Return a soft light that wanders over the picture, to be added."""
        width, height = self._size
        columns, lines = max(width // 16, 4), max(height // 16, 4)
        x = np.linspace(0, width / height, columns)[None, :]
        y = np.linspace(0, 1, lines)[:, None]
        p, pace = self._phase, t * self._mood.tempo
        beam = np.sin(x * 1.8 + y * 1.1 + p[2] - 0.55 * pace * self._mood.direction)
        veil = np.sin(x * 3.1 - y * 2.2 + p[3] + 0.35 * pace)
        strength = 0.17 * min(t / 1.2, 1.0)
        amount = strength * np.clip(0.6 * beam + 0.4 * veil, 0, 1) ** 2
        light = amount[..., None] * self._mood.palette.glow * 255
        small = Image.fromarray(light.astype(np.uint8))
        return small.resize(self._size, Image.Resampling.BICUBIC)
