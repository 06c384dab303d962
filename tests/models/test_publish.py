import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.models import publish as module
from common.models import receipts
from common.models.errors import Corrupt, Missing, NoSpace, ReadOnly, Stopped
from common.models.layer import Layer
from common.models.layers import Layers, State
from common.models.publish import CannotLink, adopt, publish, relink
from common.models.quarantine import quarantine
from tests.models import mounts
from tests.models.tensors import File, fetched, file_of, placed, tensors, tree

REPOSITORY = Path(__file__).parents[2]


def refuse(*args, **kwargs):
    raise OSError(errno.EPERM, "not on this volume")


@pytest.fixture(params=["hard links", "symlinks", "no links", "direct"])
def layer(tmp_path, request, monkeypatch):
    """One layer on each kind of volume."""
    if request.param in ("symlinks", "no links"):
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "no links":
        monkeypatch.setattr(os, "symlink", refuse)
    mode = "direct" if request.param == "direct" else None
    return Layer.open(tmp_path / "root", mode=mode)


def state(layer, file):
    return Layers((layer,)).find(file).state


def test_what_is_published_is_verified(layer):
    """The name appears with a receipt, read-only, and staging is gone."""
    data = tensors()
    file = file_of(data)

    path = publish(layer, file, fetched(layer, file, data))

    assert path == layer.root / "models" / "vae" / "x.safetensors"
    assert path.read_bytes() == data
    assert state(layer, file) is State.VERIFIED
    receipt = receipts.read(layer, file.sha256)
    assert (receipt.how, receipt.sources) == ("fetched", {"test://": 1})
    assert not (layer.root / ".staging" / file.key).exists()
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o444


def test_a_second_name_takes_no_room(layer):
    """Two models' names for the same bytes are one blob, where the volume has links."""
    data = tensors()
    one, two = file_of(data, "one.safetensors"), file_of(data, "two.safetensors", "a")
    first = publish(layer, one, fetched(layer, one, data))
    second = publish(layer, two, fetched(layer, two, data))

    assert state(layer, one) is state(layer, two) is State.VERIFIED
    assert first.samefile(second) or layer.mode == "direct"


def test_bytes_without_a_name_get_it_without_reading(layer, monkeypatch):
    """A view that somebody removed comes back from the blob."""
    data = tensors()
    one, two = file_of(data, "one.safetensors"), file_of(data, "two.safetensors")
    first = publish(layer, one, fetched(layer, one, data))
    monkeypatch.setattr(module, "digest", None)
    assert state(layer, two) is State.UNLINKED

    assert relink(layer, two, two.sha256).read_bytes() == data
    assert state(layer, two) is State.VERIFIED
    if layer.mode == "store":
        first.unlink()
        assert state(layer, one) is State.UNLINKED
        assert relink(layer, one, one.sha256) == first


def test_relink_needs_bytes(layer):
    """Without verified bytes there is nothing to name."""
    file = file_of(tensors())
    with pytest.raises(Missing):
        relink(layer, file, file.sha256)


def test_an_unknown_file_is_moved_not_overwritten(layer):
    """What has the name and is not ours lies in quarantine afterwards, whole."""
    data = tensors()
    file = file_of(data)
    path = placed(layer, file, b"mine")

    publish(layer, file, fetched(layer, file, data))

    assert path.read_bytes() == data
    [kept] = (layer.root / ".quarantine").glob("*/data")
    assert kept.read_bytes() == b"mine"
    record = json.loads((kept.parent / "record.json").read_text())
    assert record["was"] == "models/vae/x.safetensors"
    assert record["foreign"] is True


def test_our_own_older_file_is_replaced(layer):
    """A new version of a file takes the name of the old one in one step."""
    old, new = tensors(1), tensors(2)
    publish(layer, file_of(old), fetched(layer, file_of(old), old))
    path = publish(layer, file_of(new), fetched(layer, file_of(new), new))

    assert path.read_bytes() == new
    assert state(layer, file_of(new)) is State.VERIFIED
    assert not (layer.root / ".quarantine").exists()
    assert list(path.parent.iterdir()) == [path]


