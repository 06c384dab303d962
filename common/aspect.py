"""
The size of a picture that keeps another one's shape. Pure.
"""

from __future__ import annotations

from common.request import Refused

#: About a megapixel: what the model was trained on.
AREA = 1024 * 1024
GRID = 16  #: pixels along what the model cuts a picture into
LEAST, MOST = 256, 2048  #: pixels a side


def fit(
    width: int,
    height: int,
    *,
    given_width: int | None = None,
    given_height: int | None = None,
) -> tuple[int, int]:
    """
    Return a size of the shape of `width` × `height`, in multiples of 16.

    Without a given side it has about a megapixel, or less where a side would be over
    2048. A given side stays, and the other one follows.

    Raises:
        Refused: a side would be under 256, or over 2048 beside a given one.

    >>> fit(4000, 3000), fit(300, 300, given_width=512)
    ((1184, 880), (512, 512))
    """
    if given_width is not None:
        size = (given_width, given_height or _grid(given_width * height / width))
    elif given_height is not None:
        size = (_grid(given_height * width / height), given_height)
    else:
        scale = min((AREA / (width * height)) ** 0.5, MOST / max(width, height))
        size = (_grid(width * scale), _grid(height * scale))
    if min(size) < LEAST or max(size) > MOST:
        raise Refused(
            f"a picture of {width}×{height} would become {size[0]}×{size[1]},"
            f" and a side has {LEAST} to {MOST} pixels",
            "give width and height",
        )
    return size


def _grid(side: float) -> int:
    return max(1, round(side / GRID)) * GRID
