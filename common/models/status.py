"""What is there of files and models, for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.manifest_schema import WeightFile
from common.models.layers import State
from common.sizes import human

ModelState = Literal["ready", "partial", "absent", "corrupt"]


@dataclass(frozen=True)
class FileStatus:
    """One file of the manifest, as it is on this machine."""

    file: WeightFile
    state: State
    done_bytes: int  #: that are there
    size: int | None  #: of the whole file
    sha256: str | None  #: that it must have, where that is known
    usable: bool
    path: Path | None = None
    layer: Path | None = None  #: the root that has it
    reason: str | None = None  #: why it is not verified
    near: Path | None = None  #: a file that is there and has nearly that name

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "file": self.file.name,
            "folder": self.file.folder,
            "state": self.state.value,
            "usable": self.usable,
            "done_bytes": self.done_bytes,
            "size_bytes": self.size,
            "sha256": self.sha256,
            "licence": self.file.licence,
            "path": None if self.path is None else str(self.path),
            "layer": None if self.layer is None else str(self.layer),
            "reason": self.reason,
            "near": None if self.near is None else str(self.near),
        }


@dataclass(frozen=True)
class ModelStatus:
    """One variant of a model."""

    id: str
    variant: str
    files: tuple[FileStatus, ...]
    pinned: bool = False  #: gc leaves it alone

    @property
    def state(self) -> ModelState:
        """The worst that keeps it from being loaded."""
        return state_of(self.files)

    @property
    def done_bytes(self) -> int:
        """Bytes that are there."""
        return sum(one.done_bytes for one in self.files)

    @property
    def size(self) -> int:
        """Bytes of it all, as far as sizes are known."""
        return sum(one.size or one.done_bytes for one in self.files)

    @property
    def size_said(self) -> str:
        """The same for people, who are told where more will come."""
        return over(self.size, self.files)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "model": self.id,
            "variant": self.variant,
            "state": self.state,
            "pinned": self.pinned,
            "done_bytes": self.done_bytes,
            "size_bytes": self.size,
            "files": [one.as_dict() for one in self.files],
        }


def over(size: int, files: Iterable[FileStatus]) -> str:
    """Return a sum of files' sizes for people; more where one is not known yet."""
    unknown = any(one.size is None and not one.usable for one in files)
    return f"over {human(size)}" if unknown else human(size)


def state_of(files: Sequence[FileStatus]) -> ModelState:
    """Return the state of files that are loaded together."""
    states = {one.state for one in files}
    if all(one.usable for one in files):
        return "ready"
    if State.CORRUPT in states:
        return "corrupt"
    there = any(one.usable or one.done_bytes for one in files)
    return "partial" if there else "absent"
