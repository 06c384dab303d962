"""
Arithmetic of talking clips: windows of frames, and what each of them hears.

Pure. A talking model makes one window of frames at a time. The next window begins with
the last `motion` frames of the one before, and they are cut off again; so a clip may be
as long as its sound, and memory on the card is that of one window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: The model's own pace: lips keep time with the sound at no other one.
FPS = 25
#: The longest clip, and recording.
MAX_SECONDS = 600
#: Frames of a whole window. Source: default of `WanInfiniteTalkToVideo` in ComfyUI.
WINDOW = 81
#: Seconds of sound after a window, so that the encoder hears words to their end.
AHEAD_S = 1.0
#: Seconds that are too few for the encoder; it takes 25 ms for each of its steps.
CROSSING_S = 0.1
#: Seconds of a piece of sound that is there for the form only.
FILLER_S = 1.0


@dataclass(frozen=True)
class Window:
    """One run of the sampler."""

    start: int  #: first frame, counted in the clip
    length: int  #: frames that are made, 4n + 1
    skip: int  #: frames at its start that repeat the window before
    keep: int  #: frames after those that go into the clip

    @property
    def heard_from(self) -> int:
        """
        The frame at which its sound begins: where the window before it began.

        The node counts the sound from the first of the frames that it continues.
        """
        return 0 if not self.skip else self.start - (WINDOW - self.skip)

    @property
    def heard_s(self) -> float:
        """Seconds of sound that it is given."""
        return (self.start + self.length - self.heard_from) / FPS + AHEAD_S


def frames_of(seconds: float) -> int:
    """
    Return how many frames a recording lasts.

    >>> frames_of(1.0), frames_of(1.01)
    (25, 26)
    """
    return math.ceil(round(seconds * FPS, 3))


def windows(frames: int, motion: int) -> list[Window]:
    """
    Return the windows of a clip; each but the last is `WINDOW` frames long.

    >>> [(w.start, w.length, w.skip, w.keep) for w in windows(100, 9)]
    [(0, 81, 0, 81), (72, 29, 9, 19)]
    """
    found = [Window(0, min(WINDOW, _whole(frames)), 0, min(WINDOW, frames))]
    made = found[0].keep
    while made < frames:
        keep = min(WINDOW - motion, frames - made)
        found.append(Window(made - motion, _whole(motion + keep), motion, keep))
        made += keep
    return found


def _whole(frames: int) -> int:
    """Return the next 4n + 1."""
    return -(-(frames - 1) // 4) * 4 + 1


@dataclass(frozen=True)
class Piece:
    """A part of one speaker's recording."""

    speaker: int  #: 0 or 1
    start_s: float
    duration_s: float


def turns(start_s: float, end_s: float, first_s: float) -> tuple[Piece, Piece]:
    """
    Return what is heard of two speakers, one after the other, between two moments.

    `first_s` is when the first one ends. The node lays its two sounds end to end: who
    is heard first goes first. Who is not heard at all follows with a piece of a second,
    which lies after the window.

    >>> [p.speaker for p in turns(0, 4, 9)], [p.speaker for p in turns(10, 14, 9)]
    ([0, 1], [1, 0])
    """
    if start_s >= first_s - CROSSING_S:
        after = max(0.0, start_s - first_s)
        heard = Piece(1, _cs(after), _cs(end_s - start_s))
        return heard, Piece(0, 0.0, FILLER_S)
    heard = Piece(0, start_s, _cs(min(end_s, first_s) - start_s))
    return heard, Piece(1, 0.0, _cs(max(end_s - first_s, FILLER_S)))


def _cs(seconds: float) -> float:
    """Round to the node's own step, a hundredth of a second."""
    return round(seconds, 2)
