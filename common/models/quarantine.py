"""Files out of the way: what is wrong, or not ours, is moved and says why."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from common.disk import atomic_write
from common.models.layer import Layer, Weights
from common.models.naming import move


def quarantine(
    layer: Layer,
    file: Weights,
    path: Path,
    reason: str,
    sources: Mapping[str, object] | None = None,
    *,
    foreign: bool = False,
) -> Path:
    """
    Move a file out of the way and return the record that says why.

    Args:
        sources: what each one gave, as JSON; labels only.
        foreign: it is not ours; such a one is never removed by itself.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place = layer.root / ".quarantine" / f"{moment}-{secrets.token_hex(4)}"
    record = {
        "file": f"{file.folder}/{file.name}",
        "sha256": file.sha256,
        "was": path.relative_to(layer.root).as_posix(),
        "bytes": path.lstat().st_size,
        "reason": reason,
        "sources": dict(sources or {}),
        "foreign": foreign,
        "at": moment,
    }
    with layer.writes():
        layer.mkdir(place)
        atomic_write(place / "record.json", json.dumps(record, indent=1).encode())
        move(path, place / "data")
    return place / "record.json"


def only_last(layer: Layer, file: Weights) -> None:
    """Remove the bytes that came wrong before: a source that lies fills no volume."""
    found = []
    for record in (layer.root / ".quarantine").glob("*/record.json"):
        try:
            said = json.loads(record.read_bytes())
            same = said["file"] == f"{file.folder}/{file.name}"
            if same and said["was"].startswith(".staging/"):
                found.append((record.stat().st_mtime_ns, record.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for _, folder in sorted(found)[:-1]:
        shutil.rmtree(folder, ignore_errors=True)
