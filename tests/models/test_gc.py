import errno
import json
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from common.models import refs
from common.models.errors import BadManifest, Locked, ReadOnly
from common.models.gc import DAY_S, GarbageCollector
from common.models.layer import Layer
from common.models.layers import Layers, State
from common.models.leases import lease, reading
from common.models.publish import adopt, publish
from common.models.quarantine import quarantine
from tests.models import mounts
from tests.models.tensors import fetched, file_of, placed, tensors, tree

LATER = time.time() + 90 * DAY_S


@pytest.fixture(params=["store", "direct"])
def layers(tmp_path, request):
    return Layers.open([tmp_path / "image", tmp_path / "volume"], mode=request.param)


@pytest.fixture
def put(layers):
    """Publish a small file and return what the manifest says of it."""

    def put(seed, name=None, folder="vae"):
        data = tensors(seed, size=64 << 10)
        file = file_of(data, name or f"{seed}.safetensors", folder)
        publish(layers.writable, file, fetched(layers.writable, file, data))
        return file

    return put


def kinds(plan):
    return sorted(removal.kind for removal in plan.removals)


def test_a_plan_changes_nothing_and_collecting_frees_what_it_says(layers, put):
    """The bytes freed are those of the plan, and of the disk."""
    old, wanted = put(1), put(2)
    before = tree(layers.writable.root)
    collector = GarbageCollector(layers, {wanted.sha256})

    plan = collector.plan(now=LATER)
    assert tree(layers.writable.root) == before
    assert [removal.sha256 for removal in plan.removals] == [old.sha256]
    used = plan.kept_bytes + plan.freed_bytes

    done = collector.collect(plan, now=LATER)
    assert done.freed_bytes == plan.freed_bytes == used - plan.kept_bytes
    assert layers.find(old).state is State.ABSENT
    assert layers.find(wanted).state is State.VERIFIED
    assert not any(old.sha256 in name for name in tree(layers.writable.root))
    assert collector.plan(now=LATER).removals == ()


def test_two_names_of_the_same_bytes_count_once(layers, put):
    """Freed bytes are what the volume has more, not the sum of names."""
    put(1, "one.safetensors")
    put(1, "two.safetensors", "text_encoders")
    [removal] = GarbageCollector(layers, ()).plan(now=LATER).removals

    if layers.writable.mode == "store":
        assert len(removal.paths) == 3
        assert removal.bytes < 2 * (64 << 10)
    else:  # there each name has bytes of its own
        assert len(removal.paths) == 2
        assert removal.bytes > 2 * (64 << 10)


def test_a_file_nobody_knows_is_never_touched(layers, put):
    """A user's own LoRA stays, with each switch there is."""
    put(1)
    mine = placed(layers.writable, file_of(tensors(9), "my_lora.safetensors"), b"mine")
    same = placed(
        layers.writable, file_of(tensors(8), "my_own.safetensors"), tensors(8)
    )
    collector = GarbageCollector(layers, ())

    plan = collector.plan(
        max_bytes=0, keep_days=0, now=LATER, placed=True, foreign=True
    )
    collector.collect(plan, now=LATER)
    assert mine.read_bytes() == b"mine"
    assert same.read_bytes() == tensors(8)


def test_a_receipt_deletes_nothing_outside(layers, put, tmp_path):
    """Whoever may write to the root cannot have gc remove what is not in it."""
    put(1)
    precious = tmp_path / "precious"
    precious.write_bytes(b"p")
    name = f"../../{precious.name}"
    said = {
        "sha256": "0" * 64,
        "size": 1,
        "header_sha256": None,
        "verified_at": 0.0,
        "how": "fetched",
        "names": {name: precious.stat().st_mtime_ns},
    }
    layers.writable.receipt("0" * 64).write_text(json.dumps(said))
    collector = GarbageCollector(layers, ())

    collector.collect(collector.plan(now=LATER), now=LATER)

    assert precious.read_bytes() == b"p"


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_out_of_the_root_goes_without_what_it_leads_to(layers, tmp_path):
    """Its target was never ours."""
    data = tensors(3)
    file = file_of(data)
    (tmp_path / "nas").write_bytes(data)
    view = layers.writable.view(file.folder, file.name)
    view.parent.mkdir(parents=True)
    view.symlink_to(tmp_path / "nas")
    adopt(layers.writable, file, view)
    collector = GarbageCollector(layers, ())

    collector.collect(collector.plan(now=LATER, placed=True), now=LATER)

    assert not os.path.lexists(view)
    assert (tmp_path / "nas").read_bytes() == data


