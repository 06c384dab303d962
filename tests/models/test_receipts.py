import json
import os
import sys

import pytest

from common.models import receipts
from common.models.errors import Corrupt
from common.models.layer import Layer
from tests.models.tensors import file_of, placed, tensors


@pytest.fixture
def layer(tmp_path):
    return Layer.open(tmp_path)


@pytest.fixture
def file():
    return file_of(tensors())


@pytest.fixture
def path(layer, file):
    return placed(layer, file, tensors())


@pytest.fixture
def receipt(layer, file, path):
    name = "vae/x.safetensors"
    return receipts.stamp(layer, path, name, file.sha256, "fetched", {"a": 1})


def test_a_receipt_is_read_as_it_was_written(layer, file, receipt):
    """What was verified, how and from where survives the process."""
    assert receipts.read(layer, file.sha256) == receipt
    assert list(receipts.every(layer)) == [receipt]


def test_an_untouched_file_is_beyond_doubt(receipt, path):
    """As long as size, time and header are the same, nobody reads the tensors."""
    assert receipt.doubt(path) is None


@pytest.mark.parametrize("unit", [10**9, 1000, 100], ids=lambda n: f"{n} ns")
def test_a_time_cut_by_a_volume_is_the_same_time(receipt, path, unit):
    """Image layers keep seconds, some volumes microseconds; nothing was written."""
    cut = path.stat().st_mtime_ns // unit * unit
    os.utime(path, ns=(cut, cut))

    assert receipt.doubt(path) is None


def test_another_inode_is_the_same_file(receipt, path, tmp_path):
    """Overlay and FUSE volumes number anew at each mount."""
    now = path.stat()
    (tmp_path / "copy").write_bytes(path.read_bytes())
    os.utime(tmp_path / "copy", ns=(now.st_atime_ns, now.st_mtime_ns))
    (tmp_path / "copy").replace(path)

    assert path.stat().st_ino != now.st_ino
    assert receipt.doubt(path) is None


def test_a_file_that_was_written_to_is_doubted(receipt, path):
    """Another time, or another size, takes a new look at the bytes."""
    os.utime(path, (1, 1))
    assert "written to" in receipt.doubt(path)
    path.write_bytes(b"x")
    assert "1 bytes" in receipt.doubt(path)


def test_another_header_is_corrupt(receipt, path):
    """A file with the same size and time, but another header, is another file."""
    now = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"t0"', b'"t7"'))
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    with pytest.raises(Corrupt):
        receipt.doubt(path)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"schema": 2}', b"\xff"])
def test_a_receipt_nobody_understands_is_none(layer, file, receipt, text):
    """Half a receipt, or one of tomorrow, proves nothing and breaks nothing."""
    layer.receipt(file.sha256).write_bytes(text)

    assert receipts.read(layer, file.sha256) is None
    assert list(receipts.every(layer)) == []


@pytest.mark.parametrize("name", ["../../precious", "/etc/passwd", "vae/../../x"])
def test_a_receipt_that_names_something_outside_is_none(layer, file, receipt, name):
    """A root may be shared, and gc removes what receipts name."""
    path = layer.receipt(file.sha256)
    said = json.loads(path.read_bytes())
    path.write_text(json.dumps(said | {"names": {name: 1}}))

    assert receipts.read(layer, file.sha256) is None
    assert list(receipts.every(layer)) == []


def test_a_receipt_of_another_name_is_none(layer, file, receipt):
    """It speaks of the bytes that its own name says, or of none."""
    other = layer.receipt("0" * 64)
    layer.receipt(file.sha256).rename(other)

    assert receipts.read(layer, "0" * 64) is None


def test_names_add_up(layer, file, path, receipt):
    """A second name leaves the first, who fetched it, and from where."""
    more = receipts.stamp(layer, path, "clip/y.safetensors", file.sha256, "verified")

    assert set(more.names) == {"vae/x.safetensors", "clip/y.safetensors"}
    assert (more.how, more.sources) == ("fetched", {"a": 1})


def test_the_owner_of_a_name_is_known(layer, path, receipt):
    """A file that we gave its name is ours until somebody writes to it."""
    assert receipts.owner(layer, path) == receipt
    path.write_bytes(b"mine")
    assert receipts.owner(layer, path) is None


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_bytes_are_held_by_any_name_that_is_left(layer, file, path, receipt):
    """The blob, or any of the names, as long as it is unchanged."""
    assert receipts.held(layer, receipt) == path
    blob = layer.blob(file.sha256)
    blob.parent.mkdir(parents=True)
    os.link(path, blob)
    path.unlink()
    assert receipts.held(layer, receipt) == blob
    blob.unlink()
    assert receipts.held(layer, receipt) is None
