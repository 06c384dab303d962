"""Whatever lies there and whatever goes wrong, the weights end up whole or named."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from common.models.errors import Corrupt, Missing, NoSpace, SourcesFailed, Stopped
from common.models.layers import State
from common.models.meter import Step
from common.service import find, folders, load
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

    first = [one for one in notices if one.name == "vae/a.safetensors"]
    assert [one.done for one in first] == sorted(one.done for one in first)
    assert first[0].step is Step.DOWNLOADING
    assert first[-1].step is Step.READY
    assert first[-2].done == first[-2].total


def test_a_model_that_nobody_knows_is_refused_with_near_names(shop):
    """The hint is what was meant."""
    with pytest.raises(Missing) as caught:
        shop.ensurer().ensure("n@1")

    assert "m@1" in caught.value.hint


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
    shop.ensurer().ensure("m@1")

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

    with pytest.raises(NoSpace, match="10000"):
        ensurer.ensure("m@1")
    assert shop.server.asked == []


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


def test_near_misses_are_said(shop):
    """A file in the wrong folder is what people most often have."""
    misplaced = view(shop, "checkpoints", "a.safetensors")
    misplaced.parent.mkdir(parents=True)
    misplaced.write_bytes(b"x")

    (status, _) = shop.ensurer().status()[0].files

    assert (status.state, status.near) == (State.ABSENT, misplaced)


CHILD = """
    import sys
    from pathlib import Path
    from common.models import ModelEnsurer
    from common.settings import Settings

    folder = Path(sys.argv[1])
    settings = Settings(
        models=folder / "root", models_manifest=folder / "models.toml",
        models_margin_gb=0,
    )
    print("begun", flush=True)
    print(ModelEnsurer.from_config(settings).ensure("m@1"))
"""


def child(shop):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(shop.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def test_processes_that_ask_together_fetch_once(tmp_path):
    """One fetches, the others wait for it, and each gets the file."""
    with shelf(tmp_path, rate=4_000_000) as shop:
        data = shop.put("a.safetensors", 6_000_000)
        shop.write()
        children = [child(shop) for _ in range(3)]
        outputs = [one.communicate(timeout=60)[0] for one in children]

        assert [one.returncode for one in children] == [0, 0, 0]
        assert {one.strip() for one in outputs} == {str(tmp_path / "root" / "models")}
        assert shop.server.sent < 1.2 * len(data)


def test_kills_at_any_moment_lose_little_and_never_leave_half_a_file(tmp_path):
    """Each life takes up what the one before had; the name appears when it is whole."""
    with shelf(tmp_path, rate=2_000_000) as shop:
        data = shop.put("a.safetensors", 24_000_000)
        shop.write()
        path = view(shop, "vae", "a.safetensors")
        for _ in range(3):
            before = shop.server.sent
            process = child(shop)
            while shop.server.sent < before + 4_000_000 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not path.exists()
        process = child(shop)
        process.communicate(timeout=60)

        assert process.returncode == 0
        assert path.read_bytes() == data
        # A kill loses at most a block of 1 MiB for each of 16 connections.
        assert shop.server.sent < len(data) + 3 * 17 * 2**20


@pytest.mark.parametrize("folder", folders(), ids=lambda one: one.name)
def test_each_service_needs_files_of_the_manifest(folder, tmp_path):
    """Nothing that a service loads is unknown; the exact set is its workflow's."""
    from common.models import ModelEnsurer
    from common.settings import Settings

    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(folder)

    needed = {file.name for file in ensurer.needed_by(service, variants=True)}
    loaded = {name for one in service.workflows.values() for name in one.weights()}

    assert needed >= loaded
    assert needed


def test_a_model_that_a_node_loads_whole_is_needed_in_one_variant(tmp_path):
    """The one that suits the card, where somebody says which that is."""
    from common.models import ModelEnsurer
    from common.settings import Settings

    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(find("qwen-image-edit-nunchaku"))
    usual = {one.name[:9] for one in ensurer.needed_by(service)}
    ensurer.variants["qwen-image-edit@2509"] = "fp4"
    job = {one.name[:9] for one in ensurer.loaded_by(service.workflow)}

    assert "svdq-int4" in usual - job
    assert "svdq-fp4_" in job - usual
    assert len(usual) == len(job) > 5


def test_a_variants_files_are_asked_for_by_name(tmp_path):
    """The 14B pair for text-to-video is 28 GB: nobody gets it without asking."""
    from common.models import ModelEnsurer
    from common.settings import Settings

    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(find("wan2.2-14b-loras"))

    main = {file.name for file in ensurer.needed_by(service)}
    every = {file.name for file in ensurer.needed_by(service, variants=True)}

    assert not any("t2v" in name for name in main)
    assert any("t2v" in name for name in every - main)
