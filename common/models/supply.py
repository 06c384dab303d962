"""The sources of one file in order: which one is asked now, and when to leave it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from common.models.answers import Absent, Answer, Busy, Odd, Refused
from common.models.errors import AuthNeeded, ModelsError, SourcesFailed
from common.models.limits import Patience
from common.models.sources.address import (
    Address,
    NotThere,
    Source,
    SourceBusy,
    SourceTrouble,
)

#: A signed address is asked for anew when it has less than this left, in seconds.
FRESH_S = 30.0

#: Threads that copy a file of this machine: one reads while the other writes.
LOCAL_LANES = 2


@dataclass(frozen=True)
class Way:
    """Where to ask now. What is said about an older `attempt` changes nothing."""

    label: str
    place: Address | Path
    index: int
    attempt: int


class Supply:
    """
    Hands out the way to the source in use. All threads share one.

    A burst counts once: when sixteen connections break together, each of them reports
    the attempt it had begun with, and only the first report of an attempt is heard.
    """

    def __init__(
        self, sources: Sequence[Source], patience: Patience, lanes: int
    ) -> None:
        self._sources = list(sources)
        self._rates = [inf] * len(sources)  #: bytes a second; inf = not tried yet
        self._put_off: set[int] = set()
        self._patience = patience
        self._most = lanes
        self._lock = threading.Lock()
        self._resolving = threading.Lock()
        self._index = 0
        self._attempt = 0
        self._place: Address | Path | None = None
        self._reasons: list[tuple[str, ModelsError]] = []
        self._not_before = 0.0
        self.lanes = lanes  #: connections that the source bears
        self._begin()

    def _begin(self) -> None:
        self._attempt += 1
        self._place = None
        self._strikes = self._busy = 0
        self._renewed = False
        self._not_before = 0.0
        self.lanes = self._most

    def seconds_to_wait(self) -> float:
        """Return for how long nobody is to ask."""
        with self._lock:
            return max(0.0, self._not_before - time.monotonic())

    def way(self, size: int | None, sha256: str | None) -> Way | None:
        """
        Return where to ask now, None = in a while; resolves the source if need be.

        Sources that fail, or that say themselves that they have another file, are
        passed over.

        Raises:
            AuthNeeded: no source is left, and one of them wanted a token.
            SourcesFailed: no source is left.
        """
        with self._resolving:
            while True:
                with self._lock:
                    if self._index >= len(self._sources):
                        raise self._all_failed()
                    source, attempt = self._sources[self._index], self._attempt
                    if self._place is not None and _fresh(self._place):
                        return Way(source.label, self._place, self._index, attempt)
                try:
                    place = source.resolve()
                    _same(place, size, sha256)
                except SourceBusy as error:
                    if not self._busy_for(attempt, error.status, error.seconds):
                        return None
                    continue
                except SourceTrouble as error:
                    if not self._strike(attempt, error):
                        return None
                    continue
                except ModelsError as error:
                    self._leave(attempt, error)
                    continue
                with self._lock:
                    if attempt != self._attempt:
                        continue  # it was left meanwhile
                    self._place = place
                    if isinstance(place, Path):
                        self.lanes = min(self.lanes, LOCAL_LANES)
                    return Way(source.label, place, self._index, attempt)

    def gained(self, way: Way) -> None:
        """Hear that a block came this way: what failed before is forgiven."""
        if way.index == self._index:
            self._strikes = self._busy = 0
            self._renewed = False

    def heard(self, way: Way, answer: Answer) -> None:
        """Hear an answer that holds no bytes of the file."""
        match answer:
            case Refused(status):
                self.refused(way, status)
            case Absent():
                self.leave(way, NotThere("it does not have the file"))
            case Busy(status, seconds):
                self.busy(way, status, seconds)
            case Odd(why, final=True):
                self.leave(way, SourceTrouble(why))
            case Odd(why):
                self.failed(way, why)

    def refused(self, way: Way, status: int) -> None:
        """Hear of a 401, 403 or 410: resolve anew once, then leave the source."""
        with self._lock:
            if way.attempt != self._attempt:
                return
            if not self._renewed:
                self._renewed = True
                self._attempt += 1
                self._place = None
                return
        hint = "give a token that may read it, or accept the licence on its page"
        error = AuthNeeded(f"refused with {status}, also at a new address", hint)
        self._leave(way.attempt, error)

    def failed(self, way: Way, why: str) -> None:
        """Hear of a broken connection: a strike."""
        self._strike(way.attempt, SourceTrouble(why))

    def _strike(self, attempt: int, error: SourceTrouble) -> bool:
        """Count a failure; say if it was one too many."""
        with self._lock:
            if attempt != self._attempt:
                return False
            self._strikes += 1
            if self._strikes < self._patience.strikes:
                self._attempt += 1
                pause = self._patience.backoff_s * 2 ** (self._strikes - 1)
                self._pause(pause * random.uniform(0.8, 1.2))  # noqa: S311
                return False
        self._leave(attempt, error)
        return True

    def busy(self, way: Way, status: int, seconds: float | None) -> None:
        """Hear of a 429 or a 503: wait as long as it says, with fewer connections."""
        self._busy_for(way.attempt, status, seconds)

    def _busy_for(self, attempt: int, status: int, seconds: float | None) -> bool:
        """Wait, or leave; say if it was left."""
        with self._lock:
            if attempt != self._attempt:
                return False
            self._busy += 1
            pause = self._patience.backoff_s * 2**self._busy
            pause = min(pause, self._patience.busy_s) if seconds is None else seconds
            if pause <= self._patience.busy_s and self._busy <= self._patience.busy:
                self._attempt += 1
                self.lanes = max(1, self.lanes // 2)
                self._pause(pause * random.uniform(1.0, 1.1))  # noqa: S311
                return False
        why = f"too busy: it answered {status} and asks to wait {pause:.0f} s"
        hint = "ask again later; a token (HF_TOKEN) or a mirror of your own helps"
        self._leave(attempt, SourceTrouble(why, hint))
        return True

    def single(self, way: Way) -> None:
        """Hear that the source knows no ranges: one connection is all it can serve."""
        with self._lock:
            if way.attempt == self._attempt:
                self.lanes = 1

    def leave(self, way: Way, error: ModelsError) -> None:
        """Hear that asking this source again is of no use."""
        self._leave(way.attempt, error, way.index)

    @property
    def index(self) -> int:
        """Which source is asked now, as ways say it."""
        return self._index

    def slow(self, index: int, rate: float) -> bool:
        """
        Hear a source's bytes a second; put it off if another may do better.

        One that was never tried may, and so may one that was known to bring far more.
        Who is put off comes last, before nobody: a sole slow source goes on for ever.

        Returns:
            Whether it was put off.
        """
        with self._lock:
            if index != self._index:
                return False
            rest = self._rates[index + 1 :]
            known = max((found for found in rest if found < inf), default=0.0)
            untried = inf in rest and rate < self._patience.least_rate
            if not untried and known <= rate * self._patience.better:
                return False
            self._sources.append(self._sources[index])
            self._rates.append(rate)
            # Those never tried in their order, then the fastest first.
            order = list(range(index + 1, len(self._sources)))
            order.sort(key=lambda one: -self._rates[one])
            self._sources[index + 1 :] = [self._sources[one] for one in order]
            self._rates[index + 1 :] = [self._rates[one] for one in order]
            self._put_off.add(index)
            self._index += 1
            self._begin()
            return True

    def is_put_off(self, way: Way) -> bool:
        """Say if a way is slow, and another is asked by now."""
        return way.index in self._put_off

    def others_left(self) -> bool:
        """Say if another source could be asked after this one."""
        return self._index + 1 < len(self._sources)

    def _leave(
        self, attempt: int, error: ModelsError, index: int | None = None
    ) -> None:
        with self._lock:
            if attempt != self._attempt and index != self._index:
                return
            self._reasons.append((self._sources[self._index].label, error))
            self._index += 1
            self._begin()

    def _pause(self, seconds: float) -> None:
        self._not_before = time.monotonic() + seconds

    def _all_failed(self) -> ModelsError:
        why = "; ".join(_reason(label, error) for label, error in self._reasons)
        auth = [e for _, e in self._reasons if isinstance(e, AuthNeeded)]
        if auth:
            return AuthNeeded(why, auth[0].hint)
        hint = next((error.hint for _, error in self._reasons if error.hint), "")
        hint = hint or "ask again later, or name another source or a mirror"
        hint = f"{hint}; what came so far is kept"
        return SourcesFailed(why or "it has no source", hint)


def _reason(label: str, error: ModelsError) -> str:
    """Return why a source was left, with its label once."""
    known = error.message.startswith(label)
    return error.message if known else f"{label}: {error.message}"


def _fresh(place: Address | Path) -> bool:
    if isinstance(place, Path) or place.expires_at is None:
        return True
    return place.expires_at - time.time() > FRESH_S


def _same(place: Address | Path, size: int | None, sha256: str | None) -> None:
    """Refuse a source that says itself that it has another file."""
    said = size_of(place)
    if None not in (said, size) and said != size:
        raise NotThere(f"its file has {said} bytes, not {size}")
    known = None if isinstance(place, Path) else place.sha256
    if None not in (known, sha256) and known != sha256:
        raise NotThere(f"its file has another sha256, {known}")


def size_of(place: Address | Path) -> int | None:
    """Return the bytes of a file as its source states them."""
    if isinstance(place, Address):
        return place.size
    try:
        return place.stat().st_size
    except OSError as error:
        raise NotThere(f"no file to read: {error.strerror}") from error