def test_a_blob_that_was_damaged_is_replaced(tmp_path):
    """Bytes that were hashed now are better than those somebody wrote to."""
    layer = Layer.open(tmp_path, mode="store")
    data = tensors()
    file = file_of(data)
    path = publish(layer, file, fetched(layer, file, data))
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"?")
    assert state(layer, file) is State.STALE

    publish(layer, file, fetched(layer, file, data))
    assert path.read_bytes() == layer.blob(file.sha256).read_bytes() == data
    assert state(layer, file) is State.VERIFIED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "came as"),
        ({"size": 3}, "not 3"),
        ({"name": "x.pth", "sha256": None}, "not safetensors"),
        ({"name": "x.bin", "sha256": None}, "not safetensors"),
        ({"name": "x.pt", "sha256": None}, "not safetensors"),
    ],
    ids=["another hash", "another size", "a pickle nobody knows", ".bin", ".pt"],
)
def test_wrong_bytes_get_no_name(tmp_path, change, message):
    """What is not the file is refused, and everything stays as it was."""
    layer = Layer.open(tmp_path)
    data = tensors()
    facts = {"name": "x.safetensors", "size": None, "sha256": None} | change
    file = File(**facts)
    got = fetched(layer, file, data)
    before = tree(tmp_path)
    with pytest.raises(Corrupt, match=message):
        publish(layer, file, got)

    assert tree(tmp_path) == before


def test_right_bytes_that_are_no_safetensors_get_no_name(layer):
    """A file may have the hash of the manifest and still be a web page."""
    data = b"<html>" * 99
    file = file_of(data)
    with pytest.raises(Corrupt):
        publish(layer, file, fetched(layer, file, data))

    assert state(layer, file) is not State.VERIFIED
    assert not layer.view("vae", file.name).exists()


@pytest.mark.parametrize("name", ["config.json", "merges.txt", "chat_template.jinja"])
def test_the_texts_of_a_diffusers_folder_are_published(layer, name):
    """They run no code: also where the manifest states no hash of them."""
    data = b'{"_class_name": "x"}'
    pinned = file_of(data, f"qwen/transformer/{name}", "diffusers")

    for file in (pinned, File(name, "diffusers/q")):
        assert publish(layer, file, fetched(layer, file, data)).read_bytes() == data
    assert state(layer, pinned) is State.VERIFIED


def test_a_baked_layer_has_one_date(tmp_path):
    """Images that are built twice have the same files."""
    layer = Layer.open(tmp_path, mode="direct", mtime_s=946_684_800)
    data = tensors()
    path = publish(layer, file_of(data), fetched(layer, file_of(data), data))

    assert path.stat().st_mtime_ns == 946_684_800 * 10**9
    assert state(layer, file_of(data)) is State.VERIFIED


def test_a_hand_placed_file_is_adopted_without_a_copy(layer):
    """Hashing it once is enough; it keeps its place and becomes a blob."""
    data = tensors()
    file = file_of(data)
    path = placed(layer, file, data)
    inode = path.stat().st_ino
    assert state(layer, file) is State.UNVERIFIED
    told = []

    assert adopt(layer, file, path, progress=lambda *now: told.append(now)) == path
    assert state(layer, file) is State.VERIFIED
    assert path.stat().st_ino == inode
    assert told[-1] == (len(data), len(data))
    assert layer.blob(file.sha256).exists() == (layer.mode == "store")


def test_another_file_is_not_adopted(layer):
    """It stays where it is, and nothing says that it is right."""
    file = file_of(tensors(1))
    path = placed(layer, file, tensors(2))
    with pytest.raises(Corrupt, match="sha256"):
        adopt(layer, file, path)

    assert path.read_bytes() == tensors(2)
    assert state(layer, file) is not State.VERIFIED
    assert not list((layer.root / ".staging").rglob("*.*"))


