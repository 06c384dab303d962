"""
What may go from a layer, decided from a listing: no disk, no clock.

Stays whatever happens: what a pinned model or one used lately has, what is being
fetched, what is young, what has a name we did not give, and what a hand put there. What
only the manifest names goes, least recently used first, when `max_bytes` asks for it.
The rest goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

#: seconds that quarantined and foreign leftovers stay, so that somebody can look
LOOK_S = 86_400.0

Kind = Literal["staging", "trash", "quarantine", "part", "foreign"]


@dataclass(frozen=True)
class Blob:
    """Verified bytes, with all the names that we gave them."""

    sha256: str
    paths: tuple[Path, ...]  #: ComfyUI's names first, the one in `blobs/` last
    bytes: int  #: on the disk, once
    verified_at: float  #: seconds since 1970
    placed: bool = False  #: a hand put it there, it was not fetched
    elsewhere: bool = (
        False  #: it has a hard link that is not ours: removing frees nothing
    )


@dataclass(frozen=True)
class Scrap:
    """Something else of ours, or another tool's leftover."""

    kind: Kind
    paths: tuple[Path, ...]
    bytes: int
    changed_at: float
    key: str = ""  #: of what is being fetched
    asked: bool = False  #: goes only when it is asked for


@dataclass(frozen=True)
class Listing:
    """One layer."""

    blobs: tuple[Blob, ...]
    scraps: tuple[Scrap, ...]


@dataclass(frozen=True)
class Roots:
    """What keeps bytes; each is named by sha256, or by key while it is fetched."""

    configured: frozenset[str]  #: the manifest names it
    pinned: frozenset[str]
    live: frozenset[str]  #: somebody holds its lease
    used: Mapping[str, float]  #: seconds since 1970


@dataclass(frozen=True)
class Question:
    """What was asked; times in seconds."""

    max_bytes: int | None
    keep_s: float
    grace_s: float
    placed: bool = False  #: what hands put there may go too
    foreign: bool = False  #: so may other tools' half files, and quarantined strangers


@dataclass(frozen=True)
class Removal:
    """One thing that goes."""

    kind: str  #: "blob", or the scrap's
    paths: tuple[Path, ...]
    bytes: int
    why: str
    sha256: str | None = None


@dataclass(frozen=True)
class Plan:
    """What goes, and what that leaves."""

    asked: Question
    removals: tuple[Removal, ...]
    kept_bytes: int
    over_bytes: int  #: what `max_bytes` is still exceeded by

    @property
    def freed_bytes(self) -> int:
        """Bytes that the volume has more afterwards."""
        return sum(removal.bytes for removal in self.removals)

    def as_json(self) -> dict[str, Any]:
        """Return the answer of `wan models gc --dry-run --json`."""
        return {
            "freed_bytes": self.freed_bytes,
            "kept_bytes": self.kept_bytes,
            "over_bytes": self.over_bytes,
            "removals": [
                asdict(removal) | {"paths": [str(path) for path in removal.paths]}
                for removal in self.removals
            ],
        }


def decide(listing: Listing, roots: Roots, asked: Question, now: float) -> Plan:
    """Return what goes from a layer at a moment."""
    gone: list[Removal] = []
    spare: list[tuple[float, Removal]] = []  # last used, and what may go for room
    whole = {blob.sha256 for blob in listing.blobs}
    for blob in listing.blobs:
        used = roots.used.get(blob.sha256, blob.verified_at)
        if _kept(blob, roots, asked, now, used):
            continue
        if blob.sha256 in roots.configured:
            spare.append((used, _blob(blob, "least recently used")))
        else:
            gone.append(_blob(blob, "no model uses it"))
    for scrap in listing.scraps:
        if scrap.kind != "trash" and not _old(scrap, roots, asked, now):
            continue
        removal = Removal(scrap.kind, scrap.paths, scrap.bytes, _WHY[scrap.kind])
        # What is half fetched of a model that is wanted is worth its room.
        if scrap.key in roots.configured and scrap.key not in whole:
            spare.append((scrap.changed_at, removal))
        else:
            gone.append(removal)
    total = sum(blob.bytes for blob in listing.blobs)
    total += sum(scrap.bytes for scrap in listing.scraps)
    total -= sum(removal.bytes for removal in gone)
    over = 0 if asked.max_bytes is None else total - asked.max_bytes
    for _, removal in sorted(spare, key=lambda one: one[0]):
        if over <= 0:
            break
        gone.append(removal)
        total -= removal.bytes
        over -= removal.bytes
    return Plan(asked, tuple(gone), total, max(0, over))


_WHY: dict[Kind, str] = {
    "staging": "nobody fetches it",
    "trash": "was moved there to be deleted",
    "quarantine": "was found to be wrong over a day ago",
    "part": "was left by a process that was killed",
    "foreign": "was left half by another tool",
}


def _kept(blob: Blob, roots: Roots, asked: Question, now: float, used: float) -> bool:
    key = blob.sha256
    recently = key in roots.used and now - used < max(asked.keep_s, asked.grace_s)
    return (
        key in roots.pinned
        or key in roots.live
        or recently
        or now - blob.verified_at < asked.grace_s
        or blob.elsewhere
        or (blob.placed and not asked.placed)
    )


def _old(scrap: Scrap, roots: Roots, asked: Question, now: float) -> bool:
    if scrap.key in roots.live or (scrap.asked and not asked.foreign):
        return False
    looks = scrap.kind in ("quarantine", "foreign")
    return now - scrap.changed_at >= (LOOK_S if looks else asked.grace_s)


def _blob(blob: Blob, why: str) -> Removal:
    return Removal("blob", blob.paths, blob.bytes, why, blob.sha256)
