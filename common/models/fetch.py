"""
`fetch`: one file from its sources, hashed on the way, resumed after whatever ended it.

It takes ranges over several connections, checks each segment whose hash is known, and
goes on with the next source where one fails. What comes is in `staging`, for whoever
calls to publish, to quarantine, or to go on with later.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.models.answers import Ranged, Whole
from common.models.carrier import AnotherFile, Network, Unreachable, marked
from common.models.errors import BadManifest, Corrupt, Stopped
from common.models.limits import FetchLimits
from common.models.line import Line
from common.models.sources.address import NotThere, Source, SourceTrouble
from common.models.staging import JOURNAL, Identity, Staging, claimed_bytes, stated
from common.models.supply import Supply, Way, size_of
from common.models.transfer import Transfer

__all__ = [
    "FetchLimits",
    "Fetched",
    "Goal",
    "WrongBytes",
    "fetch",
]


@dataclass(frozen=True)
class Goal:
    """The file that is wanted."""

    name: str  #: for messages
    size: int | None  #: bytes; None = what the first source states
    sha256: str | None  #: lower-case hex; None = likewise, if it states one
    segments: tuple[str, ...] = ()  #: hash of each 64 MiB, if known


@dataclass(frozen=True)
class Fetched:
    """A file that is whole, and is what the goal says."""

    path: Path
    size: int
    sha256: str
    segments: tuple[str, ...]  #: hash of each 64 MiB; () = not known
    sources: Mapping[str, int]  #: bytes by the label of who gave them
    kept: int = 0  #: bytes of it that lay there already


class WrongBytes(Corrupt):
    """
    The whole file came, and it is another.

    `given` says which bytes each source gave: label -> [(first, last + 1)].
    """

    def __init__(
        self, goal: Goal, found: str, given: Mapping[str, list[tuple[int, int]]]
    ) -> None:
        who = ", ".join(given)
        super().__init__(
            f"{goal.name}: sha256 is {found}, not {goal.sha256}; it came from {who}",
            "'wan models validate --online' says if its publisher replaced it; else"
            " name another source",
        )
        self.sha256 = found
        self.given = given


def fetch(
    goal: Goal,
    sources: Sequence[Source],
    staging: Path,
    *,
    notice: Callable[[int, int | None], None],
    stop: threading.Event,
    limits: FetchLimits | None = None,
    reserve: Callable[[int, int], None] | None = None,
) -> Fetched:
    """
    Bring a file into `staging / "data"` and return what it is.

    Nothing is flushed to the disk at the end: that is for who publishes it.

    Args:
        goal: the file.
        sources: whom to ask, in this order.
        staging: a folder of this file's own; what an earlier call left is taken up.
        notice: told the bytes that are there and the size, ten times a second at most,
            and at the start and the end; what an earlier call left counts from the
            start, so that what is told grows by what comes.
        stop: ends the call within a moment.
        limits: how to move it.
        reserve: called with a descriptor of the file and its size.

    Raises:
        WrongBytes: all came and the sha256 is another.
        Corrupt: a segment came wrong from the last source, twice.
        NoSpace: the volume is full.
        AuthNeeded, SourcesFailed: no source is left.
        Stopped: `stop` was set.
    """
    limits = limits or FetchLimits()
    supply = Supply(sources, limits.patience, limits.connections)
    anew: set[str] = set()
    while True:
        try:
            return _fetch(goal, supply, staging, notice, stop, limits, reserve, anew)
        except AnotherFile as other:
            # A farm's nodes may mark one file differently: one answer has one mark.
            if other.way.label in anew:
                why = "it has another file each time it is asked"
                supply.leave(other.way, SourceTrouble(why))
            anew.add(other.way.label)
            (staging / JOURNAL).unlink(missing_ok=True)


def _fetch(
    goal: Goal,
    supply: Supply,
    staging: Path,
    notice: Callable[[int, int | None], None],
    stop: threading.Event,
    limits: FetchLimits,
    reserve: Callable[[int, int], None] | None,
    anew: Collection[str],
) -> Fetched:
    """Bring it; where it was begun `anew`, with as few answers as can be."""
    identity = _identity(goal, supply, staging, stop, limits)
    if anew and identity.sha256 is None:
        identity = replace(identity, mark=None)  # the first answer will say
        whole = identity.size + limits.block
        limits = replace(limits, connections=1, ask_least=whole, ask_most=whole)
    kept = claimed_bytes(staging) if stated(staging) == identity else 0

    def told(done: int, size: int | None) -> None:
        notice(max(done, kept), size)

    told(kept, identity.size)
    if goal.segments and len(goal.segments) != -(-identity.size // limits.segment):
        raise BadManifest(
            f"{goal.name}: {len(goal.segments)} segments for {identity.size} bytes"
        )
    with Staging(staging, identity, limits.block) as partial:
        if reserve is not None:
            reserve(partial.fileno(), identity.size)
        transfer = Transfer(goal.name, partial, supply, goal.segments, limits)
        found, segments = transfer.run(told, stop)
        given = _given(partial)
    if identity.sha256 is not None and found != identity.sha256:
        raise WrongBytes(replace(goal, sha256=identity.sha256), found, given)
    by_source = {
        label: sum(end - start for start, end in ranges)
        for label, ranges in given.items()
    }
    return Fetched(partial.path, identity.size, found, segments, by_source, kept)


def _identity(
    goal: Goal,
    supply: Supply,
    staging: Path,
    stop: threading.Event,
    limits: FetchLimits,
) -> Identity:
    """Say what file it is: as the goal states, else as the first source does."""
    if goal.size is not None and goal.sha256 is not None:
        return Identity(goal.size, goal.sha256)
    while True:
        if stop.wait(supply.seconds_to_wait()):
            raise Stopped(f"{goal.name}: stopped")
        way = supply.way(goal.size, goal.sha256)
        if way is None:
            continue
        sha256 = goal.sha256 or getattr(way.place, "sha256", None)
        size = goal.size if goal.size is not None else size_of(way.place)
        if size and sha256 is not None:
            return Identity(size, sha256)
        found = (0, "") if size == 0 else _asked(way, supply, limits)
        if found is None:
            continue
        size, mark = found
        if not size:  # no weights are empty, and nobody says that these are
            supply.leave(way, SourceTrouble("its file is empty"))
            continue
        if goal.size not in (None, size):
            why = f"its file has {size} bytes, not {goal.size}"
            supply.leave(way, NotThere(why))
            continue
        before = stated(staging)
        if before is not None and before.size == size and before.sha256 and not sha256:
            return before
        return Identity(size, sha256, None if sha256 else mark)


def _asked(way: Way, supply: Supply, limits: FetchLimits) -> tuple[int, str] | None:
    """Return a source's size and mark of the file, by asking for one byte."""
    line = Line(limits.connect_s, limits.stall_s)
    try:
        with Network():
            if isinstance(way.place, Path):
                there = way.place.stat().st_size
                return there, marked(way.label, way.place)
            answer = line.ask(way.place, 0, 1)
    except Unreachable as trouble:
        supply.failed(way, trouble.why)
        return None
    finally:
        line.close()
    match answer:
        case Ranged(total, mark) | Whole(int(total), mark):
            return total, marked(way.label, mark)
        case Whole():
            supply.leave(way, SourceTrouble("it does not say how large its file is"))
        case _:
            supply.heard(way, answer)
    return None


def _given(staging: Staging) -> dict[str, list[tuple[int, int]]]:
    """Return the ranges that each source gave."""
    given: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for block in sorted(staging.written):
        ranges = given[staging.written[block].label]
        offset, length = staging.extent(block)
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = (ranges[-1][0], offset + length)
        else:
            ranges.append((offset, offset + length))
    return dict(given)
