"""The sha256 of a file: one thread reads while another hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from common.models.errors import Corrupt, Stopped

_BLOCK = 4 << 20

Progress = Callable[[int, int], None]  #: bytes done, bytes in all


def digest(
    path: Path, progress: Progress | None = None, stop: Event | None = None
) -> str:
    """
    Return the sha256 of a file, at the speed of the slower of disk and hash.

    Raises:
        Stopped: `stop` was set.
        Corrupt: somebody writes to the file.
    """
    hasher, done = hashlib.sha256(), 0
    before = path.stat()
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as reader:
        coming = reader.submit(file.read, _BLOCK)
        while block := coming.result():
            coming = reader.submit(file.read, _BLOCK)
            if stop is not None and stop.is_set():
                raise Stopped(f"stopped while reading {path.name}")
            hasher.update(block)
            done += len(block)
            if progress is not None:
                progress(done, before.st_size)
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (done, before.st_mtime_ns):
        raise Corrupt(f"{path.name} is being written to")
    return hasher.hexdigest()
