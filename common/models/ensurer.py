"""
`ModelEnsurer`: the weights of models and services, there and verified.

    ensurer = ModelEnsurer.from_config()
    ensurer.ensure("t2v-A14B@2.2.0")

Everything here is synchronous and may be called from several threads and processes, on
several hosts that share a volume.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models import refs
from common.models.bring import Bringer, Result
from common.models.config import Config
from common.models.errors import ModelsError, NoSpace, ReadOnly, Stopped
from common.models.gc import GarbageCollector
from common.models.inventory import Inventory, silent
from common.models.layers import Found, Layers, State
from common.models.leases import reading
from common.models.lock import as_known
from common.models.meter import Notice, Step, Tell
from common.models.space import allocated, preflight
from common.settings import Settings


class ModelEnsurer(Inventory):
    """
    Brings what is absent; what is there, and which files are meant, it inherits.

    Args:
        manifest: what there is.
        layers: where it is.
        bringer: brings one file.
        margin: bytes to leave free on the volume.
    """

    def __init__(
        self, manifest: Manifest, layers: Layers, bringer: Bringer, margin: int
    ) -> None:
        super().__init__(manifest, layers, bringer.locks)
        self.bringer = bringer
        self._margin = margin

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
        bringer = Bringer(
            layers, config.locks, config.sources, config.aria2, disk=config.disk
        )
        manifest = Manifest.load(config.manifest)
        return cls(manifest, layers, bringer, config.margin)

    def ensure(
        self,
        model: str,
        variant: str | None = None,
        *,
        notice: Tell = silent,
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
        notice: Tell = silent,
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
        notice: Tell = silent,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """
        Bring files one after the other, and say how each one fared.

        Raises:
            NoSpace: the volume cannot hold what is absent; nothing was fetched.
            BadManifest, Locked: nothing can be done at all.
            Stopped: `stop` was set before anything was begun.
        """
        stop = stop or threading.Event()
        wanted = tuple(dict.fromkeys(files))
        with reading(self.layers.layers[-1], stop=stop):
            results = {
                file: Result(file, found.path)
                for file, found in self.found(wanted)
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
        notice: Tell = silent,
        stop: threading.Event | None = None,
    ) -> list[Result]:
        """
        Read files as a whole, and bring what is broken or absent; as above.

        What is broken in a lower layer stays there, and the right file comes over it.
        """
        wanted = tuple(dict.fromkeys(files))
        last, below = self.layers.layers[-1], []
        for one in self.verify(wanted, deep=True, notice=notice, stop=stop):
            if one.state is State.CORRUPT and one.layer == last.root:
                self._distrust(one.file)
            elif one.state is State.CORRUPT:
                below.append(one.file)
        rest = [file for file in wanted if file not in below]
        results = self.ensure_files(rest, notice=notice, stop=stop)
        if below:
            only = Layers((last,))
            above = type(self)(
                self.manifest,
                only,
                replace(self.bringer, layers=only),
                self._margin,
            )
            results += above.ensure_files(below, notice=notice, stop=stop)
        return sorted(results, key=lambda one: wanted.index(one.file))

    def _distrust(self, file: WeightFile) -> None:
        """Take back the receipt of bytes that changed behind it."""
        pinned = self._lock().of(file)
        sha256 = as_known(file, pinned).sha256
        if sha256 is not None and self.layers.layers[-1].writable:
            self.layers.writable.receipt(sha256).unlink(missing_ok=True)

    def collector(self) -> GarbageCollector:
        """Return what cleans the writable layer."""
        keys = [one.key for one in self.as_known(self.manifest.files)]
        return GarbageCollector(self.layers, keys)

    def _in_lower_layer(self, found: Found) -> bool:
        """Whether a file is usable where we cannot write: nothing more can be done."""
        last = self.layers.layers[-1]
        return found.usable and (found.layer is not last or not last.writable)

    def _preflight(self, absent: Sequence[WeightFile]) -> None:
        layer = self.layers.writable
        needed, have, lock = 0, 0, self._lock()
        for file in {file.key: file for file in absent}.values():
            known = as_known(file, lock.of(file))
            found = self.find(file)
            if found.path is not None and found.state is not State.CORRUPT:
                continue  # it is there, to be hashed
            if self.bringer.cached(known) is not None:
                continue  # a link takes no room
            needed += known.size or 0
            have += allocated(layer.root / ".staging" / known.key / "data")
        preflight(needed, min(have, needed), layer.root, self._margin)

    def _each(
        self, files: Sequence[WeightFile], notice: Tell, stop: threading.Event
    ) -> Iterator[Result]:
        """Bring files; one that fails leaves the others to come, if they can."""
        over: ModelsError | None = None
        for file in files:
            if over is None and stop.is_set():
                over = Stopped("stopped")
            step, error = Step.STOPPED, over
            if over is not None:
                error = type(over)(f"not begun: {over.message}", over.hint)
            else:
                try:
                    yield self.bringer.bring(file, notice, stop)
                except Stopped as stopped:
                    over, error = Stopped("stopped"), stopped
                except ModelsError as failed:
                    step, error = Step.FAILED, failed
                    if isinstance(failed, (NoSpace, ReadOnly)):
                        over = failed
            if error is not None:
                notice(Notice(file.path, step, 0, file.size, error.message))
                yield Result(file, error=error)

    def used(self, files: Sequence[WeightFile]) -> None:
        """Say that files are in use although nothing of them is fetched."""
        with suppress(ModelsError, OSError):
            self._touch(files)

    def _touch(self, files: Sequence[WeightFile]) -> None:
        """Say that models are used, for gc."""
        layer = self.layers.layers[-1]
        if not layer.writable:
            return
        pins, before = refs.pins(layer), {ref.model: ref for ref in refs.load(layer)}
        here, lock, rest = set(files), self._lock(), set(files)
        whole: dict[str, set[WeightFile]] = {}
        for model in self.manifest.models.values():
            for variant in model.variants.values():
                if here.issuperset(variant.files):
                    whole.setdefault(model.id, set()).update(variant.files)
                    rest.difference_update(variant.files)
        for model in self.manifest.models.values():
            # A file that only some models share says nothing of the use of each.
            named = whole.get(model.id) or rest.intersection(model.files)
            keys = {as_known(file, lock.of(file)).key for file in named}
            if keys and model.id in before:
                kept = {as_known(file, lock.of(file)).key for file in model.files}
                held = before[model.id].keys  # by another variant; all of it by a pin
                keys |= held if model.id in pins else held & kept
            if keys:
                with suppress(NoSpace):  # the files are there all the same
                    refs.touch(layer, model.id, keys, digest=self.manifest.digest)
