import json
import os

import pytest


def test_a_mirror_serves_another_machine(models, weights, monkeypatch):
    """What is copied there is all that another root needs; no publisher is asked."""
    models("ensure", "--all")
    target = f"local://{weights.folder}/mirror"

    first = json.loads(models("mirror", target, "--json").out)
    again = json.loads(models("mirror", target, "--json").out)

    assert [one["outcome"] for one in first["files"]] == ["copied"] * 2
    assert [one["outcome"] for one in again["files"]] == ["there"] * 2
    assert (first["exit_code"], again["copied_bytes"]) == (0, 0)
    asked = len(weights.server.asked)
    monkeypatch.setenv("WAN_MODELS_MIRROR", target)
    said = models("ensure", "a.safetensors", "--root", weights.folder / "other")
    assert said.code == 0
    assert len(weights.server.asked) == asked


def test_a_damaged_mirror_is_mended_when_it_is_asked(models, weights):
    """Sizes are compared else; --verify hashes what the mirror has."""
    models("ensure", "--all")
    target = f"local://{weights.folder}/mirror"
    models("mirror", target)
    blob = max((weights.folder / "mirror").rglob("blobs/*/*/*"))
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    quick = json.loads(models("mirror", target, "--json").out)
    deep = json.loads(models("mirror", target, "--verify", "--json").out)

    assert {one["outcome"] for one in quick["files"]} == {"there"}
    assert sorted(one["outcome"] for one in deep["files"]) == ["mended", "there"]
    assert (deep["copied_bytes"], deep["exit_code"]) == (len(data), 0)
    assert blob.read_bytes() == data
    assert "0 copied, 0 bytes" in models("mirror", target, "--verify").err


def test_what_is_not_here_is_3(models, weights):
    """A file that is named and absent is said; the others are copied."""
    models("ensure", "a.safetensors")

    said = models("mirror", f"local://{weights.folder}/mirror", "--all")

    assert said.code == 3
    assert "not here: vae/b.safetensors" in said.err
    assert len(list((weights.folder / "mirror").rglob("blobs/*/*/*"))) == 1


def test_damaged_bytes_are_not_copied(models, weights):
    """They are hashed on their way: what is wrong gets no name, and ends with 4."""
    models("ensure", "a.safetensors")
    path = weights.folder / "root/models/vae/a.safetensors"
    data, times = path.read_bytes(), path.stat()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    said = models("mirror", f"local://{weights.folder}/mirror")

    assert said.code == 4
    assert "its sha256 is" in said.err
    assert not [p for p in (weights.folder / "mirror").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "target", ["/srv", "https://host/x", "hf://a/b@c", "local://rel", "s3://"]
)
def test_what_is_no_target(models, target):
    """Only a folder and a bucket can be written to."""
    said = models("mirror", target)
    assert said.code == 2
    assert "error: " in said.err
