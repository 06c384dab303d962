"""How fast the source in use brings bytes, over a while. Pure; the clock comes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tempo:
    """
    Measures a source while bytes are waited for, and at no other time.

    So neither a slow disk of ours, nor a pause that the source asked for, nor the
    hashing of what is there already is held against it.
    """

    window_s: float
    _index: int | None = None
    _waited: float = 0.0  #: seconds of the window that went by
    _from: int = 0  #: bytes that had come when it began
    _at: float = 0.0

    def note(self, index: int, came: int, now: float, *, waiting: bool) -> float | None:
        """
        Return bytes a second when a window is over, else None.

        Args:
            index: of the source; another one begins anew.
            came: bytes, ever.
            now: seconds of a monotonic clock.
            waiting: whether bytes of this source are waited for.
        """
        passed, self._at = now - self._at, now
        if index != self._index:
            self._index = index
            self._begin(came)
            return None
        if waiting:
            self._waited += passed
        if self._waited < self.window_s:
            return None
        rate = (came - self._from) / self._waited
        self._begin(came)
        return rate

    def _begin(self, came: int) -> None:
        self._waited, self._from = 0.0, came
