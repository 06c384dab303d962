"""Several users share a volume, or somebody has to be told whose it is."""

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.models import ModelEnsurer
from common.models.access import refusal
from common.models.errors import NoSpace, ReadOnly
from common.models.layer import Layer
from common.models.layers import Layers
from tests.models import mounts
from tests.models.shelf import shelf

NOBODY = 65534


@pytest.fixture
def open_folder():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def another_user():
    """Be somebody else, of the group of that name only."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def bring(shop, name):
    """Ensure one file; return what went wrong."""
    ensurer = shop.ensurer()
    [one] = ensurer.ensure_files([ensurer.manifest.file(name)])
    return one.error


@pytest.mark.root
@mounts.root
def test_a_second_user_of_the_group_fetches_into_the_same_root(open_folder):
    """Neither our folders nor our locks are for the one alone who made them."""
    with shelf(open_folder) as shop:
        shop.put("a.safetensors")
        shop.put("b.safetensors", pinned=False)
        shop.put("c.safetensors", pinned=False)
        root = open_folder / "root"
        root.mkdir()
        os.chown(root, -1, NOBODY)
        root.chmod(0o2775)
        theirs = shop.settings()
        assert bring(shop, "b.safetensors") is None

        with another_user():
            ensurer = ModelEnsurer.from_config(theirs)
            results = ensurer.ensure_files(ensurer.manifest.files)
            assert [one.error for one in results] == [None, None, None]
        assert bring(shop, "c.safetensors") is None
        assert shop.ensurer().status()[0].state == "ready"


@pytest.mark.root
@mounts.root
def test_another_users_root_is_used_and_said_to_be_theirs(open_folder):
    """What is there needs no writes; what is not cannot come, and it is said why."""
    with shelf(open_folder) as shop:
        shop.put("a.safetensors")
        shop.put("b.safetensors")
        assert bring(shop, "a.safetensors") is None
        root, theirs = open_folder / "root", shop.settings()
        root.chmod(0o777)
        (root / "models").chmod(0o755)

        with another_user():
            ensurer = ModelEnsurer.from_config(theirs)
            a, b = ensurer.manifest.files
            assert ensurer.ensure_files([a])[0].error is None
            with pytest.raises(ReadOnly) as caught:
                ensurer.ensure_files([b])

    assert f"{root / 'models'} belongs to user 0" in caught.value.message
    assert f"we are user {NOBODY}" in caught.value.message
    assert "WAN_MODELS" in caught.value.hint


@pytest.mark.root
@mounts.root
def test_another_users_file_that_may_not_be_read_is_left_alone(open_folder):
    """It is not fetched again beside a right one: somebody has to give it to us."""
    with shelf(open_folder) as shop:
        data = shop.put("a.safetensors")
        path = open_folder / "root/models/vae/a.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        path.chmod(0o600)
        for folder in (path.parent, path.parent.parent, open_folder / "root"):
            folder.chmod(0o777)
        theirs = shop.settings()

        with another_user():
            ensurer = ModelEnsurer.from_config(theirs)
            [one] = ensurer.ensure_files(ensurer.manifest.files)

        assert isinstance(one.error, ReadOnly)
        assert "belongs to user 0 and group 0 (-rw-------)" in one.error.hint
        assert path.read_bytes() == data
        assert shop.server.asked == []


def test_a_root_that_cannot_be_made_is_said(tmp_path):
    """Whatever the system says, it is our error, with the name of the folder."""
    (tmp_path / "file").touch()
    roots = [
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "below", "is not a folder"),
    ]
    if sys.platform == "linux":
        roots.append((Path("/proc/none"), "No such file"))
    for root, words in roots:
        layers = Layers.open([root])
        assert refusal(tmp_path) is None
        with pytest.raises(ReadOnly, match=words) as caught:
            _ = layers.writable
        assert str(root) in caught.value.message


@pytest.mark.root
@mounts.root
def test_a_full_volume_takes_no_new_root(tmp_path):
    """Not a traceback: there is no space, and gc is named."""
    with mounts.tmpfs(tmp_path / "v", "size=64k") as volume:
        mounts.fill(volume)
        with pytest.raises(NoSpace, match="is full") as caught:
            Layer.open(volume / "new")
    assert "gc" in caught.value.hint


@pytest.mark.root
@mounts.root
def test_what_is_on_a_full_volume_is_ready(tmp_path):
    """No lock and no note of its use can be written; nobody needs one to load it."""
    with (
        mounts.tmpfs(tmp_path / "v", "size=1m") as volume,
        shelf(tmp_path / "s") as shop,
    ):
        shop.put("a.safetensors")
        shop.put("b.safetensors", 100_000)
        a, b = (ensurer := shop.ensurer(volume / "root")).manifest.files
        assert ensurer.ensure_files([a])[0].error is None
        for path in volume.glob("root/refs/*"):
            path.unlink()
        mounts.fill(volume)
        full = shop.ensurer(volume / "root")

        assert full.ensure_files([a])[0].error is None
        with pytest.raises(NoSpace):
            full.ensure_files([b])
        assert full.status()[0].state == "partial"
