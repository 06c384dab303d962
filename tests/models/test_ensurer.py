"""Whatever lies there and whatever goes wrong, the weights end up whole or named."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time

import pytest

from common.models import ModelEnsurer, layers, publish, refs
from common.models.digest import digest
from common.models.errors import Corrupt, NoSpace, SourcesFailed, Stopped
from common.models.layers import State
from common.models.meter import Step
from tests.models import mounts
from tests.models.shelf import shelf
from tests.range_server import Fault


@pytest.fixture
def shop(tmp_path):
    """A publisher with two files, of which one has no known hash."""
    with shelf(tmp_path) as one:
        one.put("a.safetensors", 300_000)
        one.put("b.safetensors", 5_000, where="loras", pinned=False)
        yield one


def states(ensurer):
    return [one.state for one in ensurer.status()[0].files]


def view(shop, where, name, root="root"):
    return shop.folder / root / "models" / where / name


def test_a_model_is_brought_once_and_then_asks_nobody(shop):
    """Both files are where ComfyUI looks; a second call needs no network."""
    assert shop.ensurer().status()[0].state == "absent"
    path = shop.ensurer().ensure("m@1")

    assert path == shop.folder / "root" / "models"
    for where, name in (("vae", "a.safetensors"), ("loras", "b.safetensors")):
        wanted = (shop.folder / "published" / name).read_bytes()
        assert (path / where / name).read_bytes() == wanted
    assert shop.ensurer().status()[0].state == "ready"
    shop.server.asked.clear()
    results = shop.ensurer().ensure_files(shop.ensurer().files_of("m@1"))
    assert [one.fetched_bytes for one in results] == [0, 0]
    assert shop.server.asked == []


def test_progress_is_told_per_file_up_to_ready(shop):
    """Bytes grow, the total is right, and the last word of each file is ready."""
    notices = []
    shop.ensurer().ensure("m@1", notice=notices.append)

    last = {one.name: one for one in notices}
    assert last["loras/b.safetensors"].total == last["loras/b.safetensors"].done > 5000
    first = [one for one in notices if one.name == "vae/a.safetensors"]
    assert [one.done for one in first] == sorted(one.done for one in first)
    assert first[0].step is Step.DOWNLOADING
    assert first[-1].step is Step.READY
    assert first[-2].done == first[-2].total


def test_what_was_put_there_by_hand_is_adopted_and_not_fetched(shop):
    """It is hashed once, and then it is verified."""
    by_hand = view(shop, "vae", "a.safetensors")
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes((shop.folder / "published" / "a.safetensors").read_bytes())
    assert states(shop.ensurer())[0] is State.UNVERIFIED

    file, _ = shop.ensurer().files_of("m@1")
    (result,) = shop.ensurer().ensure_files([file])

    assert (result.error, result.fetched_bytes) == (None, 0)
    assert states(shop.ensurer())[0] is State.VERIFIED
    assert not any("a.safetensors" in one.path for one in shop.server.asked)


def test_a_wrong_file_of_that_name_is_moved_away_and_kept(shop):
    """Somebody's own file is not removed: it lies in quarantine with a record."""
    by_hand = view(shop, "vae", "a.safetensors")
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"something else")
    ensurer = shop.ensurer()
    first, second = ensurer.ensure_files(ensurer.files_of("m@1"))

    assert (first.aside / "data").read_bytes() == b"something else"
    assert second.aside is None
    assert states(shop.ensurer()) == [State.VERIFIED, State.VERIFIED]
    kept = [p.read_bytes() for p in shop.folder.glob("root/.quarantine/*/data")]
    assert kept == [b"something else"]


