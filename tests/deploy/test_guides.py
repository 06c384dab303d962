"""The guides say nothing that is not so: commands, settings, images, sizes, files."""

import re
import shutil
import subprocess
from itertools import pairwise

import pytest
import yaml

from common.manifest import Manifest
from common.models import errors
from common.models.layers import State
from common.service import find, folders
from tests.deploy.cluster import SERVICES, container, of
from tests.deploy.commands import blocks, check, lines, ours
from tests.deploy.composed import ROOT, document, variables
from tests.deploy.test_compose import GPU, NOT_SETTINGS, setting_names

DEPLOY = sorted((ROOT / "docs/deploy").glob("*.md"))
GUIDES = [path for path in DEPLOY if path.name != "README.md"]
ALL = [*DEPLOY, ROOT / "docs/models.md", ROOT / "README.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ALL}

# Of other programs, by the names that they have there.
FOREIGN = {
    *("RUNPOD_API_KEY", "RUNPOD_INIT_TIMEOUT", "PORT", "NOVITA_API_KEY"),
    *("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"),
    *("WAN_REGISTRY", "WAN_API_KEY"),  # of bake and compose; of the client
}


def commands(text):
    """Return the commands of a guide that are ours."""
    return list(ours(text))


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_of_ours_exists(name):
    """With the options that the guide gives it."""
    for arguments in commands(TEXTS[name]):
        check(arguments)


@pytest.mark.parametrize("name", TEXTS)
def test_every_service_model_and_file_exists(name):
    """A service by a prefix of its own; a model in the manifest, in that variant."""
    manifest = Manifest.load(ROOT / "models.toml")
    for arguments in commands(TEXTS[name]):
        for before, word in pairwise(arguments):
            if before == "--service" and word != "SERVICE":
                assert find(word).is_dir()
        if arguments[0] == "models":
            for word in arguments:
                if re.fullmatch(r"[\w.-]+@[\w.-]+(:\w+)?", word):
                    id_, _, variant = word.partition(":")
                    model = manifest.model(id_)
                    assert model.variant(variant or model.default)
                elif word.endswith(".safetensors"):
                    assert manifest.file(word)


def test_commands_are_found_at_all():
    """A guide is read as a person does, also inside a container."""
    assert ["container", "--check"] in commands(TEXTS["docs/deploy/docker.md"])
    told = commands(TEXTS["docs/deploy/runpod.md"])
    assert any(words[:2] == ["runpod", "deploy"] and "--env" in words for words in told)
    assert len(commands(TEXTS["docs/models.md"])) > 15


@pytest.mark.parametrize(
    "wrong",
    [["modelz", "status"], ["models", "fetch"], ["models", "gc", "--force"]],
    ids=["command", "subcommand", "option"],
)
def test_a_command_that_does_not_exist_is_found(wrong):
    """The check itself can fail."""
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize("name", TEXTS)
def test_every_setting_exists(name):
    """A variable that nothing reads would be set in vain."""
    known = setting_names() | variables() | NOT_SETTINGS | FOREIGN
    pattern = (
        r"\b(?:WAN|HF|AWS|COMFY\w*|ENABLE|RUNPOD|BUCKET|TAILSCALE)_[A-Z0-9_]*[A-Z0-9]\b"
    )
    told = {
        one
        for one in re.findall(pattern, TEXTS[name])
        if not one.startswith("RUNPOD_SECRET")
    }

    assert told <= known, told - known


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_a_guide_has_what_it_must(path):
    """Volume, ports, keys, cards, how to see that it works, what goes wrong."""
    text = path.read_text()
    for needed in (
        *("8189", "8188", "WAN_API_KEYS", "/workspace", "/ready"),
        *("FastWan 16 GB", "14B 24 GB", "Qwen"),
        "## What goes wrong",
    ):
        if needed == "WAN_API_KEYS" and path.name == "kubernetes.md":
            needed = "api-keys"
        assert needed in text, needed
    assert re.search(r"InfiniteTalk\s+32 GB", text)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    """To a file that is there."""
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXTS[name]):
        if not target.startswith(("http://", "https://")):
            assert (folder / target).exists(), target


