import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.models.shelf import shelf


@pytest.fixture
def weights(tmp_path):
    """A publisher of two files, one of them without a sha256 in the manifest."""
    with shelf(tmp_path) as published:
        published.put("a.safetensors", 8192)
        published.put("b.safetensors", 4096, where="loras", pinned=False)
        yield published


def test_status_of_what_is_absent_and_there(models, weights):
    """What is named and absent is 3, what is there 0, and nobody is asked."""
    before = models("status", "m@1")
    everything = models("status")
    assert (before.code, everything.code) == (3, 0)
    assert "not ready: a.safetensors, b.safetensors" in before.err
    assert "absent" in everything.out

    models("ensure", "--all")
    asked = len(weights.server.asked)
    after = models("status", "m@1", "--json")

    assert after.code == 0
    found = json.loads(after.out)
    assert found["ready"] is True
    assert found["root"] == str(weights.folder / "root")
    assert [one["state"] for one in found["models"][0]["files"]] == ["verified"] * 2
    assert len(weights.server.asked) == asked


@pytest.mark.parametrize(
    "choice",
    [
        ["a.safetensors"],
        ["m@1:v", "b.safetensors"],
        ["--all", "--with-variants"],
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["elsewhere", "an other"])
def test_the_hint_works_as_it_is_typed(models, weights, choice, place):
    """It repeats what was chosen and where, and then it is there."""
    root = weights.folder / place
    said = models("status", *choice, "--root", root)
    assert said.code == 3
    hint = said.err.splitlines()[-1].removeprefix("hint:  '")
    typed = hint.removesuffix("' fetches what is absent")

    wan, models_, *rest = shlex.split(typed)
    assert (wan, models_) == ("wan", "models")
    assert models(*rest).code == 0
    assert models("status", *choice, "--root", root).code == 0


def test_the_hint_names_the_service(wan, tmp_path):
    """It is what was typed, which may be the beginning of its name."""
    root, layer = tmp_path / "root", tmp_path / "layer"
    options = ("--root", root, "--layer", layer)
    said = wan("models", *options, "status", "--service", "fastwan2.2-5b-n")

    words = f"--service fastwan2.2-5b-n --root {root} --layer {layer}"
    assert f"'wan models ensure {words}'" in said.err


def test_a_corrupt_file_is_4_named_or_not(models, weights):
    """A file of another size is said with its reason."""
    models("ensure", "a.safetensors")
    path = weights.folder / "root/models/vae/a.safetensors"
    path.unlink()
    path.write_bytes(b"half")

    for said in (models("status"), models("status", "a.safetensors")):
        assert said.code == 4
        assert "corrupt: a.safetensors" in said.err
        assert "it is 4 bytes, not" in said.out


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_are_taken_before_and_after_the_name(wan, weights, place):
    """`wan models --root R status` is `wan models status --root R`."""
    options = ["--root", weights.folder / "other", "--manifest", weights.write()]
    parts = ["status", "--json"]
    both = [*options, *parts] if place == "before" else [*parts, *options]

    found = json.loads(wan("models", *both).out)

    assert found["root"] == str(weights.folder / "other")


def test_a_lower_layer_counts(models, weights):
    """What another root has is ready, and its root is said."""
    models("--root", weights.folder / "image", "ensure", "--all")
    said = models("status", "a.safetensors", "--layer", weights.folder / "image")
    assert said.code == 0
    found = json.loads(
        models(
            "--layer", weights.folder / "image", "--json", "status", "a.safetensors"
        ).out
    )
    assert found["files"][0]["layer"] == str(weights.folder / "image")
    assert len(found["layers"]) == 2


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("m@2", 3, "has no model or file 'm@2'"),
        ("m@1:fp9", 3, "there are v"),
        ("a.safetensor", 3, "did you mean a.safetensors"),
        ("A.SAFE", 3, "did you mean a.safetensors"),
        ("nothing", 3, "there are the models m@1"),
        ("loras/a.safetensors", 3, "loras/a.safetensors"),
    ],
    ids=["model", "variant", "near", "part", "none", "folder"],
)
def test_a_name_that_is_not_known(models, name, code, words):
    """What is nearly meant is said; as JSON, too."""
    said = models("status", name)
    assert said.code == code
    assert words in said.err

    found = json.loads(models("status", name, "--json").out)
    assert (found["exit_code"], found["error"]["code"]) == (code, "missing")


def test_a_model_without_its_version(models):
    """As long as only one is meant, the version may be left out."""
    assert json.loads(models("status", "m", "--json").out)["models"][0]["model"] == (
        "m@1"
    )


def test_a_service_is_what_its_workflow_loads(wan, tmp_path):
    """The files of a service are those of its loader nodes."""
    root = tmp_path / "root"
    said = wan("models", "--root", root, "status", "--service", "fastwan2.2-5b-net")
    assert said.code == 3
    wide = wan(
        "models", "--root", root, "status", "--service", "fastwan2.2-5b-net", "--json"
    )
    [service] = json.loads(wide.out)["services"]
    assert service["service"] == "fastwan2.2-5b-network-storage"
    assert "wan2.2_vae.safetensors" in [one["file"] for one in service["files"]]


def test_verify_deep_finds_what_a_look_does_not(models, weights):
    """A flipped byte behind an old date is found by reading everything."""
    models("ensure", "--all")
    path = weights.folder / "root/models/vae/a.safetensors"
    there = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))

    assert models("verify").code == 0
    said = models("verify", "--deep")
    assert said.code == 4
    assert "corrupt: a.safetensors" in said.err
    found = json.loads(models("verify", "--deep", "--json").out)
    states = {one["file"]: one["state"] for one in found["files"]}
    assert states == {"a.safetensors": "corrupt", "b.safetensors": "verified"}
    [model] = json.loads(models("status", "--json").out)["models"]
    assert "verified" not in {
        one["state"] for one in model["files"] if one["file"] == "a.safetensors"
    }


def test_a_bad_manifest_is_2(models, weights):
    """It is said with its line, and not as a traceback."""
    path = weights.folder / "bad.toml"
    path.write_text('schema = 1\n[[file]]\nname = "x.ckpt"\n')

    said = models("status", "--manifest", path)

    assert said.code == 2
    assert f"{path}:2" in said.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models", "--help"], ["models", "status"]], ids=str
)
def test_no_transport_is_imported_to_look(tmp_path, arguments):
    """Help and status start at once: no HTTP, S3 or Hub library, no web framework."""
    heavy = ("urllib3", "obstore", "huggingface_hub", "boto3", "fastapi", "requests")
    code = (
        "import sys\n"
        "from common.cli.main import app\n"
        "try:\n    app(sys.argv[1:], prog_name='wan')\n"
        "except SystemExit:\n    pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "WAN_MODELS": str(tmp_path)},
    )
    assert ran.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["status", "verify", "du", "path-map", "why"])
def test_looking_makes_nothing(models, weights, name):
    """A root that is not there is not made by a command that only looks."""
    said = models(name, *(["a.safetensors"] if name == "why" else []))
    assert said.code == 0
    assert not (weights.folder / "root").exists()


def test_help_states_the_exit_codes_of_these_commands(wan):
    """They are not those of the other commands."""
    for arguments in (["models"], ["models", "ensure"], ["models", "gc"]):
        text = " ".join(wan(*arguments, "--help").out.split())
        assert "4 corrupt, 5 no space, 6 no source gave it" in text
