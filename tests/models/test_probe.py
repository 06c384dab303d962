import errno
import os
import sys

import pytest

from common.models import probe as module
from common.models.probe import filesystem, probe
from tests.models import mounts

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def test_a_probe_leaves_nothing(tmp_path):
    """What was tried is taken away again, and links work where tests run."""
    able = probe(tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert able.hardlink or able.symlink


@posix
def test_a_lock_that_lies_is_found_out(tmp_path, monkeypatch):
    """A volume where every caller gets the flock is not trusted."""
    import fcntl

    monkeypatch.setattr(module, "filesystem", lambda _: "ext4")
    assert probe(tmp_path).flock
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert not probe(tmp_path).flock


@posix
def test_a_lock_that_only_this_process_heeds_is_found_out(tmp_path, monkeypatch):
    """A lock that a second process does not see is not trusted."""
    monkeypatch.setattr(module, "filesystem", lambda _: "ext4")
    monkeypatch.setattr(module, "_ASK", "pass")

    assert not probe(tmp_path).flock


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says the kind")
@pytest.mark.parametrize("kind", ["nfs4", "fuse.mfs", "lustre", "cifs", "9p", ""])
def test_a_lock_of_a_volume_that_others_mount_is_not_trusted(
    tmp_path, monkeypatch, kind
):
    """That it holds on this host says nothing of the next one."""
    monkeypatch.setattr(module, "filesystem", lambda _: kind)

    assert not probe(tmp_path).flock


@pytest.mark.parametrize("call", ["link", "symlink"])
def test_missing_links_are_found_out(tmp_path, monkeypatch, call):
    """A volume that refuses links, or does not know them, has none."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, call, refuse)
    able = probe(tmp_path)

    assert not (able.hardlink if call == "link" else able.symlink)


@pytest.mark.root
@mounts.root
def test_the_kind_of_file_system_is_the_nearest_mount(tmp_path):
    """A mount below another counts, with blanks in its name as well."""
    with mounts.tmpfs(tmp_path / "a b", "size=1m") as folder:
        (folder / "deep").mkdir()

        assert filesystem(folder / "deep") == "tmpfs"
        assert filesystem(tmp_path / "a") != "tmpfs" or filesystem(tmp_path) == "tmpfs"
