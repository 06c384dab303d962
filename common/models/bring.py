"""
Bring one file: whoever asks, it is fetched once, and its name appears when it is whole.

Under the file's lease it is looked at again, since another process may have brought it;
then its bytes are adopted where they lie already, salvaged where they are damaged, and
fetched where they are not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.manifest_schema import WeightFile
from common.models.errors import (
    AuthNeeded,
    Corrupt,
    ModelsError,
    SourcesFailed,
    Stopped,
)
from common.models.fetch import Fetched, FetchLimits, Goal, WrongBytes, fetch
from common.models.halt import Halt
from common.models.layers import Found, Layers, State
from common.models.leases import SETTINGS, Holder, LeaseSettings, lease
from common.models.lock import Lock, Pinned
from common.models.meter import Notice, Step
from common.models.publish import adopt, publish, relink
from common.models.quarantine import quarantine
from common.models.salvage import LABEL, salvage
from common.models.sources import SourceConfig, sources_of
from common.models.sources.address import NotThere, Source, SourceTrouble
from common.models.space import reserve
from common.models.staging import Identity

Tell = Callable[[Notice], None]


@dataclass(frozen=True)
class Result:
    """What became of one file."""

    file: WeightFile
    path: Path | None = None  #: ComfyUI's file; None = it is not there
    error: ModelsError | None = None
    fetched_bytes: int = 0  #: 0 = it was there
    seconds: float = 0.0
    sources: Mapping[str, int] = field(default_factory=dict)  #: bytes by label


@dataclass(frozen=True)
class Bringer:
    """
    Brings files into the writable layer.

    Raises of `bring`: ModelsError of any kind, for that file.
    """

    layers: Layers
    locks: tuple[Path, ...]  #: models.lock, read in this order; the last is written
    sources: SourceConfig
    aria2: bool = False  #: ask aria2c where it suits, before our own transport
    limits: FetchLimits = field(default_factory=FetchLimits)
    leases: LeaseSettings = SETTINGS

    def pinned(self, file: WeightFile) -> Pinned | None:
        """Return what a file was recorded as."""
        return Lock.load(*self.locks).of(file)

    def find(self, file: WeightFile, pinned: Pinned | None) -> Found:
        """Return what is there of a file, without reading it all."""
        return self.layers.find(file, pinned)

    def bring(self, file: WeightFile, tell: Tell, stop: threading.Event) -> Result:
        """Return the result once the file is there; the class says what is raised."""
        began = time.monotonic()
        halt = Halt(stop)

        def waiting(holder: Holder | None) -> None:
            if holder is not None:
                total = holder.total or file.size
                note = Notice(file.path, Step.WAITING, holder.done, total, str(holder))
                tell(note)

        layer = self.layers.writable
        with lease(
            layer, file.key, stop=halt, waiting=waiting, settings=self.leases
        ) as held:

            def notice(step: Step) -> Callable[[int, int | None], None]:
                def said(done: int, total: int | None) -> None:
                    held.progress(done, total)
                    tell(Notice(file.path, step, done, total))

                return said

            result = self._bring(file, notice, halt)
            if held.lost is not None:
                raise Stopped(f"{file.name}: another process took it over")
        tell(Notice(file.path, Step.READY, file.size or 0, file.size))
        path, given = result
        came = sum(size for label, size in given.items() if label != LABEL)
        return Result(file, path, None, came, time.monotonic() - began, given)

    def _bring(
        self,
        file: WeightFile,
        notice: Callable[[Step], Callable[[int, int | None], None]],
        halt: Halt,
    ) -> tuple[Path, Mapping[str, int]]:
        """Return the file, and the bytes that each source gave."""
        pinned = self.pinned(file)
        known = as_known(file, pinned)
        found = self.find(file, pinned)
        if found.state is State.VERIFIED and found.path is not None:
            return found.path, {}
        if found.state is State.UNLINKED and found.sha256 is not None:
            return relink(self.layers.writable, file, found.sha256), {}
        if found.state in (State.UNVERIFIED, State.STALE):
            adopted = self._adopt(file, known, found, notice(Step.VERIFYING), halt)
            if adopted is not None:
                return adopted, {}
        if found.path is not None and found.layer is self.layers.writable:
            self._set_aside(known, found, pinned)
        fetched = self._fetch(known, pinned, notice(Step.DOWNLOADING), halt)
        path = publish(self.layers.writable, known, fetched)
        self._record(file, fetched.size, fetched.sha256, fetched.segments)
        return path, fetched.sources

    def _adopt(
        self,
        file: WeightFile,
        known: WeightFile,
        found: Found,
        notice: Callable[[int, int | None], None],
        halt: Halt,
    ) -> Path | None:
        """Hash what somebody put there; None = it is not the file."""
        path, layer = found.path, self.layers.writable
        if path is None:
            return None
        if found.layer is not layer:
            return path  # a lower layer cannot be written; its size and header fit
        try:
            adopted = adopt(layer, known, path, progress=notice, stop=halt)
        except Corrupt:
            return None
        now = self.layers.find(known)
        if file.unverified and now.sha256 is None:
            raise Corrupt(f"{file.name} changed while it was adopted")
        if now.sha256 is not None:
            self._record(file, now.bytes, now.sha256, ())
        return adopted

    def _set_aside(
        self, known: WeightFile, found: Found, pinned: Pinned | None
    ) -> None:
        """Move a wrong file away, and keep what of it is good."""
        layer, path = self.layers.writable, found.path
        if path is None or not path.is_file():
            return
        if pinned is not None and pinned.segments:
            salvage(
                path,
                layer.staging(known.key),
                Identity(pinned.size, pinned.sha256),
                pinned.segments,
                self.limits.segment,
            )
        if layer.mode == "store" and known.sha256 is not None:
            blob = layer.blob(known.sha256)
            if blob.exists() and blob.samefile(path):
                quarantine(layer, known, blob, found.reason or "it is damaged")
        quarantine(layer, known, path, found.reason or "it is damaged", foreign=True)

    def _fetch(
        self,
        known: WeightFile,
        pinned: Pinned | None,
        notice: Callable[[int, int | None], None],
        halt: Halt,
    ) -> Fetched:
        """Fetch; bytes that turn out wrong are quarantined and come once more."""
        sources = sources_of(known, self.sources)
        goal = Goal(known.path, known.size, known.sha256)
        if pinned is not None:
            goal = Goal(known.path, known.size, known.sha256, pinned.segments)
        staging = self.layers.writable.staging(known.key)

        def once(asked: list[Source]) -> Fetched:
            if self.aria2 and goal.size is not None and goal.sha256 is not None:
                with suppress(SourcesFailed, SourceTrouble, NotThere, AuthNeeded):
                    return self._by_aria2(goal, asked[0], staging, notice, halt)
            return fetch(
                goal,
                asked,
                staging,
                notice=notice,
                stop=halt,
                limits=self.limits,
                reserve=reserve,
            )

        try:
            return once(sources)
        except WrongBytes as error:
            layer = self.layers.writable
            reason, given = error.message, error.given
            quarantine(layer, known, staging / "data", reason, given)
            (staging / "journal").unlink(missing_ok=True)
            # Who gave wrong bytes is asked last.
            return once(sorted(sources, key=lambda one: one.label in given))
        except Corrupt as error:
            if known.unverified and pinned is not None:
                raise Corrupt(
                    f"{known.path} is not what was fetched before: {error.message}",
                    "if its publisher replaced it, and you trust that, remove"
                    f' "{known.path}" from {self.locks[-1].name}',
                ) from error
            raise

    @staticmethod
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
        return fetch_by_aria2(
            goal, place, source.label, staging, notice=notice, stop=halt
        )

    def _record(
        self, file: WeightFile, size: int, sha256: str, segments: tuple[str, ...]
    ) -> None:
        Lock.load(*self.locks).record(file, size, sha256, segments)


def as_known(file: WeightFile, pinned: Pinned | None) -> WeightFile:
    """Return a file with what models.lock says of it filled in."""
    if pinned is None or file.sha256 is not None:
        return file
    return file.model_copy(update={"size": pinned.size, "sha256": pinned.sha256})
