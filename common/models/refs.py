"""
Which models use which bytes, when last, and which are pinned: what gc must not take.

One small file per model, written when the model is used, and one empty file per pin, so
that a pod that says "used now" never undoes another's pin.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.disk import atomic_write
from common.models.errors import BadManifest, Missing
from common.models.layer import Layer

SCHEMA = 1
#: seconds: a use that is said again sooner is not written again
_FRESH = 60.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}")


@dataclass(frozen=True)
class Ref:
    """The last use of one model on this volume."""

    model: str  #: "t2v-A14B@2.2.0"
    keys: frozenset[str]  #: sha256 of its files
    last_used: float  #: seconds since 1970
    digest: str = ""  #: of the manifest that said so
    schema: int = SCHEMA


_REF = TypeAdapter(Ref)


def touch(
    layer: Layer,
    model: str,
    keys: Iterable[str],
    *,
    digest: str = "",
    now: float | None = None,
) -> None:
    """
    Say that a model is used now.

    Raises:
        BadManifest: its id makes no file name.
        ReadOnly, NoSpace: it cannot be written.
    """
    now = time.time() if now is None else now
    ref = Ref(model, frozenset(keys), now, digest)
    path = _path(layer, model, ".json")
    old = _read(path)
    same = old is not None and (old.keys, old.digest) == (ref.keys, ref.digest)
    if same and old is not None and 0 <= now - old.last_used < _FRESH:
        return
    with layer.writes():
        layer.mkdir(path.parent)
        atomic_write(path, _REF.dump_json(ref, indent=1))


def load(layer: Layer) -> tuple[Ref, ...]:
    """Return the last use of each model; what cannot be read is passed over."""
    paths = sorted((layer.root / "refs").glob("*.json"))
    return tuple(ref for path in paths if (ref := _read(path)) is not None)


def pin(layer: Layer, model: str, keys: Iterable[str]) -> None:
    """Keep a model's files whatever happens; `keys` as in `touch`."""
    touch(layer, model, keys)
    with layer.writes():
        _path(layer, model, ".pin").touch()


def unpin(layer: Layer, model: str) -> None:
    """
    Let gc decide again.

    Raises:
        Missing: it is not pinned.
    """
    with layer.writes():
        try:
            _path(layer, model, ".pin").unlink()
        except FileNotFoundError:
            raise Missing(f"{model} is not pinned") from None


def pins(layer: Layer) -> frozenset[str]:
    """Return the ids of the pinned models."""
    return frozenset(path.stem for path in (layer.root / "refs").glob("*.pin"))


def _path(layer: Layer, model: str, suffix: str) -> Path:
    if _ID.fullmatch(model) is None:
        raise BadManifest(f"{model!r} is no id of a model")
    return layer.root / "refs" / f"{model}{suffix}"


def _read(path: Path) -> Ref | None:
    try:
        ref = _REF.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return ref if ref.schema == SCHEMA else None
