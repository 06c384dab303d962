"""
models.lock: what files turned out to be, so that they can be nothing else after.

The first verified fetch of a file records its size, its sha256 and a hash of each 64
MiB of it. With the last, a repair fetches what is bad and not everything, and what
one source has wrong comes from the next; what a file is, its sha256 alone says. For a
file that the manifest calls unverified the record is its identity: other bytes are
refused until somebody removes the entry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.disk import atomic_write
from common.manifest_schema import WeightFile
from common.models.errors import BadManifest, Corrupt, Locked, ReadOnly

SCHEMA = 1
SEGMENT_BYTES = 64 << 20  #: what a hash is stated for
_WAIT_S = 30.0  # a write takes milliseconds
_SHARED = 0o664  # the guard's: another user of the group may write as well

Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Xxh3 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Pinned(BaseModel):
    """What a file is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    size: Annotated[int, Field(gt=0)]  #: bytes
    sha256: Hex
    #: `segment_hash` of each `SEGMENT_BYTES` of it, the last one shorter; empty = not
    #: known
    segments: Annotated[tuple[Xxh3, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        whole = -(-self.size // SEGMENT_BYTES)
        if self.segments and len(self.segments) != whole:
            raise ValueError(
                f"{len(self.segments)} segments, and {whole} make the file"
            )
        return self


class _Text(BaseModel):
    """The lock as it is written; files by their place below `models`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_: Literal[1] = Field(alias="schema", default=1)
    segment_bytes: Literal[67108864] = 67108864  # SEGMENT_BYTES
    files: dict[str, Pinned] = Field(default_factory=dict)


@dataclass(frozen=True)
class Lock:
    """
    Several locks read as one, of which one is written.

    What is recorded after `load` by this process or another is not seen in `of`; load
    again, it takes a millisecond.
    """

    files: dict[str, Pinned]
    path: Path  #: the one that is written

    @classmethod
    def load(cls, *paths: Path) -> Lock:
        """
        Read locks that exist; an earlier one counts, and the last one is written.

        Raises:
            BadManifest: one cannot be read, or is of a form that we do not know.
        """
        files: dict[str, Pinned] = {}
        for path in reversed(paths):
            files |= _read(path).files
        return cls(files, paths[-1])

    def of(self, file: WeightFile) -> Pinned | None:
        """
        Return what a file was recorded as; None = nothing, or of other bytes.

        The manifest counts: a record of another sha256 than it says is out of date. The
        record may be of the same bytes under another name.
        """
        if file.sha256 is None:
            return self.files.get(file.path)
        here = self.files.get(file.path)
        same = [one for one in (here, *self.files.values()) if one is not None]
        return next((one for one in same if one.sha256 == file.sha256), None)

    def check(self, file: WeightFile, size: int, sha256: str) -> None:
        """
        Check that bytes are those that a file must have.

        Raises:
            Corrupt: the manifest or a record says otherwise.
        """
        _check(file, self.files.get(file.path), size, sha256, self.path)

    def record(
        self, file: WeightFile, size: int, sha256: str, segments: Sequence[str] = ()
    ) -> Lock:
        """
        Record what a file is, and return the lock that holds it.

        Raises:
            Corrupt: the manifest or a record says otherwise.
            Locked: another process is writing, for half a minute.
            ReadOnly: the lock cannot be written.
            BadManifest: what is there to be added to cannot be read.
        """
        new = Pinned(size=size, sha256=sha256, segments=tuple(segments))
        self.check(file, size, sha256)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            guard = self.path.with_name(f".{self.path.name}.guard")
            with FileLock(guard, timeout=_WAIT_S, mode=_SHARED):
                there = _read(self.path).files
                before = there.get(file.path)
                _check(file, before, size, sha256, self.path)
                if before and before.sha256 == sha256 and not segments:
                    new = before  # it may know the segments
                if before != new:
                    _write(self.path, {**there, file.path: new})
        except Timeout as error:
            raise Locked(f"{self.path}: another process is writing it") from error
        except OSError as error:
            raise ReadOnly(
                f"{self.path} cannot be written: {error.strerror}"
            ) from error
        return Lock({**there, **self.files, file.path: new}, self.path)


def as_known(file: WeightFile, pinned: Pinned | None) -> WeightFile:
    """Return a file with what models.lock says of it filled in."""
    if pinned is None or file.sha256 is not None:
        return file
    return file.model_copy(update={"size": pinned.size, "sha256": pinned.sha256})


def _check(
    file: WeightFile, before: Pinned | None, size: int, sha256: str, path: Path
) -> None:
    known: list[tuple[str, int | None, str | None]] = [
        ("the manifest", file.size, file.sha256)
    ]
    if file.unverified and before is not None:
        known.append((path.name, before.size, before.sha256))
    for who, its_size, its_sha256 in known:
        if its_size in (None, size) and its_sha256 in (None, sha256):
            continue
        hint = None
        if who == path.name:
            hint = (
                f"if its publisher replaced it, and you trust that, remove"
                f' "{file.path}" from {path}'
            )
        raise Corrupt(
            f"{file.path} has {size} bytes and sha256 {sha256}; {who} says"
            f" {its_size if its_size is not None else 'no size'} and"
            f" {its_sha256 or 'no sha256'}",
            hint,
        )


def _read(path: Path) -> _Text:
    try:
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return _Text()
    except (OSError, ValueError) as error:
        raise BadManifest(
            f"{path}: the lock cannot be read: {error}",
            "restore it from a copy, or move it away",
        ) from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        raise BadManifest(
            f"{path}: its schema is {schema!r}, and this release reads {SCHEMA}",
            "a newer release wrote it; use that one",
        )
    try:
        return _Text.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadManifest(f"{path}: {key}: {first['msg']}") from error


def _write(path: Path, files: dict[str, Pinned]) -> None:
    """Replace the lock whole: a reader sees the old one or the new one."""
    text = _Text(files=dict(sorted(files.items())))
    atomic_write(path, text.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
