import errno
import hashlib
import os
import shutil
import socket
import sys

import pytest

from common.models import digest, layers, receipts
from common.models.errors import ReadOnly
from common.models.layer import Layer
from common.models.layers import Layers, State
from common.models.publish import adopt, publish
from common.models.staging import Identity, Staging
from tests.models import mounts
from tests.models.tensors import File, fetched, file_of, placed, tensors, tree


@pytest.fixture
def data():
    return tensors()


@pytest.fixture
def file(data):
    return file_of(data)


@pytest.fixture
def two(tmp_path):
    """An image's layer under a volume's."""
    Layer.open(tmp_path / "image", mode="direct", mtime_s=946_684_800)
    return Layers.open([tmp_path / "image", tmp_path / "volume"])


def bake(two, file, data):
    image = Layer.open(two.layers[0].root)
    return publish(image, file, fetched(image, file, data))


def test_nothing_is_absent(two, file):
    """A file that no layer has is absent, and looking makes nothing."""
    before = tree(two.writable.root)

    assert two.find(file).state is State.ABSENT
    assert tree(two.writable.root) == before


def test_the_image_is_looked_into_first(two, file, data):
    """What an image brings is not fetched to the volume."""
    path = bake(two, file, data)
    found = two.find(file)

    assert (found.state, found.path) == (State.VERIFIED, path)
    assert found.layer is two.layers[0]
    assert found.usable


def test_a_baked_file_stays_verified_when_the_image_is_unpacked(two, file, data):
    """New inodes, and times in whole seconds: no start of a pod hashes 30 GB."""
    bake(two, file, data)
    image, other = two.layers[0].root, two.layers[0].root.with_name("unpacked")
    shutil.copytree(image, other)

    found = Layers.open([other, two.writable.root]).find(file)
    assert found.state is State.VERIFIED


def test_a_wrong_file_on_top_hides_the_right_one_below(two, file, data):
    """ComfyUI loads the volume's file, so that is the one to speak of."""
    bake(two, file, data)
    placed(two.writable, file, b"half")
    found = two.find(file)

    assert found.state is State.CORRUPT
    assert found.layer is two.writable
    assert f"4 bytes, not {len(data)}" in found.reason


def test_a_right_size_is_not_yet_verified(two, file, data):
    """A hand-placed file may be used, but nobody has hashed it."""
    placed(two.writable, file, data)
    found = two.find(file)

    assert found.state is State.UNVERIFIED
    assert found.usable
    assert found.bytes == len(data)


@pytest.mark.parametrize(
    "bad",
    [b"", tensors()[:-1], tensors() + b"1", b"\0" * len(tensors())],
    ids=["empty", "a byte short", "a byte long", "zeros"],
)
def test_a_wrong_file_is_corrupt(two, file, bad):
    """Another size, or no header, needs no hash to be wrong."""
    placed(two.writable, file, bad)

    assert two.find(file).state is State.CORRUPT
    assert not two.find(file).usable


def test_a_folder_in_the_place_of_a_file_is_corrupt(two, file):
    """Whatever has the name and is no file is in the way."""
    two.writable.view(file.folder, file.name).mkdir(parents=True)

    assert two.find(file).state is State.CORRUPT


def test_a_dangling_link_is_absent(two, file):
    """A link to nothing is nothing."""
    path = two.writable.view(file.folder, file.name)
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")

    assert two.find(file).state is State.ABSENT


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_to_itself_is_corrupt(two, file):
    """It cannot be followed, and its name is taken."""
    path = two.writable.view(file.folder, file.name)
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)

    assert two.find(file).state is State.CORRUPT


def test_a_pickle_without_a_hash_is_not_usable(two):
    """Only safetensors may be loaded unverified."""
    placed(two.writable, File("x.pth"), b"\x80\x04.")
    assert two.find(File("x.pth")).state is State.CORRUPT

    pinned = file_of(b"\x80\x04.", "x.pth")
    assert two.find(pinned).state is State.UNVERIFIED
    assert not two.find(pinned).usable


def test_reading_deep_writes_a_receipt(two, file, data):
    """The whole file is read once; then nobody need read it again."""
    placed(two.writable, file, data)
    told = []

    found = two.find(file, deep=True, progress=lambda *now: told.append(now))
    assert found.state is State.VERIFIED
    assert told == [(len(data), len(data))]
    assert two.find(file).state is State.VERIFIED