def test_a_file_elsewhere_on_the_volume_is_linked(tmp_path):
    """The platform's cache on the same volume is taken over without a byte copied."""
    layer = Layer.open(tmp_path / "root")
    data = tensors()
    cache = tmp_path / "cache"
    cache.write_bytes(data)
    file = File("x.safetensors", size=len(data))  # models.lock knows the hash
    with pytest.raises(Corrupt):
        adopt(layer, file, cache, sha256="0" * 64)

    path = adopt(layer, file, cache, sha256=file_of(data).sha256)

    assert path.samefile(cache)
    assert state(layer, file_of(data)) is State.VERIFIED


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("mode", ["store", "direct"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "of its folder"])
def test_a_link_out_of_the_root_is_noted_and_left(tmp_path, mode, kind):
    """What it leads to keeps its place, mode and date, and counts as verified."""
    layer, data = Layer.open(tmp_path / "root", mode=mode), tensors()
    file, there = file_of(data), tmp_path / "nas" / "x.safetensors"
    there.parent.mkdir()
    there.write_bytes(data)
    there.chmod(0o644)
    path = layer.view(file.folder, file.name)
    path.parent.parent.mkdir(exist_ok=True)
    if kind == "of its folder":
        path.parent.symlink_to(there.parent)
    else:
        path.parent.mkdir()
        to = os.path.relpath(there, path.parent) if kind == "relative" else there
        path.symlink_to(to)
    before = there.stat()

    assert adopt(layer, file, path) == path

    assert path.is_symlink() or path.parent.is_symlink()
    now = there.stat()
    assert (now.st_mode, now.st_mtime_ns, now.st_nlink) == (
        before.st_mode,
        before.st_mtime_ns,
        1,
    )
    assert state(layer, file) is State.VERIFIED
    assert not layer.blob(file.sha256).exists()


@pytest.mark.parametrize("mode", ["store", "direct"])
def test_a_file_of_another_volume_is_noted_where_it_is(tmp_path, monkeypatch, mode):
    """`models` may be a link to one: 14 GB are not copied from there to the root."""
    layer, data = Layer.open(tmp_path / "root", mode=mode), tensors()
    file = file_of(data)
    path = placed(layer, file, data)
    inode = path.stat().st_ino

    def other_volume(*_, **__):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_volume)
    monkeypatch.setattr(Path, "rename", other_volume)

    adopt(layer, file, path)

    assert path.stat().st_ino == inode
    assert not path.is_symlink()
    assert state(layer, file) is State.VERIFIED


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_to_another_file_is_not_noted(tmp_path):
    """It is hashed as anything else, and left as it is."""
    layer, file = Layer.open(tmp_path / "root"), file_of(tensors(1))
    (tmp_path / "nas").write_bytes(tensors(2))
    path = layer.view(file.folder, file.name)
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "nas")
    with pytest.raises(Corrupt, match="sha256"):
        adopt(layer, file, path)

    assert state(layer, file) is not State.VERIFIED
    assert (tmp_path / "nas").read_bytes() == tensors(2)


def test_a_file_on_another_volume_is_not_hashed_in_vain(tmp_path, monkeypatch):
    """What cannot be linked is said to be so before it is read."""
    layer = Layer.open(tmp_path / "root")
    (tmp_path / "cache").write_bytes(tensors())
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(module, "digest", None)
    with pytest.raises(CannotLink):
        adopt(layer, file_of(tensors()), tmp_path / "cache")


def test_adopting_can_be_stopped(tmp_path):
    """Hashing 30 GB ends when somebody asks, and changes nothing."""
    layer = Layer.open(tmp_path)
    file = file_of(tensors())
    path = placed(layer, file, tensors())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        adopt(layer, file, path, stop=stop)

    assert state(layer, file) is State.UNVERIFIED


