"""Which blocks of a file are missing, on their way, or there. Pure; its user locks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MISSING, CLAIMED, TAKEN, WRITING, HELD, DONE = range(6)


@dataclass(eq=False)
class Piece:
    """
    A run of blocks that one connection brings, from `at` to before `end`.

    `end` moves down when another connection takes over the rest.
    """

    at: int
    end: int
    began: float  #: seconds, monotonic
    bytes: int = 0  #: brought so far
    partial: int = 0  #: bytes of the block that is coming

    def seconds_left(self, now: float, block: int) -> float:
        """Return how long this piece still takes at the pace it had."""
        left = (self.end - self.at) * block
        return left * (now - self.began) / self.bytes if self.bytes else float("inf")


class Board:
    """
    The state of each block.

    MISSING, or CLAIMED by a journal and not checked yet, or TAKEN by a piece, then
    WRITING, then DONE. With a `gate` (blocks per segment) a written block is only HELD
    until its segment passes. `mark` is how many blocks from the start are DONE.
    """

    def __init__(
        self, blocks: int, claimed: Iterable[int] = (), gate: int | None = None
    ) -> None:
        self.blocks = blocks
        self.mark = 0
        self.done = 0
        self.there = 0  #: HELD or DONE
        self.writing = 0
        self.pieces: list[Piece] = []
        self._gate = gate
        self._state = bytearray(blocks)
        for block in claimed:
            self._state[block] = CLAIMED
        self.missing = self._state.count(MISSING)

    def take(self, most: int, now: float) -> Piece | None:
        """Take the first missing blocks, `most` of them at most."""
        start = self._state.find(MISSING)
        if start < 0:
            return None
        end = start
        while end < min(start + most, self.blocks) and self._state[end] == MISSING:
            self._set(end, TAKEN)
            end += 1
        piece = Piece(start, end, now)
        self.pieces.append(piece)
        return piece

    def take_over(self, block: int, patience: float, now: float) -> Piece | None:
        """
        Take the second half of the slowest piece, if it is slower than `patience`.

        Its last block is taken beside its owner: the first to have it writes it.
        """
        late = [
            piece
            for piece in self.pieces
            if piece.at < piece.end
            and now - piece.began > patience
            and piece.seconds_left(now, block) > patience
            and self._state[piece.end - 1] == TAKEN
            and self._owners(piece.end - 1) == 1
        ]
        if not late:
            return None
        slow = max(late, key=lambda piece: piece.seconds_left(now, block))
        middle = (slow.at + slow.end) // 2
        piece = Piece(middle, slow.end, now)
        if middle > slow.at:
            slow.end = middle
        self.pieces.append(piece)
        return piece

    def give_back(self, piece: Piece) -> None:
        """End a piece; what it did not bring is missing again."""
        self.pieces.remove(piece)
        for block in range(piece.at, piece.end):
            if self._state[block] == TAKEN and not self._owners(block):
                self._set(block, MISSING)

    def may_write(self, block: int) -> bool:
        """Say if the caller is the one to write this block; if so, `wrote` it then."""
        if self._state[block] not in (TAKEN, MISSING):
            return False
        self._set(block, WRITING)
        self.writing += 1
        return True

    def wrote(self, block: int, *, well: bool = True) -> int | None:
        """End a write; return the segment that is now whole and to be checked."""
        self.writing -= 1
        if not well:
            self._set(block, MISSING)
            return None
        return self._there(block)

    def checked(self, block: int, *, good: bool) -> int | None:
        """Believe a journal's claim or not; return a segment to be checked."""
        if good:
            return self._there(block)
        self._set(block, MISSING)
        return None

    def passed(self, segment: int) -> None:
        """Let a segment through the gate."""
        for block in self.segment(segment):
            self._set(block, DONE)

    def failed(self, segment: int) -> None:
        """Throw a segment away: it is missing again."""
        for block in self.segment(segment):
            self._set(block, MISSING)

    def segment(self, segment: int) -> range:
        """Return the blocks of a segment."""
        assert self._gate is not None
        start = segment * self._gate
        return range(start, min(start + self._gate, self.blocks))

    def _there(self, block: int) -> int | None:
        if self._gate is None:
            self._set(block, DONE)
            return None
        self._set(block, HELD)
        segment = block // self._gate
        blocks = self.segment(segment)
        states = self._state[blocks.start : blocks.stop]
        return segment if states.count(HELD) == len(blocks) else None

    def _owners(self, block: int) -> int:
        return sum(piece.at <= block < piece.end for piece in self.pieces)

    def _set(self, block: int, state: int) -> None:
        before = self._state[block]
        self._state[block] = state
        self.missing += (state == MISSING) - (before == MISSING)
        self.done += (state == DONE) - (before == DONE)
        self.there += (state >= HELD) - (before >= HELD)
        while self.mark < self.blocks and self._state[self.mark] == DONE:
            self.mark += 1


def span(missing: int, connections: int, least: int, most: int) -> int:
    """
    Return how many blocks to ask for at once.

    Large while much is left, to ask seldom; small near the end, so that all connections
    end together and the hash, which goes from the start, is not far behind.

    >>> span(2048, 16, 4, 64), span(100, 16, 4, 64), span(100_000, 16, 4, 64)
    (64, 4, 64)
    """
    return max(least, min(most, missing // (2 * connections)))