def test_reading_deep_finds_one_wrong_byte(two, file, data):
    """What size, time and header cannot show, the hash does."""
    path = publish(two.writable, file, fetched(two.writable, file, data))
    now = path.stat()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert two.find(file).state is State.VERIFIED

    found = two.find(file, deep=True)
    assert found.state is State.CORRUPT
    assert found.sha256 not in (None, file.sha256)


def test_what_reading_deep_found_wrong_is_not_verified_again(two, file, data):
    """Nothing but the hash shows it, so what vouched for the file must go."""
    path = publish(two.writable, file, fetched(two.writable, file, data))
    now = path.stat()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert two.find(file, deep=True).state is State.CORRUPT

    assert two.find(file).state is not State.VERIFIED


def test_a_bad_sector_makes_a_file_corrupt(two, file, data, monkeypatch):
    """The disk's own words are the reason, and nothing is raised."""
    publish(two.writable, file, fetched(two.writable, file, data))

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(layers, "digest", refuse)
    found = two.find(file, deep=True)

    assert found.state is State.CORRUPT
    assert "Input/output error" in found.reason


def test_a_full_volume_makes_no_right_file_wrong(two, file, data, monkeypatch):
    """Only its receipt cannot be written."""
    publish(two.writable, file, fetched(two.writable, file, data))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(receipts, "atomic_write", full)

    assert two.find(file, deep=True).state is State.VERIFIED


def test_a_file_that_was_touched_is_stale_until_it_is_read(two, file, data):
    """A restored backup has other times: one reading makes it verified again."""
    path = publish(two.writable, file, fetched(two.writable, file, data))
    os.utime(path, (1, 1))
    assert two.find(file).state is State.STALE

    adopt(two.writable, file, path)
    assert two.find(file).state is State.VERIFIED


def test_a_hash_that_nobody_knows_is_handed_back(two, data):
    """For models.lock; once it is pinned there, the file is verified."""
    file = File("x.safetensors")
    placed(two.writable, file, data)
    found = two.find(file, deep=True)

    assert found.state is State.UNVERIFIED
    assert found.sha256 == hashlib.sha256(data).hexdigest()

    class Pinned:
        size, sha256 = len(data), found.sha256

    assert two.find(file, Pinned()).state is State.VERIFIED


def test_a_part_says_how_much_there_is(two, file, data):
    """What the journal claims, not how long the file is."""
    folder = two.writable.staging(file.key)
    with Staging(folder, Identity(len(data), file.sha256), block=1024) as staging:
        os.ftruncate(staging.fileno(), len(data))
        staging.write(1, memoryview(data)[1024:2048], "test://")
    found = two.find(file)

    assert (found.state, found.bytes) == (State.PARTIAL, 1024)


def test_layers_below_are_never_written(two, file, data):
    """Not even a receipt for a file that was read deep."""
    placed(two.layers[0], file, data)
    before = tree(two.layers[0].root)

    assert two.find(file, deep=True).state is State.VERIFIED
    assert tree(two.layers[0].root) == before
    assert two.find(file).state is State.UNVERIFIED


def test_only_layers_that_are_read_take_nothing(tmp_path):
    """Without a writable layer files are found, and publishing has no place."""
    (tmp_path / "file").write_bytes(b"")
    both = Layers.open([tmp_path / "a", tmp_path / "file"])

    assert both.find(file_of(tensors())).state is State.ABSENT
    with pytest.raises(ReadOnly):
        _ = both.writable


@pytest.mark.root
@mounts.root
def test_a_volume_that_is_only_read_is_found_on(tmp_path, file, data):
    """A read-only mount as the last layer: what it has is verified, and it's said."""
    with mounts.tmpfs(tmp_path / "v", "size=1m") as volume:
        layer = Layer.open(volume)
        publish(layer, file, fetched(layer, file, data))
        mounts.read_only(volume)
        both = Layers.open([tmp_path / "none", volume])

        assert both.find(file).state is State.VERIFIED
        with pytest.raises(ReadOnly):
            _ = both.writable


def test_a_hundred_verified_files_are_neither_read_nor_asked_for(
    two, monkeypatch, tmp_path
):
    """Status needs no network, reads no tensor and parses no header."""
    files = [file_of(tensors(n), f"{n}.safetensors") for n in range(20)]
    for n, file in enumerate(files):
        publish(two.writable, file, fetched(two.writable, file, tensors(n)))
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(layers, "digest", None)
    monkeypatch.setattr(digest, "digest", None)
    monkeypatch.setattr(receipts.safetensors, "check", None)

    assert {two.find(file).state for file in files} == {State.VERIFIED}