def test_a_layer_that_is_only_read_takes_nothing(tmp_path):
    """Publishing there says so, and so does moving a file out of the way."""
    made = Layer.open(tmp_path)
    data = tensors()
    got = fetched(made, file_of(data), data)
    layer = Layer.open(tmp_path, writable=False)
    with pytest.raises(ReadOnly):
        publish(layer, file_of(data), got)
    with pytest.raises(ReadOnly):
        quarantine(layer, file_of(data), got.path, "because")

    assert got.path.exists()


@pytest.mark.root
@mounts.root
@pytest.mark.parametrize("inodes", range(9, 24, 2))
def test_a_volume_that_fills_up_keeps_what_was_fetched(tmp_path, inodes):
    """At whatever step it is full: no name, the bytes stay, the next try works."""
    data = tensors()
    file = file_of(data)
    with mounts.tmpfs(tmp_path / "v", f"size=1m,nr_inodes={inodes}") as volume:
        try:
            layer = Layer.open(volume, mode="store")
            got = fetched(layer, file, data)
        except (NoSpace, OSError):
            return  # not even room to begin
        try:
            publish(layer, file, got)
        except NoSpace:
            assert not layer.view("vae", file.name).exists()
            assert got.path.exists() or layer.blob(file.sha256).exists()
            remount = ["mount", "-o", "remount,nr_inodes=99", str(volume)]
            subprocess.run(remount, check=True)
            if got.path.exists():
                publish(layer, file, got)
            else:
                relink(layer, file, file.sha256)
        assert state(layer, file) is State.VERIFIED


CHILD = """
import sys, hashlib
from pathlib import Path
from common.models.layer import Layer
from common.models.publish import publish
from tests.models.tensors import Got, file_of, tensors
layer = Layer.open(Path(sys.argv[1]), mode=sys.argv[2])
data = tensors(size=1 << 20)
file = file_of(data)
print("ready", flush=True)
sys.stdin.readline()
while True:
    stage = layer.staging(f"{file.key}-{sys.argv[3]}") / "data"
    stage.write_bytes(data)
    publish(layer, file, Got(stage, len(data), hashlib.sha256(data).hexdigest()))
    if sys.argv[4] == "once":
        break
    for path in (layer.view(file.folder, file.name), layer.blob(file.sha256)):
        path.unlink(missing_ok=True)
"""


def child(root, mode, name, times):
    command = [sys.executable, "-c", CHILD, str(root), mode, name, times]
    pipe = subprocess.PIPE
    started = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe)
    assert started.stdout.readline() == b"ready\n"
    return started


@pytest.mark.parametrize("mode", ["store", "direct"])
def test_two_processes_publish_the_same_bytes(tmp_path, mode):
    """Both succeed, and there is one file, whole and verified."""
    file = file_of(tensors(size=1 << 20))
    layer = Layer.open(tmp_path, mode=mode)
    two = [child(tmp_path, mode, name, "once") for name in "ab"]
    for one in two:
        one.stdin.write(b"\n")
        one.stdin.flush()
    ends = [one.communicate(timeout=30) and one.returncode for one in two]

    assert ends == [0, 0]
    assert state(layer, file) is State.VERIFIED
    assert not (layer.root / ".quarantine").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("mode", ["store", "direct"])
def test_a_kill_leaves_no_half_file(tmp_path, mode):
    """After kill -9 at any moment a name is absent or its file whole and verified."""
    data = tensors(size=1 << 20)
    file = file_of(data)
    layer = Layer.open(tmp_path, mode=mode)
    for turn in range(6):
        victim = child(tmp_path, mode, "victim", "for ever")
        victim.stdin.write(b"\n")
        victim.stdin.flush()
        time.sleep(0.002 + turn * 0.0071)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()

        found = Layers((layer,)).find(file, deep=True)
        assert found.state in (State.ABSENT, State.UNLINKED, State.VERIFIED)
        for path in (layer.view("vae", file.name), layer.blob(file.sha256)):
            assert not path.exists() or path.read_bytes() == data
    publish(layer, file, fetched(layer, file, data))
    assert state(layer, file) is State.VERIFIED
