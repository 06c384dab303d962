"""
Obtain one file's bytes into staging, hashed: from its sources, perhaps by aria2c,
perhaps by way of a disk of this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from common.manifest_schema import WeightFile
from common.models.detour import by_way_of
from common.models.errors import AuthNeeded, ModelsError, NoSpace, SourcesFailed
from common.models.fetch import Fetched, FetchLimits, Goal, WrongBytes, fetch
from common.models.halt import Halt
from common.models.layer import ROOM, Layer
from common.models.lock import Pinned
from common.models.meter import Step
from common.models.quarantine import only_last, quarantine
from common.models.sources import SourceConfig, sources_of
from common.models.sources.address import NotThere, Source, SourceTrouble
from common.models.space import reserve
from common.models.staging import ARIA2, claimed_bytes

Notice = Callable[[Step], Callable[[int, int | None], None]]


@dataclass(frozen=True)
class Obtainer:
    """Fetches for one layer."""

    layer: Layer
    sources: SourceConfig
    aria2: bool  #: ask aria2c where it suits, before our own transport
    limits: FetchLimits
    disk: Path | None  #: of this machine; files come there first

    def obtain(
        self, known: WeightFile, pinned: Pinned | None, notice: Notice, halt: Halt
    ) -> Fetched:
        """
        Fetch a file; bytes that turn out wrong are quarantined and come once more.

        Raises:
            ModelsError: as `fetch`; what came is kept.
        """
        staging, disk = self.layer.staging(known.key), self._disk(known)
        try:
            return self._obtain(known, pinned, staging, disk, notice, halt)
        except ModelsError:
            for folder in filter(None, (staging, disk)):
                _let_go(folder)
            raise

    def _obtain(
        self,
        known: WeightFile,
        pinned: Pinned | None,
        staging: Path,
        disk: Path | None,
        notice: Notice,
        halt: Halt,
    ) -> Fetched:
        sources = sources_of(known, self.sources)
        segments = () if pinned is None else pinned.segments
        goal = Goal(known.path, known.size, known.sha256, segments)

        def once(asked: list[Source]) -> Fetched:
            if disk is None:
                return self._fetch(goal, asked, staging, notice, halt)
            return by_way_of(
                disk,
                lambda want, ask, to: self._fetch(want, ask, to, notice, halt),
                lambda want, ask, to: self._copy(want, ask, to, notice, halt),
                goal,
                asked,
                staging,
            )

        try:
            return once(sources)
        except WrongBytes as error:
            if disk is not None:
                shutil.rmtree(disk, ignore_errors=True)
            if (staging / "data").exists():
                data = staging / "data"
                quarantine(self.layer, known, data, error.message, error.given)
                only_last(self.layer, known)
            (staging / "journal").unlink(missing_ok=True)
            given = error.given  # who gave wrong bytes is asked last
            return once(sorted(sources, key=lambda one: one.label in given))
        except NoSpace as error:
            if disk is not None:
                raise
            hint = f"{ROOM}; what came is kept"
            raise NoSpace(
                f"{self.layer.root} is full: {error.message}", hint
            ) from error
        except SourcesFailed as error:
            if self.sources.offline:
                raise SourcesFailed(
                    f"{error.message}; nobody else was asked: HF_HUB_OFFLINE is set",
                    "unset it, or bring the file to a local:// source or mirror",
                ) from error
            raise

    def _disk(self, known: WeightFile) -> Path | None:
        """Return the folder that a file comes to first, for this volume's sake."""
        if self.disk is None:
            return None
        return self.disk / f"wan-{self.layer.id[:8]}" / known.key

    def _fetch(
        self, goal: Goal, asked: list[Source], to: Path, notice: Notice, halt: Halt
    ) -> Fetched:
        told = notice(Step.DOWNLOADING)
        if asked and self.aria2 and None not in (goal.size, goal.sha256):
            with suppress(SourcesFailed, SourceTrouble, NotThere, AuthNeeded):
                return _by_aria2(goal, asked[0], to, told, halt)
        return fetch(
            goal,
            asked,
            to,
            notice=told,
            stop=halt,
            limits=self.limits,
            reserve=reserve,
        )

    def _copy(
        self, goal: Goal, asked: list[Source], to: Path, notice: Notice, halt: Halt
    ) -> Fetched:
        return fetch(
            goal,
            asked,
            to,
            notice=notice(Step.COPYING),
            stop=halt,
            limits=replace(self.limits, connections=1),
            reserve=reserve,
        )


def _let_go(staging: Path) -> None:
    """Give up the room that was reserved for a file of which nothing came."""
    if claimed_bytes(staging) == 0 and not (staging / ARIA2).exists():
        shutil.rmtree(staging, ignore_errors=True)


def _by_aria2(
    goal: Goal,
    source: Source,
    staging: Path,
    notice: Callable[[int, int | None], None],
    halt: Halt,
) -> Fetched:
    """
    Have aria2c bring the file.

    Raises:
        SourcesFailed: it gave up, or this is not for it.
        ModelsError: as `fetch_by_aria2` and `resolve` say.
    """
    from common.models.aria2 import fetch_by_aria2, suits

    place = source.resolve()
    if not suits(place, staging) or isinstance(place, Path):
        raise SourcesFailed(f"aria2c does not suit {source.label}")
    return fetch_by_aria2(goal, place, source.label, staging, notice=notice, stop=halt)
