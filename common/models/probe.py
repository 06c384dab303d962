"""
What a volume can do, found out by doing it.

Network and FUSE volumes say yes to calls that they do not carry out. `flock` is the
worst: some volumes let every caller have the lock (Lustre, GPFS and NFS with some mount
options). So each ability is tried once, and written into `layer.json`.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

#: Linux's file systems of one machine: no other host can pass a lock by
_LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs"})
_LOCAL |= {"ntfs", "ntfs3", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}

# What a second process does, without the time that importing filelock takes.
_ASK = """
import sys
with open(sys.argv[1], "r+b") as file:
    try:
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(42)
"""


@dataclass(frozen=True)
class Capabilities:
    """What was tried, and whether it worked."""

    hardlink: bool
    symlink: bool
    flock: bool  #: keeps threads and processes apart, and no other host has the volume
    filesystem: str  #: "ext4", "nfs4", "fuse.x"; "" = this system does not say


def probe(root: Path) -> Capabilities:
    """
    Try a folder's volume; leaves nothing behind, takes about 50 ms.

    Raises:
        OSError: nothing can be written there.
    """
    folder = root / f".probe-{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        (folder / "file").write_bytes(b"probe")
        kind = filesystem(root)
        local = kind in _LOCAL or not sys.platform.startswith("linux")
        return Capabilities(
            hardlink=_works(lambda: _hardlink(folder)),
            symlink=_works(lambda: _symlink(folder)),
            flock=local and _works(lambda: _flock(folder / "lock")),
            filesystem=kind,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds `path`; "" where Linux isn't."""
    best, kind = "", ""
    place = f"{os.path.realpath(path)}/"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
            mount, _, kinds = line.partition(" - ")
            # Blanks in a path are written as \040, which is Python's own escape.
            point = (
                mount.split()[4].encode("latin-1", "replace").decode("unicode_escape")
            )
            point = f"{point.rstrip('/')}/"
            if place.startswith(point) and len(point) >= len(best):
                best, kind = point, kinds.split()[0]
    return kind


def _works(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    # What os has no way to do on a platform, it says by NotImplementedError.
    except (OSError, NotImplementedError, ctypes.ArgumentError):
        return False


def _hardlink(folder: Path) -> bool:
    os.link(folder / "file", folder / "hard")
    return (folder / "file").samefile(folder / "hard")


def _symlink(folder: Path) -> bool:
    (folder / "soft").symlink_to("file")
    return (folder / "soft").read_bytes() == b"probe"


def _flock(path: Path) -> bool:
    """Whether a held lock refuses a second handle and a second process."""
    with FileLock(path, is_singleton=False, fallback_to_soft=False):
        try:
            with FileLock(
                path, is_singleton=False, blocking=False, fallback_to_soft=False
            ):
                return False
        except Timeout:
            pass
        asked = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _ASK, str(path)],
            timeout=30,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    return asked.returncode == 42
