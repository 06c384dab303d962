import json

import pytest
import yaml

from tests.range_server import Fault


def test_our_own_manifest_fits_our_services(wan, tmp_path):
    """Each file that a service loads is listed, in its loader's folder."""
    said = wan("models", "--root", tmp_path, "validate", "--json")

    assert said.code == 0
    found = json.loads(said.out)
    assert found["ok"] is True
    assert found["online"] is None
    assert {one["problem"] for one in found["services"]} == {None}
    assert "✓ wan2.2-14b-loras" in wan("models", "--root", tmp_path, "validate").out


def test_a_manifest_that_lacks_what_services_load_is_2(models):
    """Each missing file is named, with the service that loads it."""
    said = models("validate")

    assert said.code == 2
    assert "✗ fastwan2.2-5b-network-storage" in said.out
    assert "has no vae/wan2.2_vae.safetensors" in said.out


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (None, "same"),
        (Fault(404), "absent"),
        (Fault(401), "auth"),
        (Fault(500), "unreachable"),
    ],
    ids=["same", "absent", "auth", "unreachable"],
)
def test_online_asks_each_source(models, weights, fault, outcome):
    """What each one says is in the answer; no file is fetched."""
    weights.server.fault = lambda one: fault

    found = json.loads(models("validate", "--online", "--json").out)

    by = {one["file"]: one["outcome"] for one in found["online"]}
    assert by["vae/a.safetensors"] == outcome
    assert by["vae/b.safetensors"] == ("there" if outcome == "same" else outcome)
    assert {one.method for one in weights.server.asked} == {"HEAD"}


def test_online_finds_a_file_of_another_size(models, weights):
    """A publisher who replaced a file is found before anybody fetches it."""
    (weights.server.folder / "a.safetensors").write_bytes(b"another")

    said = models("validate", "--online")

    assert "differs" in said.out
    assert "7 bytes, the manifest says" in said.out


def test_why_of_an_absent_file(models, weights):
    """Where it was looked for, what has it, and what lies near."""
    near = weights.folder / "root/models/loras/a.safetensors"
    near.parent.mkdir(parents=True)
    near.write_bytes(b"x")

    said = models("why", "a.safetensors")

    assert said.code == 0
    assert f"absent at {weights.folder / 'root/models/vae/a.safetensors'}" in said.out
    assert f"is it {near}?" in said.out
    assert "in m@1: v" in said.out
    assert f"had at {weights.server.url}/a.safetensors" in said.out


def test_why_of_a_verified_file(models, weights):
    """When and how it was verified, from which sources, and that gc keeps it."""
    models("ensure", "--all")
    models("pin", "m@1")

    said = models("why", "vae/a.safetensors")
    found = json.loads(models("why", "vae/a.safetensors", "--json").out)

    assert "fetched and hashed 20" in said.out
    assert "gc keeps it: pinned by m@1" in said.out
    assert found["receipt"]["sources"] == {
        f"{weights.server.url}/a.safetensors": found["size_bytes"]
    }
    assert found["gc"] == {"goes": False, "why": "pinned by m@1"}
    assert found["models"] == {"m@1": ["v"]}


def test_why_of_a_stranger_on_the_disk(models, weights):
    """A file that the manifest does not know, and that lies there, is said."""
    path = weights.folder / "root/models/loras/mine.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")

    said = models("why", "mine.safetensors")

    assert said.code == 3
    assert f"{path} is there" in said.err


def test_why_says_which_services_load_it(wan, tmp_path):
    """By the loader nodes of their workflows."""
    said = wan("models", "--root", tmp_path, "why", "wan2.2_vae.safetensors", "--json")
    found = json.loads(said.out)
    assert "fastwan2.2-5b-network-storage" in [
        one["service"] for one in found["services"]
    ]


def test_path_map_is_what_comfyui_reads(models, weights):
    """To stdout, or to a file that is named."""
    root, image = weights.folder / "root", weights.folder / "image"
    said = models("path-map", "--layer", image)
    assert yaml.safe_load(said.out)["wan_1"]["base_path"] == str(root)
    assert yaml.safe_load(said.out)["wan_0"]["base_path"] == str(image)

    out = weights.folder / "paths.yaml"
    written = models("path-map", "--out", out)
    assert yaml.safe_load(out.read_text())["wan_0"]["is_default"] is True
    assert (written.out, written.code) == ("", 0)
    assert str(out) in written.err


def test_a_path_map_that_cannot_be_written(models, weights):
    """The folder is named; there is no traceback."""
    said = models("path-map", "--out", weights.folder / "nowhere/paths.yaml")
    assert said.code == 1
    assert "error: " in said.err
    assert "No such file" in said.err
