"""One thread that brings pieces of a file, over one connection or from this machine."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common.models.answers import Answer, Ranged, Whole
from common.models.assembly import Assembly
from common.models.board import Piece
from common.models.line import HungUp, Line
from common.models.sources.address import NotThere
from common.models.supply import Way

Read = Callable[[memoryview], int | None]


class Carrier(threading.Thread):
    """Takes pieces from an assembly until there are none."""

    def __init__(self, assembly: Assembly) -> None:
        super().__init__(name="carrier", daemon=True)
        limits = assembly.limits
        self._assembly = assembly
        self._line = Line(limits.connect_s, limits.stall_s)
        self.brought = 0  #: bytes of whole blocks
        self.came = 0  #: bytes, of blocks that were dropped as well
        self.waits: int | None = None  #: index of the way that bytes are due from
        self._buffer = memoryview(bytearray(limits.block))

    def hang_up(self) -> None:
        """Wake this thread if it waits for bytes; the assembly says it is over."""
        self._line.hang_up()

    def turn_from(self, index: int) -> None:
        """Wake this thread if it waits for a source that was put off."""
        if self.waits == index:
            self._line.break_off()

    def run(self) -> None:
        """Bring pieces until there is nothing to bring."""
        try:
            while (piece := self._assembly.next()) is not None:
                try:
                    way = self._assembly.way()
                    if way is not None:
                        self._bring(piece, way)
                finally:
                    self._assembly.give_back(piece)
        except BaseException as error:  # noqa: BLE001 - who watches raises it
            self._assembly.fail(error)
        finally:
            self._line.close()

    def _bring(self, piece: Piece, way: Way) -> None:
        """Bring what can be brought of a piece this way, and say what went wrong."""
        extent = self._assembly.staging.extent
        try:
            start, stop = extent(piece.at)[0], sum(extent(piece.end - 1))
            if isinstance(way.place, Path):
                with Network():
                    self._same(way, way.place)
                    file = way.place.open("rb", buffering=0)
                with file:
                    file.seek(start)
                    # What goes wrong with our own staging is not the source's fault.
                    self._range(piece, way, file.readinto)
            else:
                self.waits = way.index
                with Network():
                    answer = self._line.ask(way.place, start, stop)
                self.waits = None
                self._take(answer, piece, way)
        except HungUp:
            pass
        except Unreachable as trouble:
            self._line.close()
            if not self._assembly.over:
                self._assembly.supply.failed(way, trouble.why)
        finally:
            self.waits = None
            self._line.end()

    def _take(self, answer: Answer, piece: Piece, way: Way) -> None:
        supply, size = self._assembly.supply, self._assembly.size
        match answer:
            case Ranged(total) | Whole(int(total)) if total != size:
                supply.leave(way, NotThere(f"its file has {total} bytes, not {size}"))
            case Ranged(mark=mark):
                self._same(way, mark)
                self._range(piece, way, self._line.read)
            case Whole(mark=mark):
                self._same(way, mark)
                supply.single(way)
                with self._assembly.streaming() as mine:
                    if mine:
                        self._stream(piece, way)
            case _:
                supply.heard(way, answer)

    def _same(self, way: Way, mark: str | Path) -> None:
        """Refuse bytes of another file than was begun, where no sha256 would tell."""
        staging = self._assembly.staging
        if staging.identity.sha256 is not None:
            return
        found = marked(way.label, mark)
        if staging.identity.mark is None:
            staging.begin_with(found)
        elif staging.identity.mark != found:
            raise AnotherFile(way)

    def _range(self, piece: Piece, way: Way, read: Read) -> None:
        """Bring the blocks of a piece."""
        for block in self._assembly.blocks_of(piece):
            self._block(block, piece, way, read)

    def _stream(self, piece: Piece, way: Way) -> None:
        """Take a whole file from its first byte; what is there already is passed by."""
        for block in range(-(-self._assembly.size // self._assembly.limits.block)):
            if self._assembly.over:
                return
            self._block(block, piece, way, self._line.read)
            piece.partial = 0

    def _block(self, block: int, piece: Piece, way: Way, read: Read) -> None:
        view = self._buffer[: self._assembly.staging.extent(block)[1]]
        # In large steps when bytes come fast, else in small ones, which show.
        got, step = 0, 1 << 16
        while got < len(view):
            if self._assembly.supply.is_put_off(way):
                raise HungUp
            began = time.monotonic()
            self.waits = way.index
            with Network():
                count = read(view[got : got + step])
            self.waits = None
            if not count:
                raise Unreachable("it ended the answer too early")
            got += count
            self.came += count
            piece.bytes += count
            piece.partial = got
            if time.monotonic() - began < 0.02:
                step *= 2
        self._assembly.put(block, view, way)
        self.brought += got


def marked(label: str, mark: str | Path) -> str:
    """Return what tells a file whose sha256 nobody says from another of its size."""
    if isinstance(mark, Path):
        mark = str(mark.stat().st_mtime_ns)
    return f"{label} {mark}"


class AnotherFile(Exception):
    """What a way leads to is another file than the one that was begun."""

    def __init__(self, way: Way) -> None:
        super().__init__(way.label)
        self.way = way


class Unreachable(Exception):
    """A connection or a file that does not go on."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Network:
    """Gives what goes wrong while reading one name, without an address in it."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, TimeoutError):
            raise Unreachable("no byte came for too long") from error
        if isinstance(error, OSError):
            why = error.strerror or type(error).__name__
            raise Unreachable(f"the connection broke: {why}") from error
        # An address that a redirect made up is a ValueError to urllib and to http.
        if isinstance(error, (http.client.HTTPException, ValueError)):
            raise Unreachable(f"the answer broke: {type(error).__name__}") from error
