"""`du` for weights: what they take, and what they would take without sharing bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.models.layer import Weights
from common.models.layers import Layers, State
from common.models.space import allocated, taken
from common.models.staging import ARIA2, DATA, claimed_bytes


@dataclass(frozen=True)
class FileUsage:
    """One file of the manifest that is there."""

    name: str
    folder: str
    key: str
    bytes: int
    layer: str  #: its root
    models: tuple[str, ...]  #: the ids that use it
    state: State


@dataclass(frozen=True)
class LayerUsage:
    """One root."""

    root: str
    bytes: int  #: on the disk; two names of the same bytes count once
    naive_bytes: int  #: each name in `models/` counted as a file of its own
    unknown_bytes: int  #: of them, files that the manifest does not name
    staging_bytes: int  #: what came of half files
    reserved_bytes: int  #: what is on the disk for them, which may hold it all at once
    trash_bytes: int
    quarantine_bytes: int


@dataclass(frozen=True)
class Usage:
    """What all layers hold."""

    files: tuple[FileUsage, ...]
    models: Mapping[str, int]  #: id: bytes of its files that are there
    layers: tuple[LayerUsage, ...]

    @property
    def bytes(self) -> int:
        """On all disks."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def shared_bytes(self) -> int:
        """What the models share: their sum, less each file's bytes once."""
        once = {file.key: file.bytes for file in self.files}
        return sum(self.models.values()) - sum(once.values())


def usage(layers: Layers, models: Mapping[str, Iterable[Weights]]) -> Usage:
    """Return what is there of each model's files, and what each layer takes."""
    wanted: dict[tuple[str, str], tuple[Weights, list[str]]] = {}
    for model, files in models.items():
        for file in files:
            wanted.setdefault((file.folder, file.name), (file, []))[1].append(model)
    totals = dict.fromkeys(models, 0)
    there: list[FileUsage] = []
    known: set[Path] = set()
    for file, ids in wanted.values():
        known.update(layer.view(file.folder, file.name) for layer in layers)
        found = layers.find(file)
        if found.layer is None or found.path is None:
            continue
        root, size = str(found.layer.root), found.bytes
        there.append(
            FileUsage(
                file.name, file.folder, file.key, size, root, tuple(ids), found.state
            )
        )
        for model in ids:
            totals[model] += size
    roots = tuple(_layer(layer.root, known) for layer in layers)
    return Usage(tuple(there), totals, roots)


def _layer(root: Path, known: set[Path]) -> LayerUsage:
    views = dict(sizes(root / "models"))
    naive = sum(found.st_size for found in views.values())
    unknown = sum(s.st_size for path, s in views.items() if path not in known)
    parts = [_taken(sizes(root / f".{part}")) for part in _ASIDE]
    everything = [*views.items(), *sizes(root / "blobs")]
    came = sum(map(_came, (root / ".staging").glob("*")))
    return LayerUsage(
        str(root), _taken(everything) + sum(parts), naive, unknown, came, *parts
    )


_ASIDE = ("staging", "trash", "quarantine")


def _came(staging: Path) -> int:
    """Return what came of a half file, unchecked; its room may have been reserved."""
    if (staging / ARIA2).exists():  # which reserves nothing, and writes no journal
        return allocated(staging / DATA)
    try:
        return claimed_bytes(staging)
    except OSError:  # another user's, or no folder
        return 0


def sizes(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below a folder; a link counts as what it leads to."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            try:
                yield path, path.stat()
            except OSError:  # a dangling link, or gone meanwhile
                continue


def _taken(found: Iterable[tuple[Path, os.stat_result]]) -> int:
    """Return the bytes of files, each inode once."""
    return sum({(one.st_dev, one.st_ino): taken(one) for _, one in found}.values())
