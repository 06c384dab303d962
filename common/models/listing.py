"""What lies in a layer, for gc: what is known to be ours, or another tool's half."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from common.models import receipts
from common.models.garbage import Blob, Listing, Scrap
from common.models.layer import Layer
from common.models.receipts import Receipt
from common.models.space import taken
from common.models.usage import sizes


def listing(layer: Layer) -> Listing:
    """Return everything of a layer that could go; never a file nobody knows."""
    return Listing(tuple(_blobs(layer)), (*_folders(layer), *_leftovers(layer)))


def _blobs(layer: Layer) -> Iterator[Blob]:
    known = {receipt.sha256: receipt for receipt in receipts.every(layer)}
    stored = {path.name for path in (layer.root / "blobs/sha256").glob("*/*")}
    for sha256 in sorted(known.keys() | stored):
        blob = _blob(layer, sha256, known.get(sha256))
        if blob is not None:
            yield blob


def _blob(layer: Layer, sha256: str, receipt: Receipt | None) -> Blob | None:
    stored = layer.blob(sha256)
    names = () if receipt is None else receipt.names
    views = [layer.root / "models" / name for name in names]
    paths = [path for path in views if _is_ours(path, stored, receipt)]
    if stored.exists():
        paths.append(stored)
    if not paths:
        return None
    links: dict[tuple[int, int], list[os.stat_result]] = {}
    for path in paths:
        if not path.is_symlink():
            found = path.stat()
            links.setdefault((found.st_dev, found.st_ino), []).append(found)
    return Blob(
        sha256,
        tuple(paths),
        sum(taken(same[0]) for same in links.values()),
        paths[-1].stat().st_mtime if receipt is None else receipt.verified_at,
        placed=receipt is not None and receipt.how != "fetched",
        elsewhere=any(len(same) < same[0].st_nlink for same in links.values()),
    )


def _is_ours(view: Path, stored: Path, receipt: Receipt | None) -> bool:
    if stored.exists() and view.exists() and view.samefile(stored):
        return True
    return receipt is not None and receipt.covers(view)


def _folders(layer: Layer) -> Iterator[Scrap]:
    """Yield what is in staging, trash and quarantine, one folder or file each."""
    for folder in _children(layer.root / ".staging"):
        yield Scrap("staging", (folder,), *_weight(folder), key=folder.name)
    for folder in _children(layer.root / ".trash"):
        yield Scrap("trash", (folder,), *_weight(folder))
    for folder in _children(layer.root / ".quarantine"):
        try:
            record = json.loads((folder / "record.json").read_bytes())
            foreign = record["foreign"] is not False
        except (OSError, ValueError, KeyError, TypeError):
            foreign = True
        yield Scrap("quarantine", (folder,), *_weight(folder), asked=foreign)


def _leftovers(layer: Layer) -> Iterator[Scrap]:
    """Yield half files between the whole ones: ours, and two other tools'."""
    for folder in ("models", "receipts", "refs", ".locks"):
        for path, found in sizes(layer.root / folder):
            size, changed = taken(found), found.st_mtime
            if path.name.startswith(".") and path.suffix == ".part":
                yield Scrap("part", (path,), size, changed)
            elif path.suffix == ".incomplete":  # huggingface_hub
                yield Scrap("foreign", (path,), size, changed)
            elif path.suffix == ".aria2":  # says that the file beside it is half
                beside = path.with_suffix("")
                if beside.is_file() and receipts.owner(layer, beside) is None:
                    both = beside.stat()
                    changed = max(changed, both.st_mtime)
                    pair, size = (path, beside), size + taken(both)
                    yield Scrap("foreign", pair, size, changed, asked=True)
                else:
                    yield Scrap("foreign", (path,), size, changed)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _weight(path: Path) -> tuple[int, float]:
    """Return the bytes below a path on the disk, and when it was last written to."""
    own = path.lstat()
    found = [one for _, one in sizes(path)] if path.is_dir() else [own]
    inodes = {(one.st_dev, one.st_ino): taken(one) for one in found}
    return sum(inodes.values()), max(one.st_mtime for one in (own, *found))
