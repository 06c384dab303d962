"""
A file on its way: `data` holds its bytes, `journal` says which of them to believe.

The file is cut into blocks. A block is written at its place, then one line names it
with the xxh3 of its bytes and the source they came from. Whoever comes next reads the
journal and checks each named block against its xxh3 before believing it, so it does not
matter what a kill, a lost page or a second writer left: a block is right or is fetched
again. That is also why no line waits for the disk: a killed process loses no page, and
a lost machine loses only what the check then finds missing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import xxhash

from common.disk import DISK_FULL
from common.models.errors import NoSpace, ReadOnly

#: Bytes per block: a kill loses at most one for each connection.
BLOCK = 1 << 19
#: Bytes per call of write. For larger ones ext4 looks for as large stretches of free
#: memory, and where that is in pieces the kernel took 3.2 s for 2 GiB instead of 1.1.
PIECE = 1 << 16

SHARED = 0o664  # the group goes on with what a dead pod of another user left
DATA = "data"
JOURNAL = "journal"
#: aria2's own record beside `data`; it proves nothing to us, nor our journal to it.
ARIA2 = "data.aria2"

_LINE = re.compile(r"(\d+) ([0-9a-f]{16}) (\d+)|@ (\".*\")|! (\d+) (\d+)")
_OPEN = (
    os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
)


@dataclass(frozen=True)
class Identity:
    """What makes two partial files the same file."""

    size: int  #: bytes
    sha256: str | None  #: lower-case hex; None = nobody says
    mark: str | None = None  #: where nobody says: the source, and its mark of the file


@dataclass(frozen=True)
class Written:
    """One line of the journal: the xxh3 of a block, and who gave it."""

    xxh3: str
    label: str


class Staging:
    """
    One partial file, open for writing by several threads.

    `written` is what the journal claims about each block; `believable` checks a claim.
    A journal of another identity, of another block size, or of aria2's making is not
    read: the file starts afresh.
    """

    def __init__(self, folder: Path, identity: Identity, block: int = BLOCK) -> None:
        self.folder = folder
        self.path = folder / DATA
        self.identity = identity
        self.block = block
        self.written: dict[int, Written] = {}
        self._sources: list[str] = []
        self._lock = threading.Lock()
        with translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            kept = self._read()
            self._data = os.open(self.path, _OPEN, SHARED)
            self._journal = os.open(folder / JOURNAL, _OPEN | os.O_APPEND, SHARED)
            for path in (self.path, folder / JOURNAL):
                with contextlib.suppress(OSError):  # another user's, and so already
                    path.chmod(SHARED)  # whatever the umask
            os.ftruncate(self._journal, kept)
            if not kept:
                self._begin()

    def _begin(self) -> None:
        # ext4 writes out on close what was ever cut to nothing: 0.2 s for 2 GiB.
        if os.fstat(self._data).st_size:
            os.ftruncate(self._data, 0)
        (self.folder / ARIA2).unlink(missing_ok=True)
        self._introduce()

    def _introduce(self) -> None:
        head = {"schema": 1, **asdict(self.identity), "block": self.block}
        self._append(json.dumps(head))

    def begin_with(self, mark: str) -> None:
        """Say what tells the file, of which nothing came yet, from another."""
        with translated(self.folder), self._lock:
            self.identity = replace(self.identity, mark=mark)
            os.ftruncate(self._journal, 0)
            self._introduce()

    def _read(self) -> int:
        """Take over what the journal says; return how many of its bytes make sense."""
        try:
            text = (self.folder / JOURNAL).read_bytes()
        except FileNotFoundError:
            return 0
        head, _, lines = text.partition(b"\n")
        wanted = (self.identity, self.block)
        if (self.folder / ARIA2).exists() or _head(head) != wanted:
            return 0
        kept = len(head) + 1
        for line in lines.splitlines(keepends=True):
            # A kill in the middle of a write leaves half a line; it ends what we read.
            try:
                sound = line.endswith(b"\n") and self._take_over(line[:-1].decode())
            except ValueError:  # what a lost machine left is any bytes
                sound = False
            if not sound:
                break
            kept += len(line)
        return kept

    def _take_over(self, line: str) -> bool:
        found = _LINE.fullmatch(line)
        if found is None:
            return False
        if found[4]:
            self._sources.append(json.loads(found[4]))
        elif found[5]:
            for block in range(int(found[5]), int(found[6])):
                self.written.pop(block, None)
        elif int(found[3]) < len(self._sources):
            here = Written(found[2], self._sources[int(found[3])])
            self.written[int(found[1])] = here
        return True

    def extent(self, block: int) -> tuple[int, int]:
        """Return the offset of a block and its length in bytes."""
        offset = block * self.block
        return offset, min(self.block, self.identity.size - offset)

    def write(self, block: int, data: memoryview, label: str) -> None:
        """
        Put a block at its place and say so in the journal.

        Raises:
            NoSpace: the volume is full; what was written before is kept.
        """
        with translated(self.folder):
            pwrite(self._data, data, block * self.block)
            digest = xxhash.xxh3_64_hexdigest(data)
            with self._lock:
                if label not in self._sources:
                    self._append(f"@ {json.dumps(label)}")
                    self._sources.append(label)
                self._append(f"{block} {digest} {self._sources.index(label)}")
                self.written[block] = Written(digest, label)

    def withdraw(self, start: int, stop: int) -> None:
        """Believe the blocks from `start` to before `stop` no longer."""
        with translated(self.folder), self._lock:
            self._append(f"! {start} {stop}")
            for block in range(start, stop):
                self.written.pop(block, None)

    def believable(self, block: int, buffer: memoryview) -> bool:
        """Say if a block on the disk is what the journal claims; uses the buffer."""
        offset, length = self.extent(block)
        if length <= 0 or self.read(buffer[:length], offset) < length:
            return False
        digest = xxhash.xxh3_64_hexdigest(buffer[:length])
        return digest == self.written[block].xxh3

    def read(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset; return how many bytes there were."""
        return pread(self._data, buffer, offset)

    def fileno(self) -> int:
        """Return the descriptor of `data`, for a reservation of space."""
        return self._data

    def close(self) -> None:
        """Let go of both files; both stay on the disk."""
        for descriptor in (self._data, self._journal):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: str) -> None:
        os.write(self._journal, line.encode() + b"\n")


