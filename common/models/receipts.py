"""
Receipts: that a file's bytes were hashed, and how the file looked then.

As long as size, time and header are those of the receipt, the file is verified without
reading it. The inode is not compared: image layers (overlay) and FUSE volumes number
anew at each mount, and a false alarm costs reading 30 GB. What slips through is a file
of the same size, the same time and the same header; `verify --deep` finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from common.disk import atomic_write
from common.models import safetensors
from common.models.errors import Corrupt
from common.models.layer import Layer

SCHEMA = 1
How = Literal["fetched", "adopted", "verified"]
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Receipt:
    """One hash that was computed here over the whole file."""

    sha256: str
    size: int
    header_sha256: str | None  #: of a safetensors header; None = another kind of file
    verified_at: float  #: seconds since 1970
    how: How
    sources: Mapping[str, int] = field(default_factory=dict)  #: label: bytes from there
    #: "vae/x.safetensors": mtime_ns; each name that was given to these bytes
    names: Mapping[str, int] = field(default_factory=dict)
    schema: int = SCHEMA

    def doubt(self, path: Path) -> str | None:
        """
        Return why `path` is not taken for these bytes; None = it is.

        Raises:
            Corrupt: it has another header.
        """
        now = path.stat()
        if now.st_size != self.size:
            return f"it is {now.st_size} bytes, its receipt says {self.size}"
        if not any(_same(now.st_mtime_ns, stamp) for stamp in self.names.values()):
            return "it was written to since it was verified"
        header = self.header_sha256
        if header is not None and safetensors.fingerprint(path) != header:
            raise Corrupt("its header is not the one that was verified")
        return None

    def covers(self, path: Path) -> bool:
        """Whether `path` is there and beyond doubt."""
        try:
            return self.doubt(path) is None
        except (OSError, Corrupt):
            return False

    def naming(self, name: str, mtime_ns: int) -> Receipt:
        """Return the receipt with one more name, or with that name's new time."""
        return replace(self, names={**self.names, name: mtime_ns})


_RECEIPT = TypeAdapter(Receipt)


def read(layer: Layer, sha256: str) -> Receipt | None:
    """Return the receipt of a hash; None when there is none that we understand."""
    return _read(layer.receipt(sha256))


def every(layer: Layer) -> Iterator[Receipt]:
    """Return all receipts of a layer."""
    for path in sorted((layer.root / "receipts").glob("*.json")):
        if (receipt := _read(path)) is not None:
            yield receipt


def write(layer: Layer, receipt: Receipt) -> None:
    """Write a receipt, whole or not at all."""
    path = layer.receipt(receipt.sha256)
    layer.mkdir(path.parent)
    atomic_write(path, _RECEIPT.dump_json(receipt, indent=1))


def stamp(
    layer: Layer,
    path: Path,
    name: str,
    sha256: str,
    how: How,
    sources: Mapping[str, int] | None = None,
) -> Receipt:
    """
    Write that `path`, which has or is to have `name`, was hashed; keep the other names.

    Raises:
        Corrupt: it is called safetensors and is not.
    """
    now = path.stat()
    header = None
    if name.endswith(safetensors.SUFFIX):
        header = safetensors.check(path).sha256
    known = read(layer, sha256)
    receipt = Receipt(
        sha256,
        now.st_size,
        header,
        time.time(),
        how if known is None else known.how,
        sources or ({} if known is None else known.sources),
        {} if known is None else known.names,
    ).naming(name, now.st_mtime_ns)
    write(layer, receipt)
    return receipt


def held(layer: Layer, receipt: Receipt) -> Path | None:
    """Return a path in the layer that still has a receipt's bytes."""
    named = [layer.root / "models" / name for name in receipt.names]
    for path in (layer.blob(receipt.sha256), *named):
        if receipt.covers(path):
            return path
    return None


def owner(layer: Layer, view: Path) -> Receipt | None:
    """Return the receipt that knows the file at a view; None = it is not ours."""
    name = view.relative_to(layer.root / "models").as_posix()
    for receipt in every(layer):
        if name in receipt.names and receipt.covers(view):
            return receipt
    return None


def _read(path: Path) -> Receipt | None:
    try:
        receipt = _RECEIPT.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    # A root may be shared: what others wrote leads nowhere else.
    out = any(name[:1] == "/" or ".." in Path(name).parts for name in receipt.names)
    sound = receipt.schema == SCHEMA and receipt.sha256 == path.stem and not out
    return receipt if sound else None


def _same(a: int, b: int) -> bool:
    """Whether two times in ns are one: volumes and images cut them to µs or seconds."""
    if a % _SECOND == 0 or b % _SECOND == 0:
        return a // _SECOND == b // _SECOND
    return a // 1000 == b // 1000
