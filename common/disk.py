"""
Files that are whole or absent, also after a crash.

A file is written beside its final name as `.NAME.RANDOM.part`, flushed to the disk and
renamed; readers see the old file, the new one or none. `remove_parts` clears what a
killed process left.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: what the system says when a disk, or a quota, is full
DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Lend a free name beside `path` to write to; what is left there is removed."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield part
    finally:
        # Gone after a rename. Windows refuses while a virus scanner has it open;
        # that must not hide the error we came here with.
        with suppress(OSError):
            part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove what a killed process left half written; call when nothing writes."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def publish_part(part: Path, path: Path) -> None:
    """Give a written part its final name, on the disk; a failure leaves neither."""
    flush(part)
    part.replace(path)
    try:
        fsync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that no reader, and no crash, ever shows half of it."""
    with partial(path) as part:
        part.write_bytes(data)
        publish_part(part, path)


def link_or_copy(source: Path, path: Path) -> None:
    """Give `source` a second name, or copy it where links are not possible."""
    with partial(path) as part:
        try:
            os.link(source, part)
        except OSError:  # another volume, or a file system without hard links
            shutil.copyfile(source, part)
        publish_part(part, path)


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    # Windows flushes only through a handle that may write.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows cannot be asked."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Return the free bytes of the volume that holds, or would hold, `path`."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
