import json
import os
import time

import pytest

from tests.models.shelf import shelf

OLD_S = 7 * 86_400


@pytest.fixture
def weights(tmp_path):
    """A publisher of two files."""
    with shelf(tmp_path) as published:
        published.put("a.safetensors", 8192)
        published.put("b.safetensors", 4096)
        yield published


@pytest.fixture
def models(models):
    """Run `wan models` over a root that has it all."""
    assert models("ensure", "--all").code == 0
    return models


def retire(weights):
    """Take the second file out of the manifest, a week after it was used."""
    weights.texts.pop()
    weights.names.pop()
    weights.write()
    root, then = weights.folder / "root", time.time() - OLD_S
    for path in (root / "receipts").glob("*.json"):
        receipt = json.loads(path.read_bytes())
        path.write_text(json.dumps(receipt | {"verified_at": then}))
    for path in (root / "refs").glob("*.json"):
        ref = json.loads(path.read_bytes())
        path.write_text(json.dumps(ref | {"last_used": then}))


def test_gc_shows_first_and_removes_when_told(models, weights):
    """Without --yes nothing is removed, and it is said how."""
    retire(weights)
    path = weights.folder / "root/models/vae/b.safetensors"

    shown = models("gc", "--keep-days", 1)
    assert shown.code == 0
    assert "b.safetensors" in shown.out
    assert "no model uses it" in shown.out
    assert "nothing was removed: --yes does it" in shown.err
    assert path.exists()
    dry = json.loads(models("gc", "--keep-days", 1, "--yes", "--dry-run", "--json").out)
    assert (dry["done"], dry["removed_bytes"]) == (False, 0)
    assert path.exists()

    done = json.loads(models("gc", "--keep-days", 1, "--yes", "--json").out)

    assert done["done"] is True
    assert done["removed_bytes"] == dry["freed_bytes"] > 0
    assert not path.exists()
    assert (weights.folder / "root/models/vae/a.safetensors").exists()
    assert "nothing to remove" in models("gc", "--keep-days", 1).err


def test_gc_makes_room_but_not_of_what_is_pinned(models, weights):
    """--max-bytes takes what was used least recently, and says what is left over."""
    retire(weights)
    models("pin", "m@1")
    assert "pinned" in models("status").out

    kept = models("gc", "--keep-days", 0, "--max-bytes", "1kB", "--yes")
    assert (weights.folder / "root/models/vae/a.safetensors").exists()
    assert "over --max-bytes: the rest is pinned" in kept.err
    assert "under an hour old" in kept.err

    assert json.loads(models("unpin", "m", "--json").out) == {
        "model": "m@1",
        "pinned": False,
    }
    retire_again(weights)
    models("gc", "--keep-days", 0, "--max-bytes", "1kB", "--yes")
    assert not (weights.folder / "root/models/vae/a.safetensors").exists()


def retire_again(weights):
    """Let it be a week since the pin, which counts as a use."""
    for path in (weights.folder / "root/refs").glob("*.json"):
        ref = json.loads(path.read_bytes())
        path.write_text(json.dumps(ref | {"last_used": time.time() - OLD_S}))


def test_a_pin_outlives_the_use_of_one_file(models, weights):
    """Ensuring one file of a pinned model does not unpin the others."""
    models("pin", "m")
    models("ensure", "--only", "a.safetensors")

    [ref] = (weights.folder / "root/refs").glob("*.json")
    assert len(json.loads(ref.read_bytes())["keys"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("unpin", "m@1"), 3, "m@1 is not pinned"),
        (("pin", "x@1"), 3, "no model 'x@1'"),
        (("gc", "--max-bytes", "lots"), 2, "'lots' is no size"),
    ],
    ids=["not pinned", "no model", "no size"],
)
def test_what_cannot_be_done(models, arguments, code, words):
    """It is said in a line, with its code."""
    said = models(*arguments)
    assert said.code == code
    assert words in said.err


def test_du_counts_two_names_of_the_same_bytes_once(models, weights):
    """What sharing saves is said by layer and by model."""
    weights.put("copy.safetensors", 8192, seed=0)
    weights.write()
    models("ensure", "--all")

    found = json.loads(models("du", "--json").out)

    [layer] = found["layers"]
    data = (weights.server.folder / "a.safetensors").stat().st_size
    assert layer["naive_bytes"] - data <= layer["bytes"] < layer["naive_bytes"] + data
    assert found["shared_bytes"] == data
    assert [one["model"] for one in found["models"]] == ["m@1"]
    table = models("du").out
    assert "as if apart" in table
    assert "held" in table
    assert str(weights.folder / "root") in table


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix permissions")
def test_a_root_that_takes_no_writes_is_9(wan, tmp_path, monkeypatch, weights):
    """Neither gc nor a pin pretends."""
    root = tmp_path / "file"
    root.write_bytes(b"")  # nobody, not even root, can write below a file
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(weights.write()))

    for arguments in (["gc"], ["pin", "m@1"]):
        assert wan("models", "--root", root, *arguments).code == 9


def test_a_limit_that_is_no_size_is_wrong_use(models):
    """It is refused with an example."""
    said = models("gc", "--max-bytes", "lots")

    assert said.code == 2
    assert "is no size" in said.err
    assert "200GB" in said.err
