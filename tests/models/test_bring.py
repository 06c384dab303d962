"""One file's trouble is its own, and all who speak of a file call it the same."""

import hashlib
import json
import threading
import time

import pytest

from common.models import leases, staging
from common.models.errors import ModelsError
from common.models.layers import State
from tests.models.shelf import shelf
from tests.range_server import Fault


@pytest.fixture
def shop(tmp_path):
    """A publisher of nothing yet."""
    with shelf(tmp_path) as one:
        yield one


def view(shop, name, where="vae"):
    return shop.folder / "root" / "models" / where / name


@pytest.mark.parametrize("name", ["c.json", "merges.txt", "chat.jinja"])
def test_the_texts_of_a_pipeline_come_without_a_stated_hash(shop, name):
    """They run no code; what came first is recorded, and is verified from then on."""
    data = shop.put(name, 5_000, where="diffusers/q", pinned=False)

    shop.ensurer().ensure("m@1")

    assert view(shop, name, "diffusers/q").read_bytes() == data
    assert shop.ensurer().status()[0].state == "ready"


def test_what_the_volume_says_of_one_file_ends_no_other(shop, monkeypatch):
    """A stale handle is a result with the file's own error."""
    for name in ("a.safetensors", "b.safetensors"):
        shop.put(name)
    write, failed = staging.pwrite, []

    def stale(*args):
        if not failed:
            failed.append(args)
            raise OSError(116, "Stale file handle")
        write(*args)

    monkeypatch.setattr(staging, "pwrite", stale)
    ensurer = shop.ensurer()
    bad, good = ensurer.ensure_files(ensurer.manifest.files)

    assert isinstance(bad.error, ModelsError)
    assert "Stale file handle" in bad.error.message
    assert (good.error, good.path.is_file()) == (None, True)


def test_a_link_to_itself_is_said_to_be_corrupt_and_mended(shop):
    """Nobody can look through it; it is put aside, and the other files come."""
    for name in ("a.safetensors", "b.safetensors"):
        shop.put(name)
    view(shop, "a.safetensors").parent.mkdir(parents=True)
    view(shop, "a.safetensors").symlink_to("a.safetensors")
    ensurer = shop.ensurer()
    first, _ = ensurer.file_status(ensurer.manifest.files)
    assert (first.state, "looked at" in first.reason) == (State.CORRUPT, True)

    results = ensurer.ensure_files(ensurer.manifest.files)

    assert [one.error for one in results] == [None, None]
    assert shop.ensurer().status()[0].state == "ready"


def test_a_file_that_models_lock_knows_has_one_key(shop):
    """Its lease, its staging and its state speak of the same bytes."""
    data = shop.put("a.safetensors", 3_000_000, pinned=False)
    found = hashlib.sha256(data).hexdigest()
    files = {"vae/a.safetensors": {"size": len(data), "sha256": found}}
    (shop.folder / "models.lock").write_text(json.dumps({"schema": 1, "files": files}))
    shop.server.fault = lambda asked: (
        Fault(stall=1_500_000) if asked.method == "GET" else None
    )
    ensurer, stop = shop.ensurer(), threading.Event()
    [file] = ensurer.manifest.files
    fetching = threading.Thread(
        target=ensurer.ensure_files, args=([file],), kwargs={"stop": stop}
    )
    fetching.start()
    try:
        until = time.monotonic() + 10
        while ensurer.find(file).state is not State.PARTIAL:
            assert time.monotonic() < until
            time.sleep(0.02)
        live = leases.live(ensurer.layers.writable)
        later = time.time() + 7200
        removals = ensurer.collector().plan(max_bytes=0, keep_days=0, now=later)
    finally:
        stop.set()
        fetching.join()

    assert live == {found}
    assert [one.name for one in shop.folder.glob("root/.staging/*")] == [found]
    assert removals.removals == ()
    [status] = ensurer.file_status([file])
    assert (status.state, status.done_bytes > 0) == (State.PARTIAL, True)
