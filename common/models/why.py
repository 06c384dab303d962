"""Why a file is there, or not: who needs it, where it is, and what gc would do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models import leases, receipts, refs
from common.models.ensurer import ModelEnsurer
from common.models.errors import Missing
from common.models.gc import DAY_S
from common.models.layer import Layer
from common.models.layers import Layers, State
from common.models.needs import models, needs
from common.models.receipts import Receipt
from common.models.status import FileStatus
from common.service import Service


@dataclass(frozen=True)
class Use:
    """A service that loads the file."""

    service: str
    workflows: tuple[str, ...]  #: "" = the main one; empty = its engine, by itself
    always: bool  #: False: only some requests do

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "service": self.service,
            "workflows": list(self.workflows),
            "always": self.always,
        }


@dataclass(frozen=True)
class Place:
    """One layer in which the file is looked for."""

    root: Path
    path: Path  #: where it would be
    state: State
    reason: str | None
    writable: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "layer": str(self.root),
            "path": str(self.path),
            "state": self.state.value,
            "reason": self.reason,
            "writable": self.writable,
        }


@dataclass(frozen=True)
class Why:
    """All that is known of a file; see `why`."""

    status: FileStatus
    models: dict[str, tuple[str, ...]]  #: id: variants that have it
    uses: tuple[Use, ...]
    places: tuple[Place, ...]  #: lowest layer first
    receipt: Receipt | None
    holder: str | None  #: who fetches it now
    goes: bool  #: gc would remove it
    gc: str  #: why, or why not

    def as_dict(self) -> dict[str, Any]:
        """Return the object of `wan models why --json`."""
        receipt = None
        if self.receipt is not None:
            receipt = {
                "verified_at": self.receipt.verified_at,
                "how": self.receipt.how,
                "sources": dict(self.receipt.sources),
            }
        return {
            **self.status.as_dict(),
            "unverified": self.status.file.unverified,
            "sources": list(self.status.file.sources),
            "models": {id_: list(names) for id_, names in self.models.items()},
            "services": [use.as_dict() for use in self.uses],
            "places": [place.as_dict() for place in self.places],
            "receipt": receipt,
            "fetched_by": self.holder,
            "gc": {"goes": self.goes, "why": self.gc},
        }


def why(ensurer: ModelEnsurer, name: str, services: Iterable[Service]) -> Why:
    """
    Return what is known of a file of the manifest; no network.

    Raises:
        Missing: the manifest has no such file; the hint has near names, or where a file
            of that name lies all the same.
    """
    file = _file(ensurer, name)
    [known] = ensurer.as_known([file])
    [status] = ensurer.file_status([file])
    layers = ensurer.layers
    goes, words = _gc(ensurer, known)
    last = layers.layers[-1]
    fetched = last.writable and known.key in leases.live(last)
    holder = leases.holder(last, known.key) if fetched else None
    return Why(
        status,
        _models(ensurer.manifest, file),
        tuple(_uses(ensurer.manifest, file, services)),
        tuple(_place(layer, known) for layer in layers),
        _receipt(layers, known, status),
        None if holder is None else str(holder),
        goes,
        words,
    )


def _file(ensurer: ModelEnsurer, name: str) -> WeightFile:
    try:
        return ensurer.manifest.file(name)
    except Missing as error:
        short = name.rpartition("/")[2]
        there = [
            path
            for layer in ensurer.layers
            for path in (layer.root / "models").rglob("*.*")
            if path.name == short
        ]
        if not there:
            raise
        hint = f"{there[0]} is there, and the manifest knows nothing of it"
        raise Missing(error.message, hint) from None


def _models(manifest: Manifest, file: WeightFile) -> dict[str, tuple[str, ...]]:
    found = {
        id_: tuple(v.name for v in model.variants.values() if file in v.files)
        for id_, model in manifest.models.items()
    }
    return {id_: names for id_, names in found.items() if names}


def _uses(
    manifest: Manifest, file: WeightFile, services: Iterable[Service]
) -> Iterable[Use]:
    for service in services:
        for need in needs(service):
            if need.name == file.name and need.folder in ("", file.folder):
                names = tuple(v.file if v else "" for v in need.variants)
                yield Use(service.name, names, need.always)
        ids = set(models(service)) & manifest.models.keys()
        whole = [manifest.models[id_] for id_ in sorted(ids)]
        if any(file in model.files for model in whole):
            always = any(file in model.variant().files for model in whole)
            yield Use(service.name, (), always)


def _place(layer: Layer, known: WeightFile) -> Place:
    found = Layers((layer,)).find(known)
    path = layer.view(known.folder, known.name)
    return Place(layer.root, path, found.state, found.reason, layer.writable)


def _receipt(layers: Layers, known: WeightFile, status: FileStatus) -> Receipt | None:
    for layer in layers:
        if layer.root == status.layer and known.sha256 is not None:
            return receipts.read(layer, known.sha256)
    return None


def _gc(ensurer: ModelEnsurer, known: WeightFile) -> tuple[bool, str]:
    """Return whether gc would remove a file's bytes, and why."""
    layer = ensurer.layers.layers[-1]
    if not layer.writable:
        return False, f"{layer.root}: {layer.refusal}"
    for removal in ensurer.collector().plan().removals:
        if known.key in (removal.sha256, removal.paths[0].name):
            return True, removal.why
    here = Layers((layer,)).find(known)
    if here.state is State.ABSENT:
        return False, "it is not in the layer that is cleaned"
    held = [ref for ref in refs.load(layer) if known.key in ref.keys]
    pins = refs.pins(layer)
    pinned = [ref.model for ref in held if ref.model in pins]
    if pinned:
        return False, f"pinned by {', '.join(pinned)}"
    if known.key in leases.live(layer):
        return False, "somebody fetches it"
    kept = "the manifest names it: only --max-bytes may want its room"
    if held:
        last = max(held, key=lambda ref: ref.last_used)
        days = (time.time() - last.last_used) / DAY_S
        kept += f"; {last.model} was used {days:.1f} days ago"
    return False, kept