def test_a_publisher_that_changes_an_unpinned_file_is_refused(shop):
    """What was fetched first holds; the hint says how to accept the new one."""
    shop.ensurer().ensure("m@1")
    path = view(shop, "loras", "b.safetensors")
    path.unlink()
    for blob in (shop.folder / "root" / "blobs").rglob("*"):
        if blob.is_file() and blob.stat().st_size < 10_000:
            blob.unlink()
    published = shop.folder / "published" / "b.safetensors"
    changed = bytearray(published.read_bytes())
    changed[-1] ^= 1
    published.write_bytes(changed)

    with pytest.raises(Corrupt, match="not what was fetched before") as caught:
        shop.ensurer().ensure("m@1")
    assert "models.lock" in caught.value.hint
    assert not path.exists()


def test_repair_mends_a_flipped_byte_that_no_quick_look_sees(shop):
    """Same size, same time, same header: deep finds it, and the file is whole again."""
    shop.ensurer().ensure("m@1")
    path = view(shop, "vae", "a.safetensors")
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    ensurer = shop.ensurer()
    files = ensurer.files_of("m@1")
    assert states(ensurer)[0] is State.VERIFIED
    assert ensurer.verify(files, deep=True)[0].state is State.CORRUPT

    results = ensurer.repair_files(files)

    assert [one.error for one in results] == [None, None]
    wanted = (shop.folder / "published" / "a.safetensors").read_bytes()
    assert path.read_bytes() == wanted


def test_repair_mends_what_the_disk_cannot_read(shop, monkeypatch):
    """The file is put aside as any damaged one, and comes again."""
    shop.ensurer().ensure("m@1")
    path = view(shop, "vae", "a.safetensors")
    bad = path.stat().st_ino

    def read(one, *more):
        if one.stat().st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return digest(one, *more)

    for module in (layers, publish):
        monkeypatch.setattr(module, "digest", read)
    ensurer = shop.ensurer()
    first, second = ensurer.repair_files(ensurer.files_of("m@1"))

    assert (first.error, second.error) == (None, None)
    assert (first.aside / "data").stat().st_ino == bad
    wanted = (shop.folder / "published" / "a.safetensors").read_bytes()
    assert path.read_bytes() == wanted
    assert states(shop.ensurer()) == [State.VERIFIED, State.VERIFIED]


def test_one_file_that_fails_leaves_the_others_to_come(shop):
    """Each file has a result of its own; `ensure` raises the first error."""
    shop.server.fault = lambda asked: (
        Fault(status=404) if "a.safetensors" in asked.path else None
    )
    ensurer = shop.ensurer()
    bad, good = ensurer.ensure_files(ensurer.files_of("m@1"))

    assert isinstance(bad.error, SourcesFailed)
    assert (good.error, good.path.is_file()) == (None, True)
    with pytest.raises(SourcesFailed):
        ensurer.ensure("m@1")


@pytest.mark.parametrize("fast", [False, True], ids=["ours", "aria2c"])
def test_offline_is_said(shop, fast):
    """Nobody wonders at midnight why no source was asked."""
    ensurer = shop.ensurer(hf_offline=True, enable_fast_download=fast)
    with pytest.raises(SourcesFailed, match="HF_HUB_OFFLINE is set"):
        ensurer.ensure("m@1")

    assert shop.server.asked == []


def test_the_next_source_gives_what_the_first_has_wrong(shop, tmp_path):
    """A source with other bytes is found out by the hash, and asked last."""
    wrong = tmp_path / "wrong.safetensors"
    data = bytearray(shop.put("c.safetensors", 50_000, sources=[f"local://{wrong}"]))
    data[-5] ^= 1
    wrong.write_bytes(data)
    ensurer = shop.ensurer()
    file = ensurer.manifest.file("c.safetensors")

    (result,) = ensurer.ensure_files([file])

    assert result.error is None
    found = hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert found == file.sha256
    records = list((shop.folder / "root" / ".quarantine").glob("*/record.json"))
    assert len(records) == 1
    assert f"local://{wrong}" in records[0].read_text()


