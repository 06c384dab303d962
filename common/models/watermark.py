"""Hashing a file while it arrives: a thread that follows its contiguous beginning."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

#: Bytes hashed at a time: hashlib lets go of the interpreter, and they fit a cache.
CHUNK = 1 << 17


class Watermark:
    """How many bytes from the start of a file are there for good."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._bytes = 0
        self._over = False

    def move(self, to: int) -> None:
        """Say that the first `to` bytes are there."""
        with self._moved:
            if to > self._bytes:
                self._bytes = to
                self._moved.notify_all()

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self._bytes

    def stop(self) -> None:
        """Wake all who wait: no more will come."""
        with self._moved:
            self._over = True
            self._moved.notify_all()

    def after(self, position: int) -> int:
        """Wait until there are more than `position` bytes; `position` = stopped."""
        with self._moved:
            self._moved.wait_for(lambda: self._over or self._bytes > position)
            return position if self._over else self._bytes


class Hasher(threading.Thread):
    """
    Hashes a growing file from its start; `sha256` is there once it is `complete`.

    `read(view, offset)` fills a view. It has `failed` when bytes that were said to be
    there could not be read.
    """

    def __init__(
        self,
        watermark: Watermark,
        size: int,
        read: Callable[[memoryview, int], int],
    ) -> None:
        super().__init__(name="hasher", daemon=True)
        self.sha256 = ""
        self.complete = False
        self.failed = False
        self._watermark = watermark
        self._size = size
        self._read = read

    def run(self) -> None:
        """Follow the watermark to the end of the file."""
        try:
            self._follow()
        except OSError:
            self.failed = True

    def _follow(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        position, running = 0, hashlib.sha256()
        while position < self._size:
            there = self._watermark.after(position)
            if there == position:
                return
            while position < there:
                view = buffer[: min(CHUNK, there - position)]
                if self._read(view, position) < len(view):
                    self.failed = True
                    return
                running.update(view)
                position += len(view)
        self.sha256 = running.hexdigest()
        self.complete = True
