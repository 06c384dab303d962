"""Room on the volume: refuse a plan that cannot fit, hold the room of one that can."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from common.disk import DISK_FULL, free_bytes
from common.models.errors import NoSpace
from common.sizes import human

_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


def preflight(plan_bytes: int, partial_bytes: int, root: Path, margin: int) -> int:
    """
    Return the bytes that are free, when the whole plan fits.

    Args:
        plan_bytes: the files' sizes together.
        partial_bytes: what of them takes room already: see `allocated`.
        root: a folder on the volume; need not be there yet.
        margin: bytes to leave free, for receipts, outputs and what others write
            meanwhile; for a plan that needs nothing it is not asked.

    Raises:
        NoSpace: with the numbers.
    """
    free = free_bytes(root)
    missing = plan_bytes - partial_bytes
    if missing > 0 and free < missing + margin:
        short = missing + margin - free
        raise NoSpace(
            f"{human(missing)} are to be fetched and {human(margin)} to stay free, "
            f"but {root} has {human(free)}: {human(short)} too little",
            hint="free space, run `wan models gc`, or name a larger volume",
        )
    return free


def allocated(path: Path) -> int:
    """Return the bytes that a file takes on its volume; 0 when it is not there."""
    try:
        return taken(path.stat())
    except FileNotFoundError:
        return 0


def taken(found: os.stat_result) -> int:
    """Return the bytes on the disk: a sparse file's size is only a promise."""
    blocks: int | None = getattr(found, "st_blocks", None)  # Windows has none
    return found.st_size if blocks is None else blocks * 512


def reserve(fd: int, nbytes: int) -> None:
    """
    Make an open file `nbytes` long and hold the room for it, at once.

    Where the volume cannot reserve, the free space is looked at and the file made
    sparse: less, and a volume that others fill is `NoSpace` later all the same.

    Raises:
        NoSpace: the room is not there; the file is as long as before.
    """
    try:
        if fallocate(fd, nbytes):
            return
        _check_free(fd, nbytes)
        os.ftruncate(fd, nbytes)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace(
                f"the volume has no room for {human(nbytes)}",
                hint="free space, or run `wan models gc`",
            ) from error
        if error.errno == errno.EFBIG:
            raise NoSpace(
                f"the volume takes no file of {human(nbytes)}",
                hint="FAT32 ends at 4 GiB: use another file system",
            ) from error
        raise


def fallocate(fd: int, nbytes: int) -> bool:
    """
    Reserve by fallocate(2); False where the system or the file system has none.

    Not `os.posix_fallocate`: where the file system lacks it, glibc writes each block,
    which takes 2.4 s per GiB on a disk and the model twice over a network.

    Raises:
        OSError: ENOSPC and its like.
    """
    call = _fallocate()
    if call is None:
        return False
    while call(fd, 0, 0, nbytes) != 0:
        code = ctypes.get_errno()
        if code in _NO_FALLOCATE:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


@cache
def _fallocate() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    # glibc's plain one takes 32 bits on 32-bit systems; musl has no other.
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        call.restype = ctypes.c_int
    return call


def start_writing(fd: int, offset: int, nbytes: int) -> None:
    """
    Have the kernel begin to write dirty pages, and wait for nothing.

    So that the flush before publishing finds little to do. `fdatasync` would do the
    same and make the transfer wait for the disk: 2 GiB came a fifth slower.
    """
    call = _sync_file_range()
    if call is not None:
        call(fd, offset, nbytes, 2)  # SYNC_FILE_RANGE_WRITE; a refusal does no harm


@cache
def _sync_file_range() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call


def _check_free(fd: int, nbytes: int) -> None:
    if sys.platform == "win32":
        return  # there a longer file takes its room at once, or fails
    volume, there = os.fstatvfs(fd), os.fstat(fd)
    if volume.f_bavail * volume.f_frsize < nbytes - there.st_blocks * 512:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