def test_a_plan_that_cannot_fit_is_refused_before_a_byte(shop):
    """The message has the numbers; nothing was asked for."""
    shop.put("huge.safetensors", 5_000)
    shop.texts[-1] = shop.texts[-1].replace("size = ", f"size = {10**9}")
    ensurer = shop.ensurer()

    with pytest.raises(NoSpace, match=r"10\.00 TB"):
        ensurer.ensure("m@1")
    assert shop.server.asked == []


def test_a_corrupt_file_takes_the_room_of_its_repair(shop):
    """It is put aside and not overwritten: that needs as much as if it were absent."""
    broken = view(shop, "vae", "a.safetensors")
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"half")
    ensurer = shop.ensurer()
    ensurer._margin = 10**18

    with pytest.raises(NoSpace):
        ensurer.ensure_files([ensurer.manifest.file("a.safetensors")])
    assert broken.read_bytes() == b"half"
    assert shop.server.asked == []


@pytest.mark.root
@mounts.root
@pytest.mark.parametrize("kind", ["tmpfs", "ext2"])
def test_a_volume_that_others_fill_meanwhile_is_no_space(tmp_path, kind):
    """Whether its room could be reserved or not: what came is kept, nothing is half."""
    size = 6 << 20
    mounted = {
        "tmpfs": lambda: mounts.tmpfs(tmp_path / "v", "size=10m"),
        "ext2": lambda: mounts.ext2(tmp_path / "v", 12 << 20),
    }[kind]()
    with mounted as volume, shelf(tmp_path / "shop", rate=4 << 20) as shop:
        shop.put("a.safetensors", size)

        def fault(asked):
            if asked.method == "GET" and not (volume / "fill").exists():
                mounts.fill(volume)

        shop.server.fault = fault
        ensurer = shop.ensurer(volume / "root")
        [one] = ensurer.ensure_files(ensurer.files_of("m@1"))
        assert isinstance(one.error, NoSpace), one
        assert "full" in one.error.message
        assert ensurer.status()[0].state in ("partial", "absent")
        assert not list(volume.glob("root/models/**/*.safetensors"))

        shop.server.fault = lambda _: None
        (volume / "fill").unlink()
        again = shop.ensurer(volume / "root")
        again.ensure("m@1")
        assert again.status()[0].state == "ready"
        assert again.verify(again.files_of("m@1"), deep=True)[0].state == "verified"


def test_a_stop_ends_it_and_keeps_what_came(shop):
    """The next call goes on; the file that was not begun is not there."""
    stop = threading.Event()
    notices = []

    def notice(one):
        notices.append(one)
        stop.set()

    ensurer = shop.ensurer()
    results = ensurer.ensure_files(ensurer.files_of("m@1"), notice=notice, stop=stop)
    assert all(isinstance(one.error, Stopped) for one in results)

    ensurer.ensure("m@1")
    assert ensurer.status()[0].state == "ready"


def test_a_baked_layer_below_is_used_and_never_written(shop):
    """Zero bytes are fetched for what an image brings; what it lacks goes above it."""
    baked = shop.ensurer("baked")
    file, other = baked.files_of("m@1")
    baked.ensure_files([file])
    before = sorted(p for p in (shop.folder / "baked").rglob("*"))
    shop.server.asked.clear()

    ensurer = shop.ensurer("volume", models_layers=(shop.folder / "baked",))
    ensurer.ensure("m@1")

    assert ensurer.find(file).path == view(shop, "vae", file.name, "baked")
    assert ensurer.find(other).path == view(shop, "loras", other.name, "volume")
    assert not any("a.safetensors" in one.path for one in shop.server.asked)
    assert sorted(p for p in (shop.folder / "baked").rglob("*")) == before


