"""
The weights of a service as they are now: each file, all together, by model. Pure.

What the engines list counts, since they load the files. Where this process fetches
weights, what lies on the volume counts as well, and so does what is on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.comfy.scrub import scrub
from common.manifest_schema import WeightFile
from common.models.errors import ModelsError
from common.models.status import FileStatus

#: What an engine's list says where we do not look at the volume ourselves.
LISTED = {True: "present", False: "missing", None: "unknown"}


@dataclass(frozen=True)
class Weight:
    """One file, as it is now."""

    name: str
    folder: str  #: below `models`
    needed_for: str  #: "every request", "requests with image"
    known: WeightFile | None  #: what the manifest says
    listed: bool | None  #: by every engine; None = no engine says
    near: str | None = None  #: a file below `models` that is there and may be meant
    found: FileStatus | None = None  #: on the volume; None = we do not look there
    trouble: ModelsError | None = None  #: why it could not be fetched
    coming: bool = False  #: it is being fetched, or waits its turn
    live_bytes: int = 0  #: of it that are there while it is fetched

    @property
    def missing(self) -> bool | None:
        """Whether it cannot be loaded; None = unknown."""
        if self.found is not None and not self.found.usable:
            return True
        if self.listed is None:
            return None if self.found is None else False
        return not self.listed

    @property
    def state(self) -> str:
        """A word of `wan models status`, or of `LISTED`."""
        return LISTED[self.listed] if self.found is None else self.found.state.value

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, where that is known."""
        if self.found is not None and self.found.size is not None:
            return self.found.size
        return self.known.size if self.known else None

    @property
    def done_bytes(self) -> int:
        """Bytes that are there, as far as we can tell."""
        there = self.found.done_bytes if self.found is not None else 0
        return max(there, self.live_bytes)

    @property
    def why(self) -> str | None:
        """Why it is not there, without a folder or an address of this machine."""
        return None if self.trouble is None else scrub(self.trouble.message)


@dataclass(frozen=True)
class Overall:
    """All weights of a service together."""

    weights: tuple[Weight, ...]
    needed: frozenset[str]  #: files without which nothing works
    only_some: Mapping[str, str]  #: absent files, and which requests load them
    stage: str | None  #: "downloading" or "verifying", while files are fetched
    done_bytes: int  #: of the fetch
    total_bytes: int
    eta_s: float | None

    @property
    def state(self) -> str:
        """In a word: ready, downloading, verifying, missing or unknown."""
        if self.needed:
            return self.stage or "missing"
        unknown = any(one.missing is None for one in self.weights)
        return "unknown" if unknown else "ready"


@dataclass(frozen=True)
class Variant:
    """A variant of a model of the manifest that a service loads."""

    model: str
    name: str
    weights: tuple[Weight, ...]

    @property
    def state(self) -> str:
        """In a word: ready, missing or unknown."""
        states = {one.missing for one in self.weights}
        return "missing" if True in states else "unknown" if None in states else "ready"
