"""What travels along the links of a graph here: descriptions, not tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: One picture: rows, columns, RGB.
Pixels = NDArray[np.uint8]

#: A part of a picture (MASK): rows, columns; 255 is in it.
Mask = NDArray[np.uint8]


class Frames(Protocol):
    """Pictures of one size (IMAGE); drawn when iterated, so never all in memory."""

    @property
    def width(self) -> int:
        """Return the width in pixels."""

    @property
    def height(self) -> int:
        """Return the height in pixels."""

    @property
    def count(self) -> int:
        """Return how many frames there are."""

    def __iter__(self) -> Iterator[Pixels]:
        """Draw one frame after the other."""


@dataclass(frozen=True, eq=False)
class Still:
    """One picture as IMAGE."""

    pixels: Pixels

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def count(self) -> int:
        """Return 1."""
        return 1

    def __iter__(self) -> Iterator[Pixels]:
        """Yield the picture."""
        yield self.pixels


@dataclass(frozen=True)
class Model:
    """A diffusion model with what was put on it (MODEL)."""

    name: str
    changes: tuple[str, ...] = ()  #: LoRAs and shift, in order: they flavour the noise

    def changed(self, change: str) -> Model:
        """Return the model with one more change."""
        return replace(self, changes=(*self.changes, change))


@dataclass(frozen=True)
class TextEncoder:
    """CLIP."""

    name: str


@dataclass(frozen=True)
class Vae:
    """VAE."""

    name: str


@dataclass(frozen=True, eq=False)
class Sound:
    """AUDIO: one channel."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Voice:
    """AUDIO_ENCODER_OUTPUT: how loud it is at each frame, 0 to 1."""

    levels: tuple[float, ...]


@dataclass(frozen=True)
class Speaking:
    """What the face in a picture does, frame by frame."""

    #: how loud it is, and where the mouth is that speaks: shares of width and height
    levels: tuple[tuple[float, tuple[float, float]], ...]
    began: int  #: frames of the film before these


@dataclass(frozen=True)
class Guides:
    """Pictures that a film begins and ends with, and what is said in it."""

    start: Pixels | None = None
    end: Pixels | None = None
    speaking: Speaking | None = None


@dataclass(frozen=True)
class Conditioning:
    """A text, and the pictures that the Wan image-to-video nodes bind to it."""

    text: str
    guides: Guides = Guides()


@dataclass(frozen=True)
class Recipe:
    """All that a film is made of. Equal recipes make equal films."""

    width: int
    height: int
    frames: int
    prompt: str
    seed: int
    #: hash of everything else: negative, cfg, steps, sampler, model, LoRAs, shift
    flavour: str
    guides: Guides = Guides()


@dataclass(frozen=True)
class Latent:
    """LATENT: a size at first, and a recipe once a sampler has seen it."""

    width: int  #: pixels
    height: int  #: pixels
    frames: int
    guides: Guides = Guides()
    recipe: Recipe | None = None
    noise: float = 1.0  #: what is left of it: 1 nothing but noise, 0 clear


@dataclass(frozen=True)
class Video:
    """VIDEO."""

    frames: Frames
    fps: Fraction
    sound: Sound | None = None
