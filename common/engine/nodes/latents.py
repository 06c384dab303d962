"""Empty latents: how large the film is, and which pictures it starts and ends with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from common.engine.run import Node, Run
from common.engine.values import Conditioning, Frames, Guides, Latent, Vae

#: Pixels per latent cell. Source: the VAEs of Wan 2.1 and 2.2.
CELL_21, CELL_22 = 8, 16


def empty(width: int, height: int, length: int, cell: int) -> Latent:
    """Round a size down to what the VAE can decode: whole cells, 4n + 1 frames."""
    frames = (length - 1) // 4 * 4 + 1
    return Latent(width // cell * cell, height // cell * cell, frames)


def _guides(start: Frames | None, end: Frames | None = None) -> Guides:
    first = next(iter(start)) if start is not None else None
    last = None
    for last in end or ():  # noqa: B007 - the last one is wanted
        pass
    return Guides(first, last)


def wan22_image_to_video(
    run: Run,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    start_image: Frames | None = None,
) -> tuple[Any, ...]:
    """Return the latent of the 5B model, which holds the start image itself."""
    latent = empty(width, height, length, CELL_22)
    return (replace(latent, guides=_guides(start_image)),)


def empty_latent(
    run: Run, width: int, height: int, length: int, batch_size: int
) -> tuple[Any, ...]:
    """Return the latent of the 14B models for text-to-video."""
    return (empty(width, height, length, CELL_21),)


def wan_image_to_video(
    run: Run,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    start_image: Frames | None = None,
    end_image: Frames | None = None,
    **clip_vision: object,
) -> tuple[Any, ...]:
    """Return the 14B models' conditioning, which holds the pictures, and the latent."""
    guides = _guides(start_image, end_image)
    latent = empty(width, height, length, CELL_21)
    return (replace(positive, guides=guides), replace(negative, guides=guides), latent)


NODES: dict[str, Node] = {
    "EmptyHunyuanLatentVideo": empty_latent,
    "Wan22ImageToVideoLatent": wan22_image_to_video,
    "WanImageToVideo": wan_image_to_video,
    "WanFirstLastFrameToVideo": wan_image_to_video,
}