@pytest.fixture
def sharing(shop):
    """Return an ensurer of two models that have a file in common, and their root."""
    shop.put("c.safetensors", 5_000)
    settings = shop.settings()
    text = settings.models_manifest.read_text().partition("[models.")[0]
    for model, own in (("one@1", "b"), ("two@1", "c")):
        text += f'[models."{model}"]\ndefault = "v"\n[models."{model}".variants.v]\n'
        text += f'files = ["a.safetensors", "{own}.safetensors"]\n'
    settings.models_manifest.write_text(text)
    return ModelEnsurer.from_config(settings)


def uses(ensurer):
    return {ref.model: ref for ref in refs.load(ensurer.layers.writable)}


def test_a_shared_file_takes_nothing_from_another_models_use(sharing):
    """Bringing the second model leaves what the first one holds, and when."""
    sharing.ensure("one@1")
    first = uses(sharing)["one@1"]
    sharing.ensure("two@1")

    assert len(first.keys) == 2
    assert uses(sharing)["one@1"] == first
    assert len(uses(sharing)["two@1"].keys) == 2


def test_what_is_found_in_place_is_used(sharing):
    """A service that starts and fetches nothing keeps its weights from gc."""
    sharing.ensure("one@1")
    for path in (sharing.layers.writable.root / "refs").glob("*.json"):
        said = json.loads(path.read_bytes())
        path.write_text(json.dumps(said | {"last_used": 5.0}))

    sharing.used(sharing.files_of("one@1"))

    assert uses(sharing).keys() == {"one@1"}
    assert uses(sharing)["one@1"].last_used > time.time() - 3600
    assert len(uses(sharing)["one@1"].keys) == 2


def test_a_hugging_face_cache_on_the_volume_is_linked(shop):
    """No byte is copied or asked for, and the plan needs no room for it."""
    data = shop.put("c.safetensors", 50_000, sources=[f"hf://o/r@{'0' * 40}/c"])
    blob = hashlib.sha256(data).hexdigest()
    cached = shop.folder / "hub" / "models--o--r" / "blobs" / blob
    cached.parent.mkdir(parents=True)
    cached.write_bytes(data)
    ensurer = shop.ensurer(hf_cache=shop.folder / "hub", hf_offline=True)
    ensurer._margin = 10**18
    [one] = ensurer.ensure_files([ensurer.manifest.file("c.safetensors")])

    assert one.error is None
    assert one.fetched_bytes == 0
    assert one.path.samefile(cached)
    assert ensurer.find(one.file).state is State.VERIFIED
    assert shop.server.asked == []


def test_a_damaged_cache_is_not_taken(shop):
    """It is hashed before it gets a name; then the publisher is asked."""
    data = shop.put("c.safetensors", 50_000, sources=[f"hf://o/r@{'0' * 40}/c"])
    blob = hashlib.sha256(data).hexdigest()
    cached = shop.folder / "hub" / "models--o--r" / "blobs" / blob
    cached.parent.mkdir(parents=True)
    cached.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ensurer = shop.ensurer(
        hf_cache=shop.folder / "hub", hf_endpoint="http://127.0.0.1:9"
    )
    [one] = ensurer.ensure_files([ensurer.manifest.file("c.safetensors")])

    assert one.error is None
    assert one.path.read_bytes() == data
    assert not one.path.samefile(cached)


def test_what_a_layer_below_recorded_is_known_above(shop):
    """A file that only the image's own models.lock knows is verified there."""
    shop.ensurer("baked").ensure("m@1")
    volume = shop.ensurer(models_layers=(shop.folder / "baked",))

    assert [one.state for one in volume.status()[0].files] == ["verified", "verified"]


def test_what_comfyui_has_in_its_own_folder_is_not_fetched_again(shop):
    """It lies below the root that is named, and is never written to."""
    own = view(shop, "vae", "a.safetensors", "comfyui")
    own.parent.mkdir(parents=True)
    own.write_bytes((shop.folder / "published" / "a.safetensors").read_bytes())

    ensurer = shop.ensurer("volume", comfyui_dir=shop.folder / "comfyui")
    file, other = ensurer.files_of("m@1")
    ensurer.ensure("m@1")

    assert ensurer.ready(file)
    assert ensurer.find(file).path == own
    assert ensurer.find(other).path == view(shop, "loras", other.name, "volume")
    assert not any("a.safetensors" in one.path for one in shop.server.asked)
    assert [p for p in (shop.folder / "comfyui").rglob("*") if p.is_file()] == [own]


