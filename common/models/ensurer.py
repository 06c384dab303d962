"""
`ModelEnsurer`: the weights of models and services, there and verified.

    ensurer = ModelEnsurer.from_config()
    ensurer.ensure("t2v-A14B@2.2.0")

Everything here is synchronous and may be called from several threads and processes, on
several hosts that share a volume.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models import refs
from common.models.bring import Bringer, Result, as_known
from common.models.config import Config
from common.models.errors import Missing, ModelsError, NoSpace, ReadOnly, Stopped
from common.models.gc import GarbageCollector
from common.models.layers import Found, Layers, State
from common.models.leases import reading
from common.models.lock import Lock, Pinned
from common.models.meter import Notice, Step
from common.models.near import Near
from common.models.needs import of_workflow, whole_models
from common.models.space import allocated, preflight
from common.models.status import FileStatus, ModelStatus
from common.service import Service
from common.settings import Settings
from common.workflow import Workflow

Tell = Callable[[Notice], None]


def _silent(notice: Notice) -> None:
    """Tell nobody."""


class ModelEnsurer:
    """
    Knows the manifest, finds files in the layers, and brings what is absent.

    Args:
        manifest: what there is.
        layers: where it is.
        bringer: brings one file.
        margin: bytes to leave free on the volume.
    """

    def __init__(
        self, manifest: Manifest, layers: Layers, bringer: Bringer, margin: int
    ) -> None:
        self.manifest = manifest
        self.layers = layers
        self.bringer = bringer
        self._margin = margin
        self.variants: dict[str, str] = {}  #: meant where none is named, by model

    @classmethod
    def from_config(
        cls,
        settings: Settings | None = None,
        *,
        bake_s: int | None = None,
        make: bool = True,
    ) -> Self:
        """
        Return one as the environment says, or the settings.

        Args:
            settings: None = the environment's.
            bake_s: for an image: plain files, all of this date in seconds since 1970.
            make: False = only to look: a root that is not there is not made.

        Raises:
            BadManifest: the manifest, the lock or a layer cannot be used.
            BadSettings: a variable holds nonsense.
        """
        config = Config.of(settings or Settings.read())
        if bake_s is not None:
            config = replace(config, mode="direct", mtime_s=bake_s)
        layers = Layers.open(
            config.roots, mode=config.mode, mtime_s=config.mtime_s, make=make
        )
        bringer = Bringer(layers, config.locks, config.sources, config.aria2)
        manifest = Manifest.load(config.manifest)
        return cls(manifest, layers, bringer, config.margin)

    # ---- which files

    def files_of(
        self, model: str, variant: str | None = None
    ) -> tuple[WeightFile, ...]:
        """Return a model's files; raises Missing with near names."""
        return self.manifest.files_of(model, variant or self.variants.get(model))

    def loaded_by(self, workflow: Workflow) -> tuple[WeightFile, ...]:
        """Return what a workflow loads; what the manifest does not know is left out."""
        found: dict[WeightFile, None] = {}
        for need in of_workflow(workflow):
            try:
                found.setdefault(self.manifest.file(need.name, need.folder or None))
            except Missing:
                continue
        for model in whole_models(workflow):
            found |= dict.fromkeys(self.files_of(model))
        return tuple(found)

    def needed_by(
        self, service: Service, *, variants: bool = False
    ) -> tuple[WeightFile, ...]:
        """Return what a service's main workflow loads; with variants, every one's."""
        found: dict[WeightFile, None] = {}
        for variant, workflow in service.workflows.items():
            if variant is None or variants:
                found |= dict.fromkeys(self.loaded_by(workflow))
        return tuple(found)

    # ---- what is there

    def ready(self, file: WeightFile) -> bool:
        """Tell whether ComfyUI can load a file; no network."""
        return self.find(file).usable

    def find(self, file: WeightFile) -> Found:
        """Return what is there of a file; no network."""
        return self.bringer.find(file, self.bringer.pinned(file))

    def there(self) -> tuple[WeightFile, ...]:
        """Return the manifest's files that have their name on a disk; no network."""
        files = self.manifest.files
        return tuple(f for f, found in self._found(files) if found.path is not None)

    def collector(self) -> GarbageCollector:
        """Return what cleans the writable layer."""
        keys = [one.key for one in self.as_known(self.manifest.files)]
        return GarbageCollector(self.layers, keys)

    def as_known(self, files: Iterable[WeightFile]) -> tuple[WeightFile, ...]:
        """Return files with what models.lock says of them filled in."""
        lock = Lock.load(*self.bringer.locks)
        return tuple(as_known(file, lock.of(file)) for file in files)

    def file_status(self, files: Iterable[WeightFile]) -> tuple[FileStatus, ...]:
        """Return what is there of files; no network, nothing is read as a whole."""
        lock, near = Lock.load(*self.bringer.locks), self._near()
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
        notice: Tell = _silent,
        stop: threading.Event | None = None,
    ) -> tuple[FileStatus, ...]:
        """
        Look at files again; deep reads all bytes and says in receipts what was right.

        Raises:
            Stopped: `stop` was set.
        """
        lock, near = Lock.load(*self.bringer.locks), self._near()
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
        found = found or self.bringer.find(file, pinned)
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

    def _near(self) -> Near:
        return Near(self.layers, {file.path for file in self.manifest.files})

    # ---- bring

    def ensure(
        self,
        model: str,
        variant: str | None = None,
        *,
        notice: Tell = _silent,
        stop: threading.Event | None = None,
    ) -> Path:
        """
        Bring a model, and return the `models` folder in which ComfyUI finds it.

        Which files those are says `files_of`, where each one lies `find`: it may be in
        a lower, read-only layer.

        Raises:
            ModelsError: of the first file that did not come.
        """
        return self.ensure_many([(model, variant)], notice=notice, stop=stop)

    def ensure_many(
        self,
        models: Iterable[str | tuple[str, str | None]],
        *,
        notice: Tell = _silent,
        stop: threading.Event | None = None,
    ) -> Path:
        """Bring several models, a file that two of them share once; as `ensure`."""
        files: dict[WeightFile, None] = {}
        for one in models:
            id_, variant = (one, None) if isinstance(one, str) else one
            files |= dict.fromkeys(self.files_of(id_, variant))
        for result in self.ensure_files(files, notice=notice, stop=stop):
            if result.error is not None:
                raise result.error
        return self.layers.layers[-1].root / "models"

    def ensure_files(
        self,
        files: Iterable[WeightFile],
        *,
        notice: Tell = _silent,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """
        Bring files one after the other, and say how each one fared.

        Raises:
            NoSpace: the volume cannot hold what is absent; nothing was fetched.
            BadManifest, Locked: nothing can be done at all.
        """
        stop = stop or threading.Event()
        wanted = tuple(dict.fromkeys(files))
        with reading(self.layers.layers[-1]):
            results = {
                file: Result(file, found.path)
                for file, found in self._found(wanted)
                if found.state is State.VERIFIED or self._in_lower_layer(found)
            }
            for file in results:
                notice(Notice(file.path, Step.READY, file.size or 0, file.size))
            absent = [file for file in wanted if file not in results]
            if absent:
                self._preflight(absent)
            for result in self._each(absent, notice, stop):
                results[result.file] = result
            self._touch([file for file in wanted if results[file].error is None])
        return [results[file] for file in wanted]

    def repair_files(
        self,
        files: Iterable[WeightFile],
        *,
        notice: Tell = _silent,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """Read files as a whole, and bring what is broken or absent; as above."""
        wanted = tuple(dict.fromkeys(files))
        bad = [
            one.file
            for one in self.verify(wanted, deep=True, notice=notice, stop=stop)
            if one.state is State.CORRUPT
        ]
        for file in bad:
            self._distrust(file)
        return self.ensure_files(wanted, notice=notice, stop=stop)

    def _distrust(self, file: WeightFile) -> None:
        """Take back the receipt of bytes that changed behind it."""
        pinned = self.bringer.pinned(file)
        sha256 = as_known(file, pinned).sha256
        if sha256 is not None and self.layers.layers[-1].writable:
            self.layers.writable.receipt(sha256).unlink(missing_ok=True)

    def _found(self, files: Iterable[WeightFile]) -> Iterator[tuple[WeightFile, Found]]:
        lock = Lock.load(*self.bringer.locks)
        for file in files:
            yield file, self.bringer.find(file, lock.of(file))

    def _in_lower_layer(self, found: Found) -> bool:
        """Whether a file is usable where we cannot write: nothing more can be done."""
        last = self.layers.layers[-1]
        return found.usable and (found.layer is not last or not last.writable)

    def _preflight(self, absent: Sequence[WeightFile]) -> None:
        layer = self.layers.writable
        needed = have = 0
        for file in {file.key: file for file in absent}.values():
            known = as_known(file, self.bringer.pinned(file))
            if self.find(file).path is not None:
                continue  # it is there, to be hashed
            needed += known.size or 0
            have += allocated(layer.root / ".staging" / known.key / "data")
        preflight(needed, min(have, needed), layer.root, self._margin)

    def _each(
        self, files: Sequence[WeightFile], notice: Tell, stop: threading.Event
    ) -> Iterator[Result]:
        """Bring files; one that fails leaves the others to come."""
        over: ModelsError | None = None
        for file in files:
            if over is None and stop.is_set():
                over = Stopped("stopped; what came is kept")
            try:
                if over is not None:
                    raise over
                yield self.bringer.bring(file, notice, stop)
            except ModelsError as error:
                notice(Notice(file.path, Step.FAILED, 0, file.size, error.message))
                yield Result(file, error=error)
                if isinstance(error, (NoSpace, ReadOnly, Stopped)):
                    over = error

    def _touch(self, files: Sequence[WeightFile]) -> None:
        """Say that models are used, for gc."""
        layer = self.layers.layers[-1]
        if not layer.writable:
            return
        pins, before = refs.pins(layer), {ref.model: ref for ref in refs.load(layer)}
        for model in self.manifest.models.values():
            named = self.as_known(file for file in files if file in set(model.files))
            keys = {file.key for file in named}
            if keys and model.id in pins and model.id in before:
                keys |= before[model.id].keys  # a pin holds what it held
            if keys:
                refs.touch(layer, model.id, keys, digest=self.manifest.digest)


def _hashing(file: WeightFile, notice: Tell) -> Callable[[int, int], None]:
    return lambda done, total: notice(Notice(file.path, Step.VERIFYING, done, total))
