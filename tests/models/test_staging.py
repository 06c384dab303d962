"""A partial file is believed block by block, and only where its journal proves it."""

import os
import sys

import pytest

from common.models.errors import ReadOnly
from common.models.staging import (
    ARIA2,
    DATA,
    JOURNAL,
    Identity,
    Staging,
    claimed_bytes,
    stated,
)

BLOCK = 4
ONE = Identity(10, "a" * 64)


def fill(folder, blocks=(0, 1, 2), identity=ONE):
    """Write blocks of a file of ten bytes."""
    with Staging(folder, identity, BLOCK) as staging:
        for block in blocks:
            data = b"abcdefghij"[block * BLOCK : (block + 1) * BLOCK]
            staging.write(block, memoryview(data), "web")


def believed(folder, identity=ONE, block=BLOCK):
    """Return the blocks that are claimed and right."""
    buffer = memoryview(bytearray(64))
    with Staging(folder, identity, block) as staging:
        return [b for b in sorted(staging.written) if staging.believable(b, buffer)]


def test_what_was_written_is_taken_up(tmp_path):
    """The next opening knows the blocks and who gave them."""
    fill(tmp_path, (0, 2))

    assert believed(tmp_path) == [0, 2]
    assert (tmp_path / DATA).read_bytes() == b"abcd\0\0\0\0ij"
    assert stated(tmp_path) == ONE
    assert claimed_bytes(tmp_path) == 8
    with Staging(tmp_path, ONE, BLOCK) as staging:
        assert {found.label for found in staging.written.values()} == {"web"}


def test_changed_bytes_are_not_believed(tmp_path):
    """Each block is held against its xxh3; a hole or a short file is no block."""
    fill(tmp_path)
    (tmp_path / DATA).write_bytes(b"abcdeXgh")

    assert believed(tmp_path) == [0]


@pytest.mark.parametrize("cut", range(1, 30))
def test_half_a_line_is_no_line(tmp_path, cut):
    """A kill in the middle of a line costs that line, and the next lines are read."""
    fill(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-cut])

    left = believed(tmp_path)
    fill(tmp_path, (2,))

    assert left == ([0, 1] if cut <= 21 else [0])
    assert believed(tmp_path) == [*[b for b in left if b != 2], 2]


@pytest.mark.parametrize(
    "identity", [Identity(10, "b" * 64), Identity(9, "a" * 64), Identity(10, None)]
)
def test_another_file_starts_afresh(tmp_path, identity):
    """Size and sha256 are the identity."""
    fill(tmp_path)

    assert believed(tmp_path, identity) == []
    assert (tmp_path / DATA).read_bytes() == b""
    assert stated(tmp_path) == identity


def test_a_file_that_nobody_hashed_is_told_by_its_mark(tmp_path):
    """A mark that is only known with the first answer is written before its bytes."""
    marked = Identity(10, None, 'web "a"')
    with Staging(tmp_path, Identity(10, None), BLOCK) as staging:
        staging.begin_with('web "a"')
        staging.write(0, memoryview(b"abcd"), "web")

    assert stated(tmp_path) == marked
    assert believed(tmp_path, marked) == [0]
    assert believed(tmp_path, Identity(10, None, 'web "b"')) == []


@pytest.mark.parametrize(
    "journal", [b"", b"\n", b"{}\n", b"\xff\xfe\n", b'{"schema": 2}\n', b"[1]\n"]
)
def test_a_journal_that_makes_no_sense_starts_afresh(tmp_path, journal):
    """Nothing is claimed, and nothing is raised."""
    fill(tmp_path)
    (tmp_path / JOURNAL).write_bytes(journal)

    assert stated(tmp_path) is None
    assert claimed_bytes(tmp_path) == 0
    assert believed(tmp_path) == []


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b'@ "\xff"\n', b"@ [\n"])
def test_a_line_of_any_bytes_ends_what_is_read(tmp_path, line):
    """A machine that was lost may leave anything there; what is before it counts."""
    fill(tmp_path, (0, 1))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(line + b"2 0000000000000000 0\n")

    assert believed(tmp_path) == [0, 1]
    fill(tmp_path, (2,))
    assert believed(tmp_path) == [0, 1, 2]
    assert claimed_bytes(tmp_path) == 10


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_the_group_goes_on_with_what_another_user_left(tmp_path):
    """Pods of one volume may be of different users, and any umask."""
    before = os.umask(0o077)
    try:
        fill(tmp_path / "s")
    finally:
        os.umask(before)

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()}
    assert modes == {0o664}


def test_another_block_size_starts_afresh(tmp_path):
    """Its lines speak of other bytes."""
    fill(tmp_path)

    assert believed(tmp_path, block=5) == []


def test_an_unfinished_aria2_file_starts_afresh(tmp_path):
    """Only aria2 knows which of its bytes are there."""
    fill(tmp_path)
    (tmp_path / ARIA2).touch()

    assert believed(tmp_path) == []
    assert not (tmp_path / ARIA2).exists()


def test_withdrawn_blocks_are_gone(tmp_path):
    """Wrong segments are not believed by the next opening either."""
    fill(tmp_path)
    with Staging(tmp_path, ONE, BLOCK) as staging:
        staging.withdraw(1, 3)

    assert believed(tmp_path) == [0]
    assert claimed_bytes(tmp_path) == 4


def test_a_folder_that_takes_no_writes_says_so(tmp_path, monkeypatch):
    """The error is ours, not the operating system's."""

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ReadOnly):
        Staging(tmp_path, ONE, BLOCK)


def test_labels_may_hold_anything(tmp_path):
    """A line break in a label ends no line."""
    with Staging(tmp_path, ONE, BLOCK) as staging:
        staging.write(0, memoryview(b"abcd"), 'a "b"\nc é')
    with Staging(tmp_path, ONE, BLOCK) as staging:
        assert staging.written[0].label == 'a "b"\nc é'
