"""
Remove what no model needs: list, decide, move to the trash, delete.

Moving happens while nobody else may look (`leases.collecting`) and is quick; deleting
30 GB takes a while on a network volume and happens afterwards. A process that is killed
in between leaves a trash that the next run empties.
"""

from __future__ import annotations

import errno
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.disk import DISK_FULL
from common.models import leases, refs
from common.models.errors import BadManifest
from common.models.garbage import Plan, Question, Removal, Roots, decide
from common.models.layer import Layer
from common.models.layers import Layers
from common.models.listing import listing

DAY_S = 86_400.0


@dataclass
class Collected:
    """What a run did."""

    removed: list[Removal] = field(default_factory=list)
    failed: list[tuple[Removal, str]] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        """Bytes that the volume has more."""
        return sum(removal.bytes for removal in self.removed)


class GarbageCollector:
    """
    Keeps the writable layer clean.

    Args:
        layers: only the last is cleaned.
        configured: sha256 or key of each file that the manifest names.
        grace_s: seconds that everything young is left alone.
        settings: of the leases.
    """

    def __init__(
        self,
        layers: Layers,
        configured: Iterable[str],
        *,
        grace_s: float = 3600.0,
        settings: leases.LeaseSettings = leases.SETTINGS,
    ) -> None:
        self._layers = layers
        self._configured = frozenset(configured)
        self._grace_s = grace_s
        self._settings = settings

    def plan(
        self,
        max_bytes: int | None = None,
        keep_days: float = 30.0,
        now: float | None = None,
        *,
        placed: bool = False,
        foreign: bool = False,
    ) -> Plan:
        """
        Return what would go; changes nothing.

        Args:
            max_bytes: what the layer may hold. What only the manifest names goes.
            keep_days: a model that was used within so many days stays.
            now: seconds since 1970; None = now.
            placed: verified files that somebody put there by hand may go too.
            foreign: other tools' half files and quarantined strangers may go too.

        Raises:
            ReadOnly: no layer is ours to clean.
            BadManifest: a record of a use or a pin cannot be read.
        """
        keep_s = keep_days * DAY_S
        asked = Question(max_bytes, keep_s, self._grace_s, placed, foreign)
        return self._decide(asked, time.time() if now is None else now)

    def collect(self, plan: Plan, now: float | None = None) -> Collected:
        """
        Do what a plan says, as far as it still holds; files in use meanwhile stay.

        Raises:
            Locked: somebody reads for longer than a minute.
        """
        layer, done = self._layers.writable, Collected()
        trash = layer.root / ".trash"
        with leases.collecting(layer), layer.writes():
            fresh = self._decide(plan.asked, time.time() if now is None else now)
            still = {(removal.kind, removal.paths) for removal in fresh.removals}
            for removal in plan.removals:
                if (removal.kind, removal.paths) not in still:
                    continue
                try:
                    _discard(layer, removal, trash)
                    done.removed.append(removal)
                except OSError as error:  # Windows, while somebody has it open
                    done.failed.append((removal, str(error.strerror)))
        shutil.rmtree(trash, ignore_errors=True)
        return done

    def _decide(self, asked: Question, now: float) -> Plan:
        layer = self._layers.writable
        return decide(listing(layer), self._roots(layer), asked, now)

    def _roots(self, layer: Layer) -> Roots:
        known = {ref.model: ref for ref in refs.load(layer)}
        # Whose files are not known cannot be kept: better nothing goes at all.
        for path in (layer.root / "refs").glob("[!.]*"):
            if path.suffix in (".json", ".pin") and path.stem not in known:
                raise BadManifest(
                    f"{path} cannot be read",
                    hint="pin or ensure the model again, or remove the file",
                )
        used: dict[str, float] = {}
        for ref in known.values():
            for key in ref.keys:
                used[key] = max(used.get(key, 0.0), ref.last_used)
        pinned = (known[model].keys for model in refs.pins(layer))
        return Roots(
            self._configured,
            frozenset().union(*pinned),
            leases.live(layer, self._settings),
            used,
        )


def _discard(layer: Layer, removal: Removal, trash: Path) -> None:
    """Move to the trash: ComfyUI's names first, then the receipt, then the bytes."""
    if removal.kind == "trash":
        return
    place: Path | None
    try:
        place = layer.mkdir(trash / secrets.token_hex(8))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        place = None  # no room for a folder: then it is deleted here and now
    for number, path in enumerate(removal.paths):
        if removal.sha256 is not None and path == layer.blob(removal.sha256):
            layer.receipt(removal.sha256).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            if place is not None and _moved(path, place / str(number)):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    if removal.sha256 is not None:
        layer.receipt(removal.sha256).unlink(missing_ok=True)


def _moved(path: Path, to: Path) -> bool:
    """Move a path, and say if it could be: `models` may be a link to another volume."""
    try:
        path.rename(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True
