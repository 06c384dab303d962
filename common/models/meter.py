"""
How far a plan of several files is: bytes, rate and time left. Pure; the clock comes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

# Long enough to be steady, short enough to follow a source that changes.
WINDOW_S = 10.0


class Step(StrEnum):
    """What is being done about a file."""

    WAITING = "waiting"  #: another process fetches it
    DOWNLOADING = "downloading"
    COPYING = "copying"  #: from here to a mirror
    VERIFYING = "verifying"  #: a file that was there already is being hashed
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"  #: cut or not begun, as the run was ended


@dataclass(frozen=True)
class Notice:
    """How far one file is."""

    name: str
    step: Step
    done: int = 0  #: bytes
    total: int | None = None  #: bytes; None = the source has not said
    detail: str | None = None  #: the source, the holder, or what went wrong


Tell = Callable[[Notice], None]


@dataclass
class Meter:
    """
    Adds notices up.

    What another process fetches counts: it arrives on this volume, and is waited for.
    The rate counts what arrived while we watched: bytes that lay there already when a
    file was taken up again do not make it look fast. It is ours, or while `waiting`
    the other process's, and never a mixture.
    """

    sizes: dict[str, int] = field(default_factory=dict)  #: of all files of the plan
    latest: dict[str, Notice] = field(default_factory=dict)
    _arrived: int = 0
    _points: deque[tuple[float, int]] = field(default_factory=deque)

    @classmethod
    def of(cls, files: Iterable[tuple[str, int | None]]) -> Meter:
        """Return the meter of a plan: names and sizes, where they are known."""
        return cls(sizes={name: size or 0 for name, size in files})

    def note(self, notice: Notice, at: float) -> None:
        """Take a notice in, seen at `at` seconds of a monotonic clock."""
        before, waited = self.latest.get(notice.name), self.waiting
        over = notice.step in (Step.FAILED, Step.STOPPED)
        if over and before is not None:
            notice = replace(notice, done=before.done)  # what came of it is there
        self.latest[notice.name] = notice
        if self.waiting is not waited:
            self._points.clear()
        if notice.total:
            self.sizes[notice.name] = notice.total
        if before is not None and before.step is notice.step:
            self._arrived += max(0, notice.done - before.done)
        self._points.append((at, self._arrived))
        while self._points and at - self._points[0][0] > WINDOW_S:
            self._points.popleft()

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(
            self.sizes.get(one.name, 0) if one.step is Step.READY else one.done
            for one in self.latest.values()
        )

    @property
    def total(self) -> int:
        """Bytes of the whole plan, as far as sizes are known."""
        return sum(self.sizes.values())

    @property
    def rate(self) -> float | None:
        """Bytes a second over the last seconds; None before anything can be said."""
        if len(self._points) < 2:
            return None
        (since, before), (until, after) = self._points[0], self._points[-1]
        return (after - before) / (until - since) if until > since else None

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate."""
        rate = self.rate
        return round((self.total - self.done) / rate, 1) if rate else None

    @property
    def waiting(self) -> bool:
        """Whether another process does all that is being done."""
        return self.step is Step.WAITING

    @property
    def step(self) -> Step:
        """What the plan is busy with."""
        busy = [one.step for one in self.latest.values()]
        for step in (
            Step.DOWNLOADING,
            Step.COPYING,
            Step.VERIFYING,
            Step.WAITING,
            Step.FAILED,
            Step.STOPPED,
        ):
            if step in busy:
                return step
        return Step.READY
