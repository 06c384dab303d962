"""
What requests for a clip share: a length in frames or seconds, a size, a budget, a seed.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from common.errors import FieldError
from common.fields import Priority, over_area
from common.job import Expected
from common.request import Request
from common.video import frames_for, nearest_clip_length


class Clip(Request):
    """
    A request with `width`, `height`, `frames`, `seconds`, `fps` and `seed`.

    The class that inherits declares those fields, with its own defaults and patches.
    """

    max_area: ClassVar[int]  #: pixels of one frame
    max_volume: ClassVar[int]  #: pixels of one frame times frames: what memory holds
    max_frames: ClassVar[int] = 241

    width: int
    height: int
    frames: int
    seconds: float | None
    fps: int
    seed: int | None
    priority: Priority = 3

    def problems(self) -> Iterator[FieldError]:
        """Yield what is wrong between the fields."""
        if self.seconds is not None and "frames" in self.model_fields_set:
            yield FieldError("seconds", "give frames or seconds, not both", "leave one")
            return
        frames = self.length
        if frames > self.max_frames or frames < 5:
            least, most = 5 / self.fps, self.max_frames / self.fps
            yield FieldError(
                "seconds",
                f"{self.seconds:g} s at {self.fps} fps are {frames} frames",
                f"use {least:.2f} to {most:.2f} s at {self.fps} fps",
            )
            return
        area = self.width * self.height
        if error := over_area(self.width, self.height, self.max_area, 32):
            yield error
        elif area * frames > self.max_volume:
            most_frames = nearest_clip_length(self.max_volume // area - 3)
            yield FieldError(
                "frames" if self.seconds is None else "seconds",
                f"{self.width}×{self.height}×{frames} is over the model's budget of"
                f" {self.max_volume:,} pixels",
                f"at this size use at most {most_frames} frames"
                f" ({most_frames / self.fps:.1f} s)",
            )

    def settled(self) -> Self:
        """Return the request with its length in frames and its seed drawn."""
        update = {"frames": self.length, "seconds": None}
        return super().settled().model_copy(update=update)

    @classmethod
    def expected(cls, accepted: Mapping[str, Any]) -> Expected:
        """Return the clip's size, length and pace."""
        return Expected(
            "video",
            width=accepted["width"],
            height=accepted["height"],
            frames=accepted["frames"],
            fps=accepted["fps"],
        )

    @property
    def length(self) -> int:
        """Frames, from `seconds` when that is what was given."""
        if self.seconds is None:
            return self.frames
        return frames_for(self.seconds, self.fps)
