"""The mark on every frame: nobody shall take a preview for the model's work."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

TEXT = "preview · embedded engine"


def mark(picture: Image.Image) -> None:
    """Write the mark into the lower right corner, readable on light and dark."""
    for value, box, mask in _masks(*picture.size):
        picture.paste((value, value, value), box, mask)


@lru_cache(maxsize=16)
def _masks(width: int, height: int) -> list[tuple[int, tuple[int, int], Image.Image]]:
    """Return the shadow and the text: grey, position, opacity."""
    size = max(5.0, min(height * 0.026, width / 14))
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(TEXT)
    margin = round(size * 0.7)
    box = (int(right - left) + 2, int(bottom - top) + 2)
    at = (max(width - box[0] - margin, 0), max(height - box[1] - margin, 0))
    layers = []
    for value, opacity, shift in ((0, 90, max(1, round(size / 14))), (255, 165, 0)):
        mask = Image.new("L", box)
        ImageDraw.Draw(mask).text((-left + 1, -top + 1), TEXT, opacity, font)
        layers.append((value, (at[0] + shift, at[1] + shift), mask))
    return layers
