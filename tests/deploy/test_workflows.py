"""The workflows of .github: valid, pinned, with no more rights than they need."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.service import folders, load
from tests.tiny import weights

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
VERSIONS = ROOT / "docker/versions.env"

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def load_changed():
    """Return docker/changed.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("changed", ROOT / "docker/changed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


changed = load_changed()


def steps(workflow):
    """Yield every step of a workflow."""
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def run(*arguments, **options):
    """Run a Python module and return what it did."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        **options,
    )


@each
def test_it_is_a_workflow(file):
    """By the schema of workflows."""
    done = run("check_jsonschema", "--builtin-schema", "vendor.github-workflows", file)

    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    """Neither by its usual rules nor by its pedantic ones; it asks no server."""
    zizmor = Path(sys.executable).with_name(f"zizmor{'.exe' * (os.name == 'nt')}")
    if not zizmor.exists():
        pytest.skip("zizmor is not installed: pip install zizmor")
    done = subprocess.run(
        [zizmor, "--offline", "--no-progress", "--persona", "pedantic", *FILES],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_actions_are_pinned_by_commit(file):
    """With the version beside it for people, and one commit for all files."""
    used = re.findall(r"uses: (\S+)(?: # (v[\d.]+))?", file.read_text())
    foreign = [(name, version) for name, version in used if not name.startswith("./")]

    assert foreign
    for name, version in foreign:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name), name
        assert version, name


def test_an_action_has_one_pin():
    """In all of the workflows."""
    text = "".join(file.read_text() for file in FILES)
    pins = set(re.findall(r"uses: ([\w/-]+)@([0-9a-f]{40})", text))

    assert len({name for name, _ in pins}) == len(pins)


@each
def test_it_has_no_rights_but_those_it_names(file):
    """None for the whole; each job says its own, its limit and who waits for whom."""
    workflow = yaml.safe_load(file.read_text())

    assert workflow["permissions"] == {}
    assert "cancel-in-progress" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert "permissions" in job
        assert "timeout-minutes" in job or "uses" in job


@each
def test_a_checkout_keeps_no_token(file):
    """Later steps run code that others wrote."""
    for step in steps(yaml.safe_load(file.read_text())):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@each
def test_its_scripts_are_scripts(file):
    """bash can read them, and no expression is pasted into one."""
    for step in steps(yaml.safe_load(file.read_text())):
        if "run" not in step:
            continue
        assert "${{" not in step["run"]
        if os.name == "posix":
            done = subprocess.run(
                ["/bin/bash", "-n"], input=step["run"], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_what_runs_there_runs_here():
    """The checks are `.ci/run` and `start.py test`, not a list of their own."""
    commands = [
        step["run"]
        for step in steps(
            yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
        )
        if "run" in step
    ]

    assert ".ci/run" in commands
    assert "python start.py test" in commands
    assert any("start.py test -m comfyui" in command for command in commands)


def test_every_test_over_comfyui_runs_there():
    """No test asks for a variable that nobody sets: it would skip for ever."""
    asked = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"\bWAN_TEST_[A-Z_]+", path.read_text("utf-8"))
    }
    told = (ROOT / ".github/workflows/ci.yml").read_text()

    assert {one for one in asked if f"export {one}=" not in told} <= {"WAN_TEST_"}


def test_files_that_workflows_name_exist():
    """A renamed script would fail at the next push, not now."""
    text = "".join(file.read_text() for file in FILES)
    named = set(re.findall(r"(?:docker|tests)/[\w/]+\.(?:py|env)", text))

    assert named
    assert all((ROOT / name).exists() for name in named), named


def test_versions_stand_once():
    """No file repeats a commit that docker/versions.env holds."""
    stated = dict(re.findall(r"^([A-Z_]+)=(\S+)$", VERSIONS.read_text(), re.MULTILINE))
    commit = stated["COMFYUI_COMMIT"]

    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    for file in (*FILES, ROOT / "docker-compose.yml", *ROOT.glob("**/Dockerfile")):
        assert commit not in file.read_text(), file


class TestChanged:
    @pytest.mark.parametrize(
        ("paths", "images"),
        [
            (["README.md", "tests/live.py", "fastwan2.2-5b-packed/README.md"], []),
            (["qwen-image-edit-nunchaku/api_wrapper.py"], ["qwen-image-edit-nunchaku"]),
            (
                ["fastwan2.2-5b-network-storage/workflow_api.json"],
                ["fastwan2.2-5b-network-storage", "fastwan2.2-5b-packed"],
            ),
            (["common/job.py"], [folder.name for folder in folders()]),
            (["docker/versions.env"], [folder.name for folder in folders()]),
            (None, [folder.name for folder in folders()]),
        ],
        ids=["nothing", "one", "neighbour", "shared", "versions", "unknown"],
    )
    def test_images_of_what_changed_are_built(self, paths, images):
        """And the one that runs any service on the embedded engine."""
        wanted = {f"wan-{name}" for name in images} | ({"wan-cpu"} if images else set())

        assert set(changed.images(paths)) == wanted

    @pytest.mark.parametrize("packed", [False, True])
    def test_images_with_weights_are_built_when_asked_for(self, packed):
        """They need a runner with a large disk."""
        command = [sys.executable, ROOT / "docker/changed.py", "--all"]
        command += ["--packed"] if packed else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        name, _, value = done.stdout.strip().partition("=")

        assert name == "images"
        assert ("wan-fastwan2.2-5b-packed" in json.loads(value)) is packed

    @pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
    def test_a_commit_that_is_not_there_means_everything(self):
        """After a forced push, for one."""
        assert changed.changed("0" * 40) is None


class TestTinyWeights:
    def test_there_are_tiny_weights_for_every_service(self):
        """Of each file that a workflow of its loads, and of no other but one LoRA."""
        needed = {
            file
            for service in map(load, folders())
            if service.comfyui
            for workflow in service.workflows.values()
            for file in workflow.weights()
        }
        made = {name.rpartition("/")[2] for name in weights.FILES}

        assert made - needed == {"extra_style.safetensors"}
        assert needed <= made
