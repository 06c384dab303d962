"""
The editor without a model: the caller's picture, graded and painted over.

What it does follows from the text, the seed and the settings, so that equal requests
make equal pictures and others do not. Each picture carries the mark.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from common.engine.editors import Edit, OnStep
from common.engine.render.mark import mark

#: The longer side of a preview, in pixels.
PREVIEW = 512


class EmbeddedEditor:
    """Grades the first picture, paints light over it, and lays the others on it."""

    def edit(self, task: Edit, on_step: OnStep) -> list[Image.Image]:
        """Return the pictures; each step brings the result out a little more."""
        size = task.width, task.height
        before = task.images[0].resize(size, Image.Resampling.LANCZOS)
        made = []
        for number, seed in enumerate(task.seeds):
            after = _edited(before, task, seed)
            for step in range(1, task.steps + 1):
                shown = _preview(before, after, step / task.steps)
                done = number * task.steps + step
                on_step(done, task.count * task.steps, shown)
            made.append(after)
        return made


def _edited(before: Image.Image, task: Edit, seed: int) -> Image.Image:
    facts = repr((task.prompt, task.negative_prompt, task.steps, task.cfg, seed))
    digest = hashlib.sha256(facts.encode()).digest()
    dice = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    picture = Image.fromarray(_lit(_graded(np.asarray(before), dice), dice))
    for place, other in enumerate(task.images[1:]):
        _lay(picture, other, place, float(dice.uniform(-9, 9)))
    mark(picture)
    return picture


def _graded(
    pixels: NDArray[np.uint8], dice: np.random.Generator
) -> NDArray[np.float32]:
    """Tint the shadows one way and the lights the other way, and bend the contrast."""
    picture = pixels.astype(np.float32) / 255
    bent = picture ** np.float32(dice.uniform(0.75, 1.3))
    light = bent.mean(axis=2, keepdims=True)
    tints = dice.uniform(-0.16, 0.16, (2, 3)).astype(np.float32)
    graded: NDArray[np.float32] = bent + tints[0] * (1 - light) + tints[1] * light
    return graded


def _lit(picture: NDArray[np.float32], dice: np.random.Generator) -> NDArray[np.uint8]:
    """Paint soft bands of light, brighter where the picture is."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    field = np.zeros((height, width), np.float32)
    for _ in range(4):
        along, across, phase = dice.uniform((-7, -7, 0), (7, 7, 6))
        field += np.sin(np.float32(along) * x + np.float32(across) * y + phase)
    glow = np.clip(field / 4, 0, 1)[..., None] ** 2
    colour = dice.uniform(0.3, 1.0, 3).astype(np.float32)
    lit = picture + 0.55 * glow * colour * (0.35 + picture)
    painted: NDArray[np.uint8] = (np.clip(lit, 0, 1) * 255).round().astype(np.uint8)
    return painted


def _lay(picture: Image.Image, other: Image.Image, place: int, degrees: float) -> None:
    """Lay a further picture on it like a print: lower left, then upper right."""
    side = max(32, min(picture.size) * 3 // 10)
    frame = max(2, side // 24)
    print_ = ImageOps.contain(other, (side, side), Image.Resampling.LANCZOS)
    print_ = ImageOps.expand(print_, frame, (244, 241, 234)).convert("RGBA")
    turned = print_.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    shadow = Image.new("L", picture.size)
    at = (
        (side // 6, picture.height - turned.height - side // 6)
        if place == 0
        else (picture.width - turned.width - side // 6, side // 6)
    )
    shade = turned.getchannel("A").point(lambda alpha: alpha * 2 // 5)
    shadow.paste(shade, (at[0] + frame, at[1] + frame))
    shadow = shadow.filter(ImageFilter.GaussianBlur(frame))
    picture.paste((0, 0, 0), (0, 0, *picture.size), shadow)
    picture.paste(turned, at, turned)


def _preview(before: Image.Image, after: Image.Image, done: float) -> bytes:
    picture = Image.blend(before, after, done)
    picture.thumbnail((PREVIEW, PREVIEW))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()