def stated(folder: Path) -> Identity | None:
    """Return what a journal says its file is; None = there is no journal."""
    try:
        with (folder / JOURNAL).open("rb") as journal:
            head = _head(journal.readline())
    except FileNotFoundError:
        return None
    return None if head is None else head[0]


def claimed_bytes(folder: Path) -> int:
    """Return how many bytes a journal claims, unchecked: for a status only."""
    try:
        head, *lines = (folder / JOURNAL).read_text(errors="replace").splitlines()
    except (FileNotFoundError, ValueError):
        return 0
    facts = _head(head.encode())
    blocks: set[int] = set()
    for line in lines:
        if found := _LINE.fullmatch(line):
            if found[1]:
                blocks.add(int(found[1]))
            elif found[5]:
                blocks.difference_update(range(int(found[5]), int(found[6])))
    return min(facts[0].size, len(blocks) * facts[1]) if facts else 0


def _head(line: bytes) -> tuple[Identity, int] | None:
    try:
        head = json.loads(line)
        if head["schema"] == 1:
            found = Identity(int(head["size"]), head["sha256"], head.get("mark"))
            return found, int(head["block"])
    except (ValueError, KeyError, TypeError):
        pass
    return None


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Give a full or a read-only volume its name."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            hint = "free some space; what was fetched so far is kept"
            raise NoSpace(f"no space left for {folder}", hint) from error
        if error.errno in (errno.EROFS, errno.EACCES):
            raise ReadOnly(f"{folder} does not take writes") from error
        raise


if sys.platform == "win32":
    _positions = threading.Lock()  # a descriptor has one position for all threads

    def pwrite(descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of the data at an offset."""
        with _positions:
            os.lseek(descriptor, offset, os.SEEK_SET)
            while data:
                data = data[os.write(descriptor, data) :]

    def pread(descriptor: int, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset; return how many bytes there were."""
        with _positions:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)

else:

    def pwrite(descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of the data at an offset."""
        while data:
            count = os.pwrite(descriptor, data[:PIECE], offset)
            data, offset = data[count:], offset + count

    def pread(descriptor: int, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset; return how many bytes there were."""
        got = 0
        while got < len(buffer):
            count = os.preadv(descriptor, [buffer[got:]], offset + got)
            if not count:
                break
            got += count
        return got