def test_what_lies_on_another_volume_goes_as_well(layers, put, monkeypatch):
    """`models` may be a link to one; nothing can be moved from there to the trash."""
    file, rename = put(1), Path.rename

    def same_volume(one, other):
        if one.is_relative_to(layers.writable.root / "models"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(one, other)

    monkeypatch.setattr(Path, "rename", same_volume)
    collector = GarbageCollector(layers, ())

    done = collector.collect(collector.plan(now=LATER), now=LATER)

    assert done.failed == []
    assert layers.find(file).state is State.ABSENT
    assert not any(file.sha256 in name for name in tree(layers.writable.root))


def test_an_adopted_file_goes_only_when_asked(layers):
    """Somebody put it there by hand: the manifest's forgetting it is not enough."""
    data = tensors(3)
    file = file_of(data)
    adopt(layers.writable, file, placed(layers.writable, file, data))
    collector = GarbageCollector(layers, ())

    assert collector.plan(now=LATER).removals == ()
    assert kinds(collector.plan(now=LATER, placed=True)) == ["blob"]


def test_a_view_that_somebody_wrote_to_stays(layers, put):
    """Only the bytes we gave a name go; what took their place is not ours."""
    file = put(1)
    path = layers.writable.view(file.folder, file.name)
    path.unlink()
    path.write_bytes(b"mine")
    collector = GarbageCollector(layers, ())
    collector.collect(collector.plan(now=LATER), now=LATER)

    assert path.read_bytes() == b"mine"


def test_bytes_that_are_linked_elsewhere_stay(layers, put, tmp_path):
    """Removing one of two hard links frees nothing."""
    file = put(1)
    os.link(layers.writable.view(file.folder, file.name), tmp_path / "kept")

    assert GarbageCollector(layers, ()).plan(now=LATER).removals == ()


def test_what_is_used_or_pinned_stays(layers, put):
    """A use keeps its files for the days asked for, a pin for ever."""
    used, pinned, none = put(1), put(2), put(3)
    writable = layers.writable
    refs.touch(writable, "used@1", [used.sha256], now=LATER - 20 * DAY_S)
    refs.pin(writable, "pinned@1", [pinned.sha256])
    collector = GarbageCollector(layers, ())

    def gone(**asked):
        return {one.sha256 for one in collector.plan(now=LATER, **asked).removals}

    assert gone() == {none.sha256}
    assert gone(keep_days=10) == {none.sha256, used.sha256}
    refs.unpin(writable, "pinned@1")
    assert gone() == {none.sha256, pinned.sha256}


def test_a_use_while_the_plan_is_read_keeps_its_files(layers, put):
    """Between plan and collect a job came: what it uses is not taken from it."""
    one, two = put(1), put(2)
    collector = GarbageCollector(layers, ())
    plan = collector.plan(now=LATER)
    refs.touch(layers.writable, "job@1", [one.sha256], now=LATER)
    collector.collect(plan, now=LATER)

    assert layers.find(one).state is State.VERIFIED
    assert layers.find(two).state is State.ABSENT


def test_what_is_being_fetched_stays(layers):
    """A live lease keeps its staging; without it the same staging goes."""
    layer = layers.writable
    folder = layer.staging("a" * 64)
    (folder / "data").write_bytes(b"half")
    collector = GarbageCollector(layers, ())
    with lease(layer, "a" * 64, stop=threading.Event()):
        assert collector.plan(now=LATER).removals == ()
    plan = collector.plan(now=LATER)
    collector.collect(plan, now=LATER)

    assert kinds(plan) == ["staging"]
    assert not folder.exists()


def test_nobody_is_robbed_while_looking(layers, put):
    """While somebody looks for files gc waits, and gives up before it takes any."""
    put(1)
    collector = GarbageCollector(layers, ())
    plan = collector.plan(now=LATER)
    taken = threading.Event()

    def clean():
        collector.collect(plan, now=LATER)
        taken.set()

    with reading(layers.writable):
        thread = threading.Thread(target=clean)
        thread.start()
        assert not taken.wait(0.4)
    thread.join(20)
    assert taken.is_set()


def test_leftovers_of_killed_tools_go(layers, put):
    """Parts, other tools' half files, a trash that was not emptied, old quarantine."""
    file = put(1)
    layer = layers.writable
    folder = layer.view("vae", "x").parent
    leftovers = [
        layer.mkdir(layer.root / ".trash" / "1") / "0",
        folder / f".{file.name}.0123.part",
        layer.mkdir(folder / ".cache/huggingface/download") / "abc.incomplete",
        folder / "gone.safetensors.aria2",
        folder / f"{file.name}.aria2",
    ]
    for path in leftovers:
        path.write_bytes(b"left")
    bad = placed(layer, file_of(b"", "bad.safetensors"), b"bad")
    quarantine(layer, file, bad, "its hash is wrong")
    collector = GarbageCollector(layers, {file.sha256})
    plan = collector.plan(now=LATER)
    collector.collect(plan, now=LATER)

    assert kinds(plan) == ["foreign"] * 3 + ["part", "quarantine", "trash"]
    assert not any(path.exists() for path in leftovers)
    assert layers.find(file).state is State.VERIFIED
    assert collector.plan(now=LATER).removals == ()


def test_half_a_file_of_aria2_goes_with_its_record_or_not_at_all(layers):
    """Only when asked for: then both."""
    path = placed(layers.writable, file_of(b""), b"half")
    record = path.with_name(f"{path.name}.aria2")
    record.write_bytes(b"record")
    collector = GarbageCollector(layers, ())
    assert collector.plan(now=LATER).removals == ()

    collector.collect(collector.plan(now=LATER, foreign=True), now=LATER)
    assert not path.exists()
    assert not record.exists()


def test_quarantined_strangers_stay(layers):
    """A user's file that was in the way is kept until somebody asks."""
    data = tensors(1)
    file = file_of(data)
    placed(layers.writable, file, b"mine")
    publish(layers.writable, file, fetched(layers.writable, file, data))
    collector = GarbageCollector(layers, {file.sha256})

    assert collector.plan(now=LATER).removals == ()
    assert kinds(collector.plan(now=LATER, foreign=True)) == ["quarantine"]


@pytest.mark.parametrize("broken", ["m@1.json", "m@1.pin"])
def test_a_use_that_cannot_be_read_stops_everything(layers, put, broken):
    """Whose files are not known cannot be kept: nothing goes then."""
    put(1)
    folder = layers.writable.mkdir(layers.writable.root / "refs")
    (folder / broken).write_text("{")
    with pytest.raises(BadManifest, match=broken):
        GarbageCollector(layers, ()).plan(now=LATER)


def test_only_the_writable_layer_is_cleaned(layers, put, tmp_path):
    """What an image brings stays, and without a writable layer nothing is cleaned."""
    put(1)
    shutil.copytree(layers.writable.root, tmp_path / "image")
    both = Layers.open([tmp_path / "image", tmp_path / "empty"])

    assert GarbageCollector(both, ()).plan(now=LATER).removals == ()
    with pytest.raises(ReadOnly):
        GarbageCollector(Layers(both.layers[:1]), ()).plan()


def test_the_young_stay(layers, put):
    """Nothing goes in its first hour, whoever forgot to name it."""
    put(1)

    assert GarbageCollector(layers, ()).plan(max_bytes=0, keep_days=0).removals == ()


@pytest.mark.root
@mounts.root
@pytest.mark.parametrize(
    ("options", "flock"),
    [("size=1m", True), ("size=1m", False), ("size=1m,nr_inodes=40", True)],
    ids=["no byte", "no byte, no flock", "no inode"],
)
def test_a_full_volume_is_what_it_makes_room_on(tmp_path, options, flock):
    """It needs not one byte itself, for a lock or a folder: all hints lead here."""
    with mounts.tmpfs(tmp_path / "v", options) as volume:
        layer = Layer.open(volume)
        able = replace(layer.capabilities, flock=flock)
        layer = replace(layer, capabilities=able)
        data = tensors(1, size=64 << 10)
        file = file_of(data)
        publish(layer, file, fetched(layer, file, data))
        with reading(layer):
            pass
        before = mounts.fill(volume).stat().st_size
        with suppress(OSError):
            for number in range(50 if "inodes" in options else 0):
                (volume / f"f{number}").touch()
        collector = GarbageCollector(Layers((layer,)), ())

        done = collector.collect(collector.plan(now=LATER), now=LATER)

        assert before > 0
        assert [one.sha256 for one in done.removed] == [file.sha256]
        assert done.failed == []
        assert not layer.blob(file.sha256).exists()
        assert shutil.disk_usage(volume).free >= len(data)


def test_locked_says_so(layers, put, monkeypatch):
    """A reader that does not end makes gc give up, with nothing moved."""
    put(1)
    collector = GarbageCollector(layers, ())
    plan = collector.plan(now=LATER)
    before = tree(layers.writable.root)

    def busy(layer):
        raise Locked("in use")

    monkeypatch.setattr("common.models.leases.collecting", busy)
    with pytest.raises(Locked):
        collector.collect(plan, now=LATER)
    assert tree(layers.writable.root) == before
