"""
Arithmetic of Wan 2.2 clips: frames, seconds and what a card has to hold.

Pure. The VAE packs the first frame alone and then four frames at a time, so a clip
has 4n + 1 frames. Source: `Wan22ImageToVideoLatent` and `WanImageToVideo` in ComfyUI
(`latent length = (length - 1) // 4 + 1`).
"""

from __future__ import annotations


def is_clip_length(frames: int) -> bool:
    """Tell whether the VAE takes this many frames without dropping some."""
    return frames % 4 == 1


def nearest_clip_length(frames: float) -> int:
    """
    Return the 4n + 1 that is nearest, at least 1.

    >>> nearest_clip_length(120), nearest_clip_length(123), nearest_clip_length(0)
    (121, 125, 1)
    """
    return max(1, round((frames - 1) / 4) * 4 + 1)


def frames_for(seconds: float, fps: float) -> int:
    """
    Return the clip length that plays nearest to `seconds` at `fps`.

    >>> frames_for(5, 24), frames_for(3, 24)
    (121, 73)
    """
    return nearest_clip_length(seconds * fps)


def latent_frames(frames: int) -> int:
    """
    Return how many latent frames a clip has.

    >>> latent_frames(121)
    31
    """
    return (frames - 1) // 4 + 1


def latent_cells(width: int, height: int, frames: int, cell: int = 32) -> int:
    """
    Return the number of tokens the transformer attends over.

    `cell` is the side, in pixels, of the square that one token covers: 32 for the
    5B model (VAE 16x, patches 2x2), 16 for the 14B models (VAE 8x, patches 2x2).

    >>> latent_cells(1280, 704, 121)
    27280
    """
    return (width // cell) * (height // cell) * latent_frames(frames)