def test_what_below_nobody_can_vouch_for_is_fetched(shop):
    """Without a receipt a file counts by its header, and only safetensors has one."""
    data = shop.put("c.json", 5_000, where="diffusers/m")
    own = view(shop, "diffusers/m", "c.json", "comfyui")
    own.parent.mkdir(parents=True)
    own.write_bytes(data)

    ensurer = shop.ensurer("volume", comfyui_dir=shop.folder / "comfyui")
    file = ensurer.manifest.file("c.json")
    (result,) = ensurer.ensure_files([file])

    assert result.path == view(shop, "diffusers/m", "c.json", "volume")
    assert ensurer.ready(file)


def test_what_is_broken_below_is_repaired_above(shop):
    """A layer that is only read keeps its file; ComfyUI finds the right one first."""
    low = view(shop, "vae", "a.safetensors", "comfyui")
    low.parent.mkdir(parents=True)
    data = (shop.folder / "published" / "a.safetensors").read_bytes()
    broken = data[:-1] + bytes([data[-1] ^ 1])
    low.write_bytes(broken)
    ensurer = shop.ensurer("volume", comfyui_dir=shop.folder / "comfyui")
    files = ensurer.files_of("m@1")

    results = ensurer.repair_files(files)

    assert [(one.file, one.error) for one in results] == [(f, None) for f in files]
    assert low.read_bytes() == broken
    assert results[0].path == view(shop, "vae", "a.safetensors", "volume")
    assert results[0].path.read_bytes() == data
    assert ensurer.find(files[0]).state is State.VERIFIED


@pytest.mark.skipif(shutil.which("aria2c") is None, reason="needs aria2c")
@pytest.mark.parametrize("broken", [False, True], ids=["it brings", "it gives up"])
def test_aria2c_brings_what_suits_it_when_asked_for(shop, broken):
    """What it cannot bring comes by our own transport; either is hashed by us."""
    agents = set()

    def fault(asked):
        agents.add(asked.headers.get("user-agent", "").partition("/")[0])
        theirs = asked.headers.get("user-agent", "").startswith("aria2")
        return Fault(status=404) if broken and theirs else None

    shop.server.fault = fault
    shop.ensurer(enable_fast_download=True).ensure("m@1")

    assert "aria2" in agents
    assert shop.ensurer().status()[0].state == "ready"
    wanted = (shop.folder / "published" / "a.safetensors").read_bytes()
    assert view(shop, "vae", "a.safetensors").read_bytes() == wanted


def test_an_unpinned_file_put_there_by_hand_is_recorded(shop):
    """Nobody knew its hash: what lies there is what it is from now on."""
    by_hand = view(shop, "loras", "b.safetensors")
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes((shop.folder / "published" / "b.safetensors").read_bytes())

    _, file = shop.ensurer().files_of("m@1")
    (result,) = shop.ensurer().ensure_files([file])

    assert (result.error, result.fetched_bytes) == (None, 0)
    assert states(shop.ensurer())[1] is State.VERIFIED
    assert not any("b.safetensors" in one.path for one in shop.server.asked)


def test_a_fetch_that_brought_nothing_holds_no_room(shop):
    """Its reservation goes; one that brought something keeps it for the next time."""
    shop.server.fault = lambda asked: Fault(status=404)
    ensurer = shop.ensurer()
    (result,) = ensurer.ensure_files([ensurer.manifest.file("a.safetensors")])

    assert isinstance(result.error, SourcesFailed)
    assert list((shop.folder / "root" / ".staging").iterdir()) == []
