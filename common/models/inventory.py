"""What is there of the manifest's files: found, stated, hashed. Asks no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models import refs
from common.models.catalogue import Catalogue
from common.models.layers import Found, Layers
from common.models.lock import Lock, Pinned, as_known
from common.models.meter import Notice, Step, Tell
from common.models.near import Near
from common.models.status import FileStatus, ModelStatus


def silent(notice: Notice) -> None:
    """Tell nobody."""


class Inventory(Catalogue):
    """
    Finds the manifest's files in the layers.

    Args:
        manifest: what there is.
        layers: where it is.
        locks: models.lock, read in this order.
    """

    def __init__(
        self, manifest: Manifest, layers: Layers, locks: tuple[Path, ...]
    ) -> None:
        super().__init__(manifest)
        self.layers = layers
        self._locks = locks

    def ready(self, file: WeightFile) -> bool:
        """Tell whether ComfyUI can load a file; no network."""
        return self.find(file).usable

    def find(self, file: WeightFile) -> Found:
        """Return what is there of a file; no network."""
        return self.layers.find(file, self._lock().of(file))

    def found(self, files: Iterable[WeightFile]) -> Iterator[tuple[WeightFile, Found]]:
        """Yield what is there of files; no network."""
        lock = self._lock()
        for file in files:
            yield file, self.layers.find(file, lock.of(file))

    def there(self) -> tuple[WeightFile, ...]:
        """Return the manifest's files that have their name on a disk; no network."""
        files = self.manifest.files
        return tuple(f for f, found in self.found(files) if found.path is not None)

    def as_known(self, files: Iterable[WeightFile]) -> tuple[WeightFile, ...]:
        """Return files with what models.lock says of them filled in."""
        lock = self._lock()
        return tuple(as_known(file, lock.of(file)) for file in files)

    def file_status(self, files: Iterable[WeightFile]) -> tuple[FileStatus, ...]:
        """Return what is there of files; no network, nothing is read as a whole."""
        lock, near = self._lock(), self._near()
        return tuple(self._status(file, lock.of(file), near) for file in files)

    def status(self, models: Iterable[str] | None = None) -> tuple[ModelStatus, ...]:
        """
        Return each model's default variant and those that are there, even in part.

        Raises:
            Missing: no such model.
        """
        wanted = self.manifest.models if models is None else models
        pins = refs.pins(self.layers.layers[-1])
        found = []
        for id_ in wanted:
            model = self.manifest.model(id_)
            for name, variant in model.variants.items():
                one = ModelStatus(
                    id_, name, self.file_status(variant.files), id_ in pins
                )
                if name == model.default or one.state == "ready":
                    found.append(one)
        return tuple(found)

    def verify(
        self,
        files: Iterable[WeightFile],
        *,
        deep: bool = False,
        notice: Tell = silent,
        stop: threading.Event | None = None,
    ) -> tuple[FileStatus, ...]:
        """
        Look at files again; deep reads all bytes and says in receipts what was right.

        Raises:
            Stopped: `stop` was set.
        """
        lock, near = self._lock(), self._near()
        statuses = []
        for file in files:
            known = as_known(file, lock.of(file))
            hashing = _hashing(file, notice)
            found = self.layers.find(known, deep=deep, progress=hashing, stop=stop)
            statuses.append(self._status(file, lock.of(file), near, found))
        return tuple(statuses)

    def _status(
        self,
        file: WeightFile,
        pinned: Pinned | None,
        near: Near,
        found: Found | None = None,
    ) -> FileStatus:
        found = found or self.layers.find(file, pinned)
        known = as_known(file, pinned)
        return FileStatus(
            file,
            found.state,
            found.bytes,
            known.size,
            known.sha256,
            found.usable,
            found.path,
            found.layer.root if found.layer else None,
            found.reason,
            None if found.path else near.to(file.name),
        )

    def _lock(self) -> Lock:
        """Return what files turned out to be, read anew: other processes add to it."""
        return Lock.load(*self._locks)

    def _near(self) -> Near:
        return Near(self.layers, {file.path for file in self.manifest.files})


def _hashing(file: WeightFile, notice: Tell) -> Callable[[int, int], None]:
    return lambda done, total: notice(Notice(file.path, Step.VERIFYING, done, total))
