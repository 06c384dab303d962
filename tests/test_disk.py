import errno
import os
import threading

import pytest

from common import disk


def test_write_replaces_whole_files(tmp_path):
    """A file has its old bytes or its new ones, whenever it is read."""
    path = tmp_path / "state"
    values = [bytes([n]) * 200_000 for n in range(20)]
    disk.atomic_write(path, values[0])
    seen = set()
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for value in values:
        disk.atomic_write(path, value)
    done.set()
    reader.join()

    assert seen <= set(values)
    assert path.read_bytes() == values[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A write that fails changes nothing and leaves nothing behind."""
    path = tmp_path / "state"
    disk.atomic_write(path, b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        disk.atomic_write(path, b"new")

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
def test_link_or_copy(tmp_path, monkeypatch, links):
    """The second name has the same bytes, also where hard links are not possible."""
    source, path = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"frames")
    path.write_bytes(b"older")
    if not links:

        def refuse(*_args, **_kwargs):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)

    disk.link_or_copy(source, path)
    disk.link_or_copy(source, path)
    source.unlink()

    assert path.read_bytes() == b"frames"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_link_needs_its_source(tmp_path):
    """A missing source is an error, and the folder stays empty."""
    with pytest.raises(FileNotFoundError):
        disk.link_or_copy(tmp_path / "gone", tmp_path / "b")

    assert not list(tmp_path.iterdir())


def test_remove_parts_clears_what_a_crash_left(tmp_path):
    """Only half written files are removed."""
    (tmp_path / ".video.mp4.0123.part").write_bytes(b"half")
    (tmp_path / "video.mp4").write_bytes(b"whole")

    disk.remove_parts(tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["video.mp4"]


def test_free_bytes_of_a_folder_to_come(tmp_path):
    """Free space can be asked before the folder exists."""
    assert disk.free_bytes(tmp_path / "not" / "yet") > 0
