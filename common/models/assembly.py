"""One file being put together by several threads: what is to do, and what is there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from common.models.board import Board, Piece, span
from common.models.errors import Corrupt
from common.models.limits import FetchLimits
from common.models.segments import segment_hash, segment_hashes
from common.models.sources.address import SourceTrouble
from common.models.staging import Staging
from common.models.supply import Supply, Way
from common.models.watermark import Watermark


class Assembly:
    """
    The board, its lock, and the writes it allows.

    A block is written by the one thread that the board lets, and none once `over` is
    set: after `end` the file changes no more, whatever a late thread still holds.
    """

    def __init__(
        self,
        name: str,
        staging: Staging,
        supply: Supply,
        segments: tuple[str, ...],
        limits: FetchLimits,
    ) -> None:
        self.name = name
        self.staging = staging
        self.supply = supply
        self.limits = limits
        self.size = staging.identity.size
        self.watermark = Watermark()
        self.lanes = 0  #: connections that are of use
        self.over = False
        self.error: BaseException | None = None
        self._segments = segments
        blocks = -(-self.size // limits.block)
        self._claimed = sorted(block for block in staging.written if block < blocks)
        gate = limits.segment // limits.block if segments else None
        self._board = Board(blocks, self._claimed, gate)
        self._news = threading.Condition()
        self._bad: Counter[int] = Counter()
        self._streaming = False

    def progress(self) -> int:
        """Return the bytes that are there, those of unfinished blocks included."""
        with self._news:
            there = self._board.there * self.limits.block
            there += sum(piece.partial for piece in self._board.pieces)
            return min(self.size, there)

    def segments(self) -> tuple[str, ...]:
        """Return the hash of each segment; all blocks are there."""
        written = self.staging.written
        blocks = [written[block].xxh3 for block in range(self._board.blocks)]
        return segment_hashes(blocks, self.limits.segment // self.limits.block)

    def missing(self) -> bool:
        """Say if there are blocks that nobody brings yet."""
        return self._board.missing > 0

    def rest(self, seconds: float) -> bool:
        """Wait for news; say if all blocks are there."""
        with self._news:
            if not self._whole():
                self._news.wait(seconds)
            return self._whole()

    def fail(self, error: BaseException) -> None:
        """Remember the first error, for who watches."""
        with self._news:
            self.error = self.error or error
            self._news.notify_all()

    def end(self) -> None:
        """Let nobody write any more, and wait for those who do."""
        with self._news:
            self.over = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._board.writing)
        self.watermark.stop()

    def way(self) -> Way | None:
        """Return where to ask now; None = in a while."""
        return self.supply.way(self.size, self.staging.identity.sha256)

    def next(self) -> Piece | None:
        """Wait for something to bring; None = the end."""
        limits = self.limits
        with self._news:
            while not self.over and not self._whole():
                pause = self.supply.seconds_to_wait()
                lanes = min(self.lanes, self.supply.lanes)
                free = len(self._board.pieces) < lanes and not self._streaming
                if free and not pause:
                    now = time.monotonic()
                    least = max(1, limits.ask_least // limits.block)
                    most = max(1, limits.ask_most // limits.block)
                    most = span(self._board.missing, limits.connections, least, most)
                    piece = self._board.take(most, now) or self._board.take_over(
                        limits.block, limits.tail_s, now
                    )
                    if piece is not None:
                        return piece
                self._news.wait(min(pause, 0.2) or 0.2)
        return None

    def give_back(self, piece: Piece) -> None:
        """End a piece, brought or not."""
        with self._news:
            self._board.give_back(piece)
            self._news.notify_all()

    def blocks_of(self, piece: Piece) -> Iterator[int]:
        """Yield the blocks that are to be brought, as long as they are."""
        while not self.over:
            with self._news:
                block = piece.at
                if block >= piece.end:
                    return
            yield block
            with self._news:
                piece.at, piece.partial = block + 1, 0

    @contextlib.contextmanager
    def streaming(self) -> Iterator[bool]:
        """Keep others from asking while one takes the whole file; False = one does."""
        with self._news:
            first, self._streaming = not self._streaming, True
        try:
            yield first
        finally:
            if first:
                with self._news:
                    self._streaming = False
                    self._news.notify_all()

    def put(self, block: int, view: memoryview, way: Way) -> None:
        """Write a block unless it is there, or somebody is writing it."""
        with self._news:
            if self.over or not self._board.may_write(block):
                return
        segment, well = None, False
        try:
            self.staging.write(block, view, way.label)
            well = True
        finally:
            with self._news:
                segment = self._board.wrote(block, well=well)
                if self.over or self._whole():
                    self._news.notify_all()
        self.supply.gained(way)
        self._follow(segment)

    def check_journal(self) -> None:
        """Check what the journal claims, while the rest arrives."""
        buffer = memoryview(bytearray(self.limits.block))
        try:
            for block in self._claimed:
                if self.over:
                    return
                good = self.staging.believable(block, buffer)
                if not good:
                    self.staging.withdraw(block, block + 1)
                with self._news:
                    segment = self._board.checked(block, good=good)
                    if self._whole():
                        self._news.notify_all()
                self._follow(segment)
        except BaseException as error:  # noqa: BLE001 - who watches raises it
            self.fail(error)

    def _whole(self) -> bool:
        return self._board.done == self._board.blocks

    def _follow(self, segment: int | None) -> None:
        """Check a segment that became whole, and let the hashers go on."""
        if segment is not None:
            self._judge(segment)
        with self._news:
            mark = self._board.mark
        self.watermark.move(min(self.size, mark * self.limits.block))

    def _judge(self, segment: int) -> None:
        """Compare a whole segment with its hash; wrong ones are fetched again."""
        blocks = self._board.segment(segment)
        start = self.staging.extent(blocks.start)[0]
        stop = sum(self.staging.extent(blocks.stop - 1))
        found = segment_hash(self.staging.written[block].xxh3 for block in blocks)
        good = found == self._segments[segment]
        if not good:
            self._blame(segment, blocks, f"{start} to {stop - 1}")
        with self._news:
            if good:
                self._board.passed(segment)
            else:
                self._board.failed(segment)
            self._news.notify_all()

    def _blame(self, segment: int, blocks: range, where: str) -> None:
        """Leave a source that gave all of a wrong segment; the last may try again."""
        givers = {self.staging.written[block].label for block in blocks}
        self.staging.withdraw(blocks.start, blocks.stop)
        self._bad[segment] += 1
        who = ", ".join(sorted(givers))
        why = f"wrong bytes in segment {segment} ({where}) from {who}"
        way = self.way()
        if way is not None and givers == {way.label}:
            if self.supply.others_left():
                self.supply.leave(way, SourceTrouble(why))
            elif self._bad[segment] > 1:
                raise Corrupt(f"{self.name}: {why}, twice")
