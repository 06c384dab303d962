"""Pictures: load, decode, scale, save."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from common.engine import files
from common.engine.render import Film, fill
from common.engine.run import Node, Run, Shown
from common.engine.settings import EngineSettings
from common.engine.values import Frames, Latent, Pixels, Still, Vae

RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def load_image(run: Run, image: str) -> tuple[Any, ...]:
    """Load a picture of the input folder: its colours and its transparency."""
    with Image.open(files.named_file(run.settings, image)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGBA")
    pixels = np.asarray(upright)
    return Still(pixels[..., :3].copy()), 255 - pixels[..., 3]


def stamp_image(settings: EngineSettings, inputs: Mapping[str, Any]) -> str:
    """Return the hash of a picture's bytes."""
    return stamp_file(settings, inputs.get("image", ""))


def stamp_file(settings: EngineSettings, name: object) -> str:
    """Return the hash of a file's bytes, so that a new file is no cached one."""
    path = files.named_file(settings, str(name))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def decode(run: Run, samples: Latent, vae: Vae, **tiles: int) -> tuple[Any, ...]:
    """Make frames of a latent; one that no sampler has seen is grey."""
    if samples.recipe is None:
        size = (samples.height, samples.width, 3)
        return (Still(np.full(size, 128, np.uint8)),)
    return (Film(samples.recipe, noise=samples.noise),)


@dataclass(frozen=True)
class _Scaled:
    """Frames in another size."""

    source: Frames
    width: int
    height: int
    method: Image.Resampling
    crop: bool

    @property
    def count(self) -> int:
        return self.source.count

    def __iter__(self) -> Iterator[Pixels]:
        for pixels in self.source:
            picture = Image.fromarray(pixels)
            if self.crop:
                yield fill(picture, self.width, self.height, self.method)
            else:
                size = (self.width, self.height)
                yield np.asarray(picture.resize(size, self.method))


def scale(
    run: Run, image: Frames, upscale_method: str, width: int, height: int, crop: str
) -> tuple[Any, ...]:
    """Scale frames; a width or height of 0 follows from the other one."""
    if width == 0 and height == 0:
        return (image,)
    width = width or max(1, round(image.width * height / image.height))
    height = height or max(1, round(image.height * width / image.width))
    method = RESAMPLING[upscale_method]
    return (_Scaled(image, width, height, method, crop == "center"),)


def to_mask(run: Run, image: Frames, channel: str) -> tuple[Any, ...]:
    """Return one colour of a picture as a mask; there is no transparency here."""
    pixels = next(iter(image))
    colour = ("red", "green", "blue").index(channel) if channel != "alpha" else None
    return (
        np.full(pixels.shape[:2], 255, np.uint8)
        if colour is None
        else pixels[..., colour],
    )


@dataclass(frozen=True)
class _Part:
    """Some of the frames of another film."""

    source: Frames
    start: int
    count: int

    @property
    def width(self) -> int:
        return self.source.width

    @property
    def height(self) -> int:
        return self.source.height

    def __iter__(self) -> Iterator[Pixels]:
        return islice(self.source, self.start, self.start + self.count)


def part(run: Run, image: Frames, batch_index: int, length: int) -> tuple[Any, ...]:
    """Take some frames out of a film, as far as there are any."""
    start = min(image.count - 1, batch_index)
    return (_Part(image, start, min(image.count - start, length)),)


@dataclass(frozen=True)
class _Joined:
    """Films of one size, one after the other."""

    parts: tuple[Frames, ...]

    @property
    def width(self) -> int:
        return self.parts[0].width

    @property
    def height(self) -> int:
        return self.parts[0].height

    @property
    def count(self) -> int:
        return sum(one.count for one in self.parts)

    def __iter__(self) -> Iterator[Pixels]:
        return chain.from_iterable(self.parts)


def join(run: Run, **images: Frames) -> tuple[Any, ...]:
    """Put films of one size one after the other."""
    return (_Joined(tuple(images.values())),)


def _save(run: Run, images: Frames, kind: str, prefix: str) -> Shown:
    target = files.next_file(run.settings, kind, prefix, ".png")
    saved = []
    for number, pixels in enumerate(images, start=target.counter):
        run.check()
        name = target.name(number)
        Image.fromarray(pixels).save(target.folder / name, compress_level=4)
        saved.append({"filename": name, "subfolder": target.subfolder, "type": kind})
    return Shown({"images": saved})


def save_image(run: Run, images: Frames, filename_prefix: str) -> Shown:
    """Save each frame as PNG."""
    return _save(run, images, "output", filename_prefix)


def preview_image(run: Run, images: Frames) -> Shown:
    """Save each frame as PNG where it does not stay."""
    return _save(run, images, "temp", "ComfyUI_temp")


NODES: dict[str, Node] = {
    "LoadImage": load_image,
    "ImageScale": scale,
    "ImageToMask": to_mask,
    "ImageFromBatch": part,
    "BatchImagesNode": join,
    "VAEDecode": decode,
    "VAEDecodeTiled": decode,
    "SaveImage": save_image,
    "PreviewImage": preview_image,
}

STAMPS: dict[str, Callable[[EngineSettings, Mapping[str, Any]], str]] = {
    "LoadImage": stamp_image
}
