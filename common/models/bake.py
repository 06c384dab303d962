"""
Weights in an image: what is left of a layer when the build's step ends.

The same weights must make the same image layer. So nothing stays that tells of one run:
no locks, no record of who used what and when, no moment and no server in a receipt; and
everything has one date.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from common.models import receipts
from common.models.layer import Layer

#: Of one run, or of this machine; what is half fetched stays in .staging.
_PASSING = (".locks", ".trash", "refs")


def seal(layer: Layer, mtime_s: int) -> None:
    """
    Make a layer say only what it holds; `mtime_s` is in seconds since 1970.

    Files that have the date already are not touched: touching one that an earlier step
    of the build wrote would copy it into this step's layer.
    """
    with layer.writes():
        for receipt in receipts.every(layer):
            plain = replace(receipt, verified_at=float(mtime_s), sources={})
            if plain != receipt:
                receipts.write(layer, plain)
        for name in _PASSING:
            shutil.rmtree(layer.root / name, ignore_errors=True)
        (layer.root / "layer.json").unlink(missing_ok=True)
        with suppress(OSError):  # something is half fetched
            (layer.root / ".staging").rmdir()
        for path in _everything(layer.root):
            if path.lstat().st_mtime_ns != mtime_s * 1_000_000_000:
                os.utime(path, (mtime_s, mtime_s))


def _everything(root: Path) -> Iterator[Path]:
    """Yield what is below a root, each folder after what is in it."""
    for where, _, names in os.walk(root, topdown=False):
        yield from (Path(where, name) for name in names)
        yield Path(where)