@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_paths_of_the_repository_exist(path):
    """Those that commands are given."""
    for found in re.findall(r"(?<![\w./])deploy/kubernetes/[\w./-]+", path.read_text()):
        assert (ROOT / found).exists(), found


@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_images_and_targets_are_ones_that_are_built(path):
    """By their names in the bake file and in compose."""
    text = path.read_text()
    images = {f"wan-{name}" for name in SERVICES} | {"wan-cpu"}
    targets = {image.replace(".", "_") for image in images}
    named = re.findall(
        r"(?:localhost|OWNER)/(wan-[a-z0-9.-]*[a-z0-9])(?=[:\s\",}`]|$)", text
    )
    built = re.findall(r"\./build\.sh (wan-[\w.-]+)", text)

    assert set(named) <= images
    assert set(built) <= targets


@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_profiles_are_those_of_compose(path):
    """And so are the services that commands are run in."""
    services = document()["services"]
    profiles = {
        one for service in services.values() for one in service.get("profiles", ())
    }
    for words in lines(path.read_text()):
        if words[:2] == ["docker", "compose"]:
            at = [words[i + 1] for i, word in enumerate(words) if word == "--profile"]
            assert set(at) <= profiles
            if "exec" in words:
                assert words[words.index("exec") + 1] in services


def test_the_table_of_needs_is_that_of_the_services():
    """Cards by their READMEs, memory by the cluster's, names by compose."""
    text = TEXTS["docs/deploy/README.md"]
    row = r"^\| .* \| `(\S+)` \| (\d+) GB \| (\d+) GiB \| .* \| `wan-(\S+)` \|$"
    rows = re.findall(row, text, re.MULTILINE)
    seen = {}
    for name, card, memory, service in rows:
        seen[service] = name
        limit = container(service)["resources"]["limits"]["memory"]
        readme = (ROOT / service / "README.md").read_text()
        neighbour = re.search(r"\[(\S+)\]\(\.\./\1/README\.md\)", readme)
        if neighbour and "the defaults" not in readme:
            readme = (ROOT / neighbour[1] / "README.md").read_text()
        assert limit == f"{memory}Gi"
        assert f"/wan-{service}:" in GPU[name]["image"]
        assert re.search(rf"^\| {card} GB \| the defaults", readme, re.MULTILINE)

    assert seen.keys() == {folder.name for folder in folders()}


def test_the_kustomization_of_the_guide_names_what_there_is():
    """A service's folder, and the image that is in it."""
    (text,) = blocks(TEXTS["docs/deploy/kubernetes.md"], "yaml")
    mine = yaml.safe_load(text)
    (folder,) = mine["resources"]
    (image,) = mine["images"]

    assert (ROOT / folder.removeprefix("../")).is_dir()
    name = folder.rpartition("/")[2]
    assert container(name)["image"].rpartition(":")[0] == image["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_the_kustomization_of_the_guide_works(tmp_path):
    """In a folder beside ours, it changes the image and chooses the nodes."""
    (text,) = blocks(TEXTS["docs/deploy/kubernetes.md"], "yaml")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(text)
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "mine")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wanted = of("StatefulSet", list(yaml.safe_load_all(done.stdout)))
    spec = wanted["spec"]["template"]["spec"]

    assert spec["containers"][0]["image"].startswith("ghcr.io/OWNER/wan-fastwan2.2-5b-")
    assert list(spec["nodeSelector"]) == ["nvidia.com/gpu.product"]


def test_the_table_of_errors_is_that_of_the_code():
    """Each class by its exit code and its code, and no other."""
    text = TEXTS["docs/models.md"]
    told = {
        (int(number), code)
        for number, code in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)
    }
    classes = [one for one in vars(errors).values() if hasattr(one, "exit_code")]

    assert told == {(one.exit_code, one.code) for one in classes}


def test_the_table_of_states_is_that_of_the_code():
    """In any order."""
    text = TEXTS["docs/models.md"].partition("| state | is |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(State)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_every_shell_block_is_shell(path):
    """By the shell's own parser; nothing is run."""
    for block in blocks(path.read_text(), "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
