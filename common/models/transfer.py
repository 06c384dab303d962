"""Moving one file into its staging: the threads, and who watches them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from common.models.assembly import Assembly
from common.models.carrier import Carrier
from common.models.errors import Corrupt, Stopped
from common.models.limits import FetchLimits
from common.models.space import start_writing
from common.models.staging import Staging
from common.models.supply import Supply
from common.models.tempo import Tempo
from common.models.watermark import Hasher

#: How long threads are waited for that hang in a look-up of a name; they end by
#: themselves, and write nothing.
_JOIN_S = 1.0

#: Seconds over which a rate is measured, and for which a verdict about it stands.
_WINDOW_S, _STEADY_S = 0.2, 5.0

#: How much more the added connections must bring to be kept.
_GAIN = 1.1


class Transfer:
    """One run of `fetch`: carriers bring pieces, hashers follow, `run` watches."""

    def __init__(
        self,
        name: str,
        staging: Staging,
        supply: Supply,
        segments: tuple[str, ...],
        limits: FetchLimits,
    ) -> None:
        assembly = Assembly(name, staging, supply, segments, limits)
        self._assembly = assembly
        self._hasher = Hasher(assembly.watermark, assembly.size, staging.read)
        self._carriers: list[Carrier] = []
        self._tempo = Tempo(limits.patience.slow_s)
        self._since: tuple[float, int] | None = None
        self._rate = self._pause_until = self._late = 0.0
        self._before = 0

    def run(
        self, notice: Callable[[int, int | None], None], stop: threading.Event
    ) -> tuple[str, tuple[str, ...]]:
        """
        Move the file and return the sha256 of it all and the xxh3 of each segment.

        Raises:
            ModelsError: why it did not come; what came is in the staging.
        """
        assembly, hasher = self._assembly, self._hasher
        check = threading.Thread(target=assembly.check_journal, daemon=True)
        hasher.start()
        check.start()
        said, at, begun = -1, 0.0, 0
        try:
            while not hasher.complete:
                if stop.is_set():
                    raise Stopped(f"{assembly.name}: stopped; what came is kept")
                if assembly.error is not None:
                    raise assembly.error
                if hasher.failed:
                    raise Corrupt(f"{assembly.name}: the file changed under our hands")
                self._grow()
                self._leave_slow()
                begun = self._write_out(begun)
                done = assembly.progress()
                if done != said and time.monotonic() - at >= 0.1:
                    said, at = done, time.monotonic()
                    notice(done, assembly.size)
                if assembly.rest(0.05):
                    hasher.join(0.05)
        finally:
            assembly.end()
            for carrier in self._carriers:
                carrier.hang_up()
            for thread in (hasher, check):
                thread.join()
            deadline = time.monotonic() + _JOIN_S
            for carrier in self._carriers:
                carrier.join(max(0.0, deadline - time.monotonic()))
        notice(assembly.size, assembly.size)
        return hasher.sha256, assembly.segments()

    def _grow(self) -> None:
        """
        Have four times the carriers as long as that brings more, and no further.

        Connections that the other side caps bring more when there are more. Those
        that this machine's processor limits do not, and each one costs.
        """
        limits, count = self._assembly.limits, self._assembly.lanes
        now, progress = time.monotonic(), self._assembly.progress()
        # At the most there may still be a verdict to give on the last step.
        if now < self._pause_until or (count >= limits.connections and not self._rate):
            return
        if count and self._since is None:
            # A new connection counts from its first block: it has to be made first.
            if all(carrier.brought for carrier in self._carriers) or now > self._late:
                self._since = now, progress
            return
        if self._since is not None:
            at, there = self._since
            if now - at < _WINDOW_S:
                return
            before, self._rate = self._rate, (progress - there) / (now - at)
            self._since = None
            in_vain = self._rate < _GAIN * before
            if in_vain or self._rate > count * limits.uncapped:
                self._assembly.lanes = self._before if in_vain else count
                self._rate, self._pause_until = 0.0, now + _STEADY_S
                return
        self._before, self._late = count, now + _STEADY_S
        self._assembly.lanes = min(max(1, 4 * count), limits.connections)
        while len(self._carriers) < self._assembly.lanes:
            self._carriers.append(Carrier(self._assembly))
            self._carriers[-1].start()

    def _leave_slow(self) -> None:
        """Have another source asked where one brings next to nothing."""
        supply = self._assembly.supply
        index = supply.index
        waiting = any(carrier.waits == index for carrier in self._carriers)
        came = sum(carrier.came for carrier in self._carriers)
        rate = self._tempo.note(index, came, time.monotonic(), waiting=waiting)
        if rate is not None and supply.slow(index, rate):
            for carrier in self._carriers:
                carrier.turn_from(index)

    def _write_out(self, begun: int) -> int:
        """Have the disk begin with what came since; return up to where it has."""
        assembly = self._assembly
        there = assembly.watermark.bytes
        if there - begun < assembly.limits.write_out:
            return begun
        start_writing(assembly.staging.fileno(), begun, there - begun)
        return there
