"""What is there of the weights that a service may load: asked, and looked at."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from common.comfy import Comfy, EngineUnreachable
from common.jobs.supply import Supply
from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models.ensurer import ModelEnsurer
from common.models.errors import Missing, ModelsError
from common.models.meter import Step
from common.models.needs import models, needs
from common.models.status import FileStatus
from common.modes import lacking, wanted_by
from common.service import Service
from common.weights import Overall, Variant, Weight

log = logging.getLogger(__name__)

# Probes and pages ask often, and a network volume takes milliseconds a file.
LOOK_S = 1.0


class Engine(Protocol):
    """Who loads them."""

    comfy: Comfy

    def trouble(self) -> str | None:
        """Say why it cannot be used, if it cannot."""


class Stock:
    """
    The weights of one service.

    Args:
        service: whose they are.
        engines: who loads them.
        manifest: what is known of files; None = nothing.
        ensurer: finds them on the volume; None = it is not ours to look at.
        supply: fetches them.
    """

    def __init__(
        self,
        service: Service,
        engines: Sequence[Engine],
        manifest: Manifest | None,
        ensurer: ModelEnsurer | None = None,
        supply: Supply | None = None,
    ) -> None:
        self._service = service
        self._needs = needs(service)
        self._engines = engines
        self.manifest = manifest
        self._ensurer = ensurer
        self._supply = supply
        self._status: tuple[float, dict[str, FileStatus]] | None = None
        self._looking = asyncio.Lock()

    @property
    def layers(self) -> tuple[Path, ...]:
        """The roots that are looked into, lowest first; none where we do not look."""
        if self._ensurer is None:
            return ()
        return tuple(layer.root for layer in self._ensurer.layers)

    def forget(self) -> None:
        """Look anew when asked next: something has changed."""
        self._status = None

    async def overall(self) -> Overall:
        """Return all weights, and how far their fetch is."""
        weights = await self.look()
        absent = frozenset(one.name for one in weights if one.missing)
        modes = self._service.modes
        needed, users = lacking(modes, absent)
        # What no loader names is loaded by a node as a whole, whatever the request.
        named = {need.name for need in self._needs}
        needed |= absent - named
        supply = self._supply
        if supply is None or not supply.fetching:
            return Overall(weights, needed, users, None, 0, 0, None)
        told = supply.progress()
        done, total = told.done_bytes or 0, told.total_bytes or 0
        return Overall(weights, needed, users, told.stage, done, total, told.eta_s)

    async def look(self) -> tuple[Weight, ...]:
        """Return each file that some request loads."""
        lists = await self._lists()
        on_disk = await self._on_disk()
        modes = self._service.modes
        found = []
        for need in self._needs:
            known = self._known(need.name, need.folder)
            listed, near = lists.get(need.name, (None, None))
            found.append(
                self._weight(
                    need.name,
                    need.folder,
                    wanted_by(need.name, modes),
                    known,
                    listed,
                    near and f"{need.folder}/{near}".lstrip("/"),
                    on_disk,
                )
            )
        for file in self._whole():
            where, when = file.folder, "every request"
            found.append(
                self._weight(file.name, where, when, file, None, None, on_disk)
            )
        return tuple(found)

    def variants(self, weights: Sequence[Weight]) -> list[Variant]:
        """Return the models of the manifest that are wholly among a service's files."""
        mine = {one.known: one for one in weights if one.known is not None}
        if self.manifest is None:
            return []
        return [
            Variant(id_, variant.name, tuple(mine[file] for file in variant.files))
            for id_, model in self.manifest.models.items()
            for variant in model.variants.values()
            if mine.keys() >= set(variant.files)
        ]

    def _weight(
        self,
        name: str,
        folder: str,
        needed_for: str,
        known: WeightFile | None,
        listed: bool | None,
        near: str | None,
        on_disk: Mapping[str, FileStatus],
    ) -> Weight:
        found = None if known is None else on_disk.get(known.path)
        if found is not None and found.near is not None:
            near = self._relative(found.near)
        supply = self._supply
        if supply is None or known is None:
            return Weight(name, folder, needed_for, known, listed, near, found)
        told = supply.meter.latest.get(known.path)
        busy = told is not None and told.step in (Step.DOWNLOADING, Step.WAITING)
        return Weight(
            name,
            folder,
            needed_for,
            known,
            listed,
            near,
            found,
            supply.troubles.get(known),
            supply.wanted(known),
            told.done if told is not None and busy and supply.fetching else 0,
        )

    def _relative(self, path: Path) -> str | None:
        """Return a path below `models`: callers need not know where that is."""
        for root in self.layers:
            if path.is_relative_to(root / "models"):
                return path.relative_to(root / "models").as_posix()
        return None

    def _known(self, name: str, folder: str) -> WeightFile | None:
        if self.manifest is None:
            return None
        try:
            return self.manifest.file(name, folder or None)
        except Missing:
            return None

    def _whole(self) -> list[WeightFile]:
        """Return the files of models that a node loads whole; no engine lists them."""
        if self._ensurer is None:
            return []
        found: dict[WeightFile, None] = {}
        for model in models(self._service):
            try:
                found |= dict.fromkeys(self._ensurer.files_of(model))
            except Missing:
                continue
        return list(found)

    async def _lists(self) -> dict[str, tuple[bool, str | None]]:
        """Return whether every engine lists a file, and a name that may be meant."""
        found: dict[str, tuple[bool, str | None]] = {}
        for engine in self._engines:
            if engine.trouble() is not None:
                continue
            try:
                for need in self._needs:
                    names = await engine.comfy.choices(need.class_type, need.input)
                    there = need.name in names
                    near = [] if there else get_close_matches(need.name, names, 1, 0.8)
                    if found.get(need.name, (True, None))[0]:
                        found[need.name] = there, near[0] if near else None
            except EngineUnreachable:
                continue
        return found

    async def _on_disk(self) -> dict[str, FileStatus]:
        """Return what the volume has of each file that the manifest knows."""
        ensurer = self._ensurer
        if ensurer is None:
            return {}
        async with self._looking:
            if self._status is not None and time.monotonic() < self._status[0] + LOOK_S:
                return self._status[1]
            files = ensurer.needed_by(self._service, variants=True)
            seen = time.monotonic()
            try:
                statuses = await asyncio.to_thread(ensurer.file_status, files)
            except (ModelsError, OSError) as error:
                log.warning("the weights cannot be looked at: %s", error)
                return {}  # what the engines list decides
            for one in statuses:
                if self._supply is not None and not one.usable:
                    self._supply.doubt(one.file)
            found = {one.file.path: one for one in statuses}
            self._status = seen, found
            return found
