"""
Bring one file: whoever asks, it is fetched once, and its name appears when it is whole.

Under the file's lease it is looked at again, since another process may have brought it;
then its bytes are adopted where they lie already, salvaged where they are damaged, and
fetched where they are not.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.manifest_schema import WeightFile
from common.models import receipts
from common.models.access import may, whose
from common.models.errors import Corrupt, ModelsError, ReadOnly, Stopped
from common.models.fetch import Fetched, FetchLimits, WrongBytes
from common.models.halt import Halt
from common.models.layers import Found, Layers, State
from common.models.leases import SETTINGS, Holder, LeaseSettings, lease
from common.models.lock import Lock, Pinned, as_known
from common.models.meter import Notice, Step, Tell
from common.models.obtain import Obtainer
from common.models.publish import CannotLink, adopt, publish, relink
from common.models.quarantine import quarantine
from common.models.salvage import salvage
from common.models.sources import SourceConfig, sources_of
from common.models.sources.address import NotThere
from common.models.sources.hf_cache import HubCache
from common.models.staging import Identity


@dataclass(frozen=True)
class Result:
    """What became of one file."""

    file: WeightFile
    path: Path | None = None  #: ComfyUI's file; None = it is not there
    error: ModelsError | None = None
    fetched_bytes: int = 0  #: 0 = it was there
    seconds: float = 0.0
    sources: Mapping[str, int] = field(default_factory=dict)  #: bytes by label
    aside: Path | None = None  #: where a wrong file lies that had its name


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
    disk: Path | None = None  #: of this machine; files come there first

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
        key = as_known(file, Lock.load(*self.locks).of(file)).key
        with lease(
            layer, key, stop=halt, waiting=waiting, settings=self.leases
        ) as held:

            def notice(step: Step) -> Callable[[int, int | None], None]:
                def said(done: int, total: int | None) -> None:
                    held.progress(done, total)
                    tell(Notice(file.path, step, done, total))

                return said

            try:
                result = self._bring(file, notice, halt)
            except OSError as error:  # of one file; the others may come
                words = f"{error.filename or layer.root}: {error.strerror or error}"
                raise ModelsError(
                    words, "run it again; look after the volume"
                ) from error
            assert result.path is not None
            if held.lost is not None:
                raise Stopped(f"{file.name}: another process took it over")
        size = result.path.stat().st_size
        tell(Notice(file.path, Step.READY, size, size))
        return replace(result, seconds=time.monotonic() - began)

    def _bring(
        self,
        file: WeightFile,
        notice: Callable[[Step], Callable[[int, int | None], None]],
        halt: Halt,
    ) -> Result:
        """Return the file, and the bytes that each source gave."""
        pinned = Lock.load(*self.locks).of(file)
        known = as_known(file, pinned)
        found = self.layers.find(file, pinned)
        if found.state is State.VERIFIED and found.path is not None:
            return Result(file, found.path)
        if found.state is State.UNLINKED and found.sha256 is not None:
            return Result(file, relink(self.layers.writable, file, found.sha256))
        if found.state in (State.UNVERIFIED, State.STALE):
            adopted = self._adopt(file, known, found, notice(Step.VERIFYING), halt)
            if adopted is not None:
                return Result(file, adopted)
        aside = None
        if found.path is not None and found.layer is self.layers.writable:
            aside = self._set_aside(known, found, pinned)
        linked = self._link(known, notice(Step.VERIFYING), halt)
        if linked is not None:
            return Result(file, linked, aside=aside)
        fetched = self._fetch(known, pinned, notice, halt)
        path = publish(self.layers.writable, known, fetched)
        self._record(file, fetched.size, fetched.sha256, fetched.segments)
        came = fetched.size - fetched.kept
        return Result(file, path, None, came, 0.0, fetched.sources, aside)

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
            # A lower layer cannot be written: it must do as it is.
            return path if found.usable else None
        try:
            adopted = adopt(layer, known, path, progress=notice, stop=halt)
        except (Corrupt, OSError):  # a disk that goes bad says it in its own words
            return None
        mine = receipts.owner(layer, adopted)
        if mine is None:
            raise Corrupt(f"{file.name} changed while it was adopted")
        self._record(file, mine.size, mine.sha256, ())
        return adopted

    def cached(self, known: WeightFile) -> Path | None:
        """Return a file of a Hugging Face cache that needs a link only, and no room."""
        layer = self.layers.writable
        # What an image dates alike must not be somebody else's file.
        if known.sha256 is None or layer.mtime_s is not None:
            return None
        for source in sources_of(known, self.sources):
            if isinstance(source, HubCache):
                with suppress(NotThere, OSError):
                    path = source.resolve()
                    found, root = path.stat(), layer.root.stat()
                    if (found.st_dev, found.st_size) == (root.st_dev, known.size):
                        return path
        return None

    def _link(
        self,
        known: WeightFile,
        notice: Callable[[int, int | None], None],
        halt: Halt,
    ) -> Path | None:
        """Take a file over from a cache on the same volume; None = there is none."""
        path = self.cached(known)
        if path is not None:
            with suppress(CannotLink, Corrupt):
                return adopt(
                    self.layers.writable, known, path, progress=notice, stop=halt
                )
        return None

    def _set_aside(
        self, known: WeightFile, found: Found, pinned: Pinned | None
    ) -> Path | None:
        """Move a wrong file away, keep what of it is good, and return where it is."""
        layer, path = self.layers.writable, found.path
        if path is None or not path.is_file():
            return None
        if not may(path, os.R_OK):  # it may be right: it is another user's, not bad
            raise ReadOnly(f"{path} cannot be read", whose(path))
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
        reason = found.reason or "it is damaged"
        return quarantine(layer, known, path, reason, foreign=True).parent

    def _fetch(
        self,
        known: WeightFile,
        pinned: Pinned | None,
        notice: Callable[[Step], Callable[[int, int | None], None]],
        halt: Halt,
    ) -> Fetched:
        obtainer = Obtainer(
            self.layers.writable, self.sources, self.aria2, self.limits, self.disk
        )
        try:
            return obtainer.obtain(known, pinned, notice, halt)
        except WrongBytes:
            raise
        except Corrupt as error:
            if known.unverified and pinned is not None:
                named = [str(p) for p in self.locks if known.path in Lock.load(p).files]
                raise Corrupt(
                    f"{known.path} is not what was fetched before: {error.message}",
                    "if its publisher replaced it, and you trust that, remove"
                    f' "{known.path}" from {" and ".join(named)}',
                ) from error
            raise

    def _record(
        self, file: WeightFile, size: int, sha256: str, segments: tuple[str, ...]
    ) -> None:
        Lock.load(*self.locks).record(file, size, sha256, segments)
