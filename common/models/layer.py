"""
One root on disk: where it keeps what, what its volume can do, whether we may write.

    ROOT/layer.json                  schema, id, mode, capabilities
    ROOT/blobs/sha256/ab/<64 hex>    the bytes, once each (mode "store")
    ROOT/models/<folder>/<name>      hard link, relative symlink, or the file itself
    ROOT/receipts/<64 hex>.json      that and when a file's bytes were hashed
    ROOT/refs/                       which models use what, and when last
    ROOT/.staging/<key>/             what is being fetched
    ROOT/.locks/  .trash/  .quarantine/
"""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from pydantic import TypeAdapter

from common.disk import DISK_FULL, atomic_write
from common.models.access import HINT, refusal, whose
from common.models.errors import BadManifest, NoSpace, ReadOnly
from common.models.probe import Capabilities, filesystem, probe

SCHEMA = 1
Mode = Literal["store", "direct"]

ROOM = "free some space; `wan models gc --max-bytes SIZE` removes what is used least"
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_NOTHING = Capabilities(False, False, False, "")


class Weights(Protocol):
    """What the store must know of a file; the manifest's `WeightFile` is one."""

    @property
    def name(self) -> str:
        """File name below the folder; may hold "/"."""

    @property
    def folder(self) -> str:
        """ComfyUI's folder: "vae"."""

    @property
    def size(self) -> int | None:
        """Bytes, when they are known."""

    @property
    def sha256(self) -> str | None:
        """Lower-case hex, when it is known."""

    @property
    def key(self) -> str:
        """What staging and lease are named by."""


@dataclass(frozen=True)
class Modes:
    """Permissions of what we make; the group may write, for a volume that is shared."""

    file: int = 0o444
    folder: int = 0o2775


MODES = Modes()


@dataclass(frozen=True)
class Layer:
    """One root. Only reading it makes nothing on the disk."""

    root: Path
    id: str
    mode: Mode
    capabilities: Capabilities
    writable: bool
    mtime_s: int | None = (
        None  #: what each file is dated, so that images build the same
    )
    modes: Modes = MODES
    refusal: str = ""  #: why it is not writable

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        writable: bool = True,
        mode: Mode | None = None,
        mtime_s: int | None = None,
        modes: Modes = MODES,
    ) -> Layer:
        """
        Open a root, and probe its volume the first time.

        Args:
            root: made when it is not there and `writable`.
            writable: False = never written; so is a root that takes no writes.
            mode: None = as before, at first "store" where links work.
            mtime_s: seconds since 1970, for a baked layer; None = as before.
            modes: permissions.

        Raises:
            BadManifest: its layer.json is broken or of another schema.
            NoSpace: it is new, and its volume is full.
        """
        root = root.absolute()
        said = _read(root / "layer.json")
        id_ = "" if said is None else said.id
        if not writable:
            why = "it is only read" if root.exists() else "it is not there"
            return cls(root, id_, "direct", _NOTHING, False, refusal=why)
        able = _able(root, said, modes)
        if isinstance(able, str):
            return cls(root, id_, "direct", _NOTHING, False, refusal=able)
        usual: Mode = "store" if able.hardlink or able.symlink else "direct"
        now = _Said(
            SCHEMA,
            secrets.token_hex(16) if said is None else said.id,
            mode or (usual if said is None else said.mode),
            said.mtime_s if said is not None and mtime_s is None else mtime_s,
            able,
        )
        layer = cls(root, now.id, now.mode, able, True, now.mtime_s, modes)
        if now != said:
            with layer.writes():
                atomic_write(root / "layer.json", _SAID.dump_json(now, indent=1))
        return layer

    def blob(self, sha256: str) -> Path:
        """Where the bytes of that hash are in mode "store"."""
        return self.root / "blobs" / "sha256" / sha256[:2] / sha256

    def view(self, folder: str, name: str) -> Path:
        """
        Where ComfyUI finds a file.

        Raises:
            BadManifest: the name leads out of the folder.
        """
        path = PurePosixPath(folder, name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or set('\\:*?"<>|\0') & set(str(path))
        ):
            raise BadManifest(f"{folder}/{name} is no name of a file")
        return self.root / "models" / path

    def receipt(self, sha256: str) -> Path:
        """Where it is written that the bytes were hashed."""
        return self.root / "receipts" / f"{sha256}.json"

    def staging(self, key: str) -> Path:
        """Return the folder to fetch a file into, made when it is not there."""
        with self.writes():
            return self.mkdir(self.root / ".staging" / key)

    def lock(self, name: str) -> Path:
        """Where a lock of that name is kept; its folder is made."""
        with self.writes():
            return self.mkdir(self.root / ".locks") / name

    def mkdir(self, folder: Path) -> Path:
        """Make a folder below the root, with our permissions."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            with suppress(OSError):  # made by another user of the volume just now
                folder.chmod(self.modes.folder)
        return folder

    @contextmanager
    def writes(self) -> Iterator[None]:
        """
        Say in our words what the disk says to writing.

        Raises:
            ReadOnly: this layer takes no writes.
            NoSpace: it is full.
        """
        if not self.writable:
            raise ReadOnly(f"{self.root} takes no writes: {self.refusal}", HINT)
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL:
                raise NoSpace(f"{self.root} is full", ROOM) from error
            if error.errno in REFUSED:
                raise ReadOnly(*_refused(self.root, error)) from error
            raise


def _refused(root: Path, error: OSError) -> tuple[str, str]:
    """Return what the disk refuses, and whose it is."""
    path = Path(error.filename or root)
    while not path.exists():
        path = path.parent
    return f"{error.filename or root}: {error.strerror}", whose(path)


@dataclass(frozen=True)
class _Said:
    """layer.json."""

    schema: int
    id: str
    mode: Mode
    mtime_s: int | None
    capabilities: Capabilities


_SAID = TypeAdapter(_Said)


def _read(path: Path) -> _Said | None:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        schema = json.loads(text)["schema"]
        if schema != SCHEMA:
            raise BadManifest(
                f"{path} is of schema {schema}, this version knows {SCHEMA}",
                hint="update, or name another root",
            )
        return _SAID.validate_json(text)
    except (ValueError, KeyError, TypeError) as error:
        raise BadManifest(
            f"{path} cannot be read", hint="remove it: it is written anew"
        ) from error


def _able(root: Path, said: _Said | None, modes: Modes) -> Capabilities | str:
    """Return what the volume can do, asked anew if it is another; or why not."""
    try:
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(modes.folder)
        refused = refusal(root)
        if refused is not None:
            return refused
        if said is None:
            return probe(root)
        if said.capabilities.filesystem == filesystem(root):
            return said.capabilities
        # Moved, or mounted by two hosts in two ways: then both must use leases, so what
        # one of them found untrue of `flock` stays untrue.
        able = probe(root)
        return replace(able, flock=able.flock and said.capabilities.flock)
    except (FileExistsError, NotADirectoryError) as error:
        return f"{error.filename} is not a folder"
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace(f"{root} is full", ROOM) from error
        if error.errno in REFUSED:
            return _refused(root, error)[1]
        return f"{error.filename or root}: {error.strerror}"
