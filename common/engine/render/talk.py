"""A picture that speaks: it nods a little, and its mouth opens as the voice is loud."""

from __future__ import annotations

from math import sin

from PIL import Image, ImageDraw, ImageFilter

from common.engine.render.picture import fill
from common.engine.values import Pixels, Speaking

#: Width of a mouth, and how far it opens: shares of the picture's shorter side.
WIDE, OPEN = 0.11, 0.13

LIPS, INSIDE = (150, 62, 66), (48, 12, 18)


class Talk:
    """Frame after frame of one window; windows of one film fit together."""

    def __init__(
        self, pixels: Pixels, speaking: Speaking, size: tuple[int, int]
    ) -> None:
        self._speaking = speaking
        self._size = size
        # A little larger than the frame, so that there is room to nod.
        room = max(2, round(min(size) * 0.02))
        self._room = room
        wide, high = size[0] + 2 * room, size[1] + 2 * room
        self._picture = Image.fromarray(fill(Image.fromarray(pixels), wide, high))

    def at(self, index: int) -> Image.Image:
        """Paint one frame of the window."""
        moment = self._speaking.began + index
        aside = round(self._room * 0.8 * sin(moment / 31))
        down = round(self._room * 0.8 * sin(moment / 19))
        left, top = self._room + aside, self._room + down
        box = (left, top, left + self._size[0], top + self._size[1])
        picture = self._picture.crop(box)
        level, mouth = self._speaking.levels[index]
        self._speak(picture, min(abs(level), 1.0), mouth, (aside, down))
        return picture

    def _speak(
        self,
        picture: Image.Image,
        level: float,
        mouth: tuple[float, float],
        moved: tuple[int, int],
    ) -> None:
        width, height = self._size
        short = min(self._size)
        x, y = mouth[0] * width - moved[0], mouth[1] * height - moved[1]
        half, gap = short * WIDE / 2 * (1 - 0.25 * level), short * OPEN / 2 * level
        edge = max(1.0, short * 0.008)
        for colour, more in ((LIPS, edge), (INSIDE, 0.0)):
            if gap + more < 0.5:
                continue
            mask = Image.new("L", self._size)
            across, up = half + more, gap + more
            ImageDraw.Draw(mask).ellipse((x - across, y - up, x + across, y + up), 255)
            soft = mask.filter(ImageFilter.GaussianBlur(edge / 2))
            picture.paste(colour, (0, 0), soft)
