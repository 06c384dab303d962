"""A stop sign for one file that also heeds the caller's own."""

from __future__ import annotations

import threading
import time

_LOOK_S = 0.1  #: how soon the caller's sign is seen by who waits on ours


class Halt(threading.Event):
    """Set when it is set, or when its parent is."""

    def __init__(self, parent: threading.Event) -> None:
        super().__init__()
        self._parent = parent

    def is_set(self) -> bool:
        """Whether either is set."""
        return super().is_set() or self._parent.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until either is set, or the time is over; return whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _LOOK_S if end is None else min(_LOOK_S, end - time.monotonic())
            if left <= 0:
                break
            super().wait(left)
        return self.is_set()
