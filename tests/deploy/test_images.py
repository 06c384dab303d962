"""Images: their Dockerfiles, locks, versions and bake file agree with one another."""

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from common.manifest import Manifest
from common.models.ensurer import ModelEnsurer
from common.models.layers import State
from common.models.needs import needs
from common.service import folders, load
from common.settings import Settings
from tests.models.tensors import tensors

hcl2 = pytest.importorskip("hcl2", reason="python-hcl2 is not installed")

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/Dockerfile"))
SERVICES = [folder.name for folder in folders()]
PACKED = "fastwan2.2-5b-packed"
QWEN = "qwen-image-edit-nunchaku"


def versions():
    """Return what docker/versions.env says."""
    lines = (ROOT / "docker/versions.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))


def bare(value):
    """Return what hcl2 read, without the quotes that it leaves on strings and names."""
    if isinstance(value, dict):
        return {
            bare(name): bare(one)
            for name, one in value.items()
            if not name.startswith("__")
        }
    if isinstance(value, list):
        return [bare(one) for one in value]
    return value.strip('"') if isinstance(value, str) else value


def bake():
    """Return docker-bake.hcl as {kind: {name: block}}."""
    with (ROOT / "docker-bake.hcl").open() as file:
        read = bare(hcl2.load(file))
    return {
        kind: {name: one for block in blocks for name, one in block.items()}
        for kind, blocks in read.items()
        if isinstance(blocks, list)
    }


def instructions(dockerfile):
    """Return a Dockerfile's instructions, each on one line."""
    lines = (ROOT / dockerfile).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


class TestDockerfiles:
    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=str)
    def test_linted(self, dockerfile):
        """No Dockerfile does what hadolint advises against, but where it says why."""
        hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
        if hadolint is None:
            pytest.skip("hadolint is not installed")
        config = ROOT / "docker/hadolint.yaml"
        done = subprocess.run(
            [hadolint, "--config", config, dockerfile],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=str)
    def test_begins_with_what_is_pinned(self, dockerfile):
        """No image is named where it is used: each comes as an argument, by digest."""
        stages = set()
        for line in instructions(dockerfile):
            if line.startswith("FROM "):
                _, image, *name = line.split()
                assert image.startswith("${") or image in stages, line
                stages.update(name[1:])

    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=str)
    def test_runs_as_nobody(self, dockerfile):
        """The last stage does not run as root; by number, so that platforms see it."""
        last = "".join(instructions(dockerfile)).rpartition("FROM ")[2]
        users = re.findall(r"USER (\S+)", last)
        inherits = not users and "FROM ${BASE_IMAGE}" in (ROOT / dockerfile).read_text()
        assert inherits or users[-1] == "1000:1000"

    @pytest.mark.parametrize("service", SERVICES)
    def test_holds_its_service(self, service):
        """A service's image has its folder and serves it."""
        text = (ROOT / service / "Dockerfile").read_text()

        assert f"COPY {service} /opt/wan/{service}" in text
        assert f"WAN_SERVICE={service}" in text

    def test_secrets_are_mounted(self):
        """A token never becomes a layer, an argument or a variable."""
        for dockerfile in DOCKERFILES:
            for line in instructions(dockerfile):
                assert not re.match(r"(ARG|ENV) .*(TOKEN|SECRET|KEY)=(?!/run/)", line)

    def test_packages_are_pinned_by_hash(self):
        """Every package comes from a lock; one wheel is named by its address."""
        for dockerfile in DOCKERFILES:
            for line in instructions(dockerfile):
                for install in re.findall(r"pip install .*?(?:&&|$)", line):
                    assert "--require-hashes" in install or "NUNCHAKU" in install

    @pytest.mark.parametrize("lock", ["comfyui", "jupyter", "qwen", "runpod"])
    def test_locks(self, lock):
        """A lock has a hash for each package, and names no registry."""
        text = (ROOT / f"docker/{lock}.lock").read_text()
        pinned = re.findall(r"^[a-z0-9][^ ]*==[^ ]+ \\\n    --hash=sha256:", text, re.M)

        assert len(pinned) == len(re.findall(r"^[a-z0-9].*==", text, re.M)) > 20
        assert "://" not in text

    def test_fast_downloads(self):
        """ENABLE_FAST_DOWNLOAD works: the image has aria2c and what talks to it."""
        lock = (ROOT / "requirements.lock").read_text()

        assert re.search(r"\baria2\b", (ROOT / "common/Dockerfile").read_text())
        assert re.search(r"^aria2p==", lock, re.MULTILINE)

    def test_start_scripts(self):
        """Both scripts that platforms may be told to run are in every image."""
        text = (ROOT / "common/Dockerfile").read_text()
        system = text.partition(" AS system")[2].partition("\nFROM ")[0]
        copied = "COPY start_services.sh start_services_simple.sh /usr/local/bin/"
        assert copied in system
        for name in ("start_services.sh", "start_services_simple.sh"):
            path = ROOT / name
            assert os.access(path, os.X_OK)
            assert path.read_text().splitlines()[-1] == 'exec wan container "$@"'


class TestIgnored:
    def test_every_service_is_let_in(self):
        """What may go into images is named, so a new service must be."""
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]

        assert rules[0] == "*"
        assert {f"!{name}" for name in [*SERVICES, "common"]} <= set(rules)


class TestBake:
    def test_every_version_is_known(self):
        """What bake asks for is in docker/versions.env, and stands nowhere else."""
        asked = [name for name, one in bake()["variable"].items() if not one]
        given = versions()

        assert set(asked) <= set(given)
        elsewhere = [*DOCKERFILES, "docker-bake.hcl", "build.sh"]
        for name in asked:
            value = given[name]
            for path in elsewhere:
                assert value not in (ROOT / path).read_text(), (name, path)

    def test_pinned(self):
        """Images are named by digest, and ComfyUI by a commit."""
        for name, value in versions().items():
            if name.endswith("_IMAGE"):
                assert re.search(r":[^@]+@sha256:[0-9a-f]{64}$", value), name
        assert re.fullmatch(r"[0-9a-f]{40}", versions()["COMFYUI_COMMIT"])

    def test_every_service_is_built(self):
        """Each service's image is among the targets, under its folder's name."""
        targets = bake()["target"]
        tags = " ".join(tag for one in targets.values() for tag in one.get("tags", ()))
        services = targets["services"]["matrix"]["service"]
        named = {*services, *re.findall(r"/wan-([a-z][\w.-]*):", tags)}

        assert named - {"cpu"} == set(SERVICES)

    def test_names(self):
        """Bake takes no dots in names."""
        found = bake()
        for name in [*found["target"], *found["group"]]:
            assert re.fullmatch(r"[A-Za-z0-9_-]+", name)

    def test_arguments_are_declared(self):
        """Each argument that bake hands over is one that its Dockerfile declares."""
        targets = bake()["target"]
        for name, one in targets.items():
            for parent in one.get("inherits", ()):
                one = {**targets[parent], **one}
            for argument in one.get("args", {}):
                text = (ROOT / one["dockerfile"]).read_text()
                assert f"ARG {argument}" in text, (name, argument)

    def test_it_builds_where_docker_is_as_it_comes(self):
        """Docker's own builder takes no attestations: the workflow asks for them."""
        workflow = (ROOT / ".github/workflows/images.yml").read_text()

        assert not [one for one in bake()["target"].values() if "attest" in one]
        assert "provenance: mode=max" in workflow
        assert "sbom: true" in workflow

    def test_labels(self):
        """A published image says its version, commit, licence and source."""
        labels = bake()["target"]["_published"]["labels"]

        for name in ("version", "revision", "licenses", "source"):
            assert f"org.opencontainers.image.{name}" in str(labels)

    def test_everything_is_built_by_default(self):
        """One command builds all images."""
        found = bake()
        published = {
            name
            for name, one in found["target"].items()
            if one.get("tags") and not name.startswith("_")
        }

        assert set(found["group"]["default"]["targets"]) == published

    @pytest.mark.parametrize("script", ["build.sh", "rebuild.sh"])
    def test_scripts_hand_the_versions_over(self, script, tmp_path):
        """The scripts call bake with every version in the environment."""
        docker = tmp_path / "docker"
        docker.write_text('#!/bin/sh\necho "$@"; env\n')
        docker.chmod(0o755)
        done = subprocess.run(
            [ROOT / script, "wan-cpu"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        first, *env = done.stdout.splitlines()

        assert first.startswith("buildx bake --file docker-bake.hcl")
        assert first.endswith("wan-cpu")
        assert ("--no-cache" in first) is (script == "rebuild.sh")
        assert {f"{name}={value}" for name, value in versions().items()} <= set(env)


class TestPacked:
    def baked(self):
        """Return the files that the packed image fetches, in order."""
        text = (ROOT / PACKED / "Dockerfile").read_text()
        return re.findall(r"^    wan models ensure .*--only (\S+)$", text, re.M)

    def test_bakes_what_its_service_needs(self):
        """The packed image has each file that its workflow loads, and nothing else."""
        needed = {need.name for need in needs(load(ROOT / PACKED))}

        assert sorted(self.baked()) == sorted(needed)

    def test_largest_first(self):
        """A layer that is small and changes often comes after those that do not."""
        manifest = Manifest.load(ROOT / "models.toml")
        sizes = [manifest.file(name).size for name in self.baked()]

        assert sizes == sorted(sizes, reverse=True)

    def test_each_file_is_a_layer(self):
        """Each fetched file's folder is copied by a line of its own."""
        manifest = Manifest.load(ROOT / "models.toml")
        lines = instructions(Path(PACKED, "Dockerfile"))
        copied = [
            re.search(r"/opt/weights/models/(\w+)/ ", line)[1]
            for line in lines
            if line.startswith("COPY") and "/models/" in line
        ]

        assert copied == [manifest.file(name).folder for name in self.baked()]

    def test_copied_folders_are_enough(self, tmp_path):
        """What the Dockerfile copies of a baked file is found verified, unfetched."""
        source = tmp_path / "made.safetensors"
        source.write_bytes(tensors())
        manifest = tmp_path / "models.toml"
        manifest.write_text(
            f"""schema = 1
[[file]]
name = "made.safetensors"
folder = "vae"
size = {source.stat().st_size}
sha256 = "{sha256(source.read_bytes()).hexdigest()}"
sources = ["local://{source}"]
"""
        )
        env = {"WAN_MODELS": tmp_path / "bake", "WAN_MODELS_MANIFEST": manifest}
        baked = [sys.executable, "-m", "common.cli.main", "models", "ensure"]
        subprocess.run(
            [*baked, "--baked", "--only", "made.safetensors"],
            cwd=ROOT,
            env={**os.environ, **{name: str(path) for name, path in env.items()}},
            check=True,
        )
        for folder in ("models/vae", "receipts"):
            shutil.copytree(tmp_path / "bake" / folder, tmp_path / "image" / folder)
        source.unlink()

        ensurer = ModelEnsurer.from_config(
            Settings.read(
                models=tmp_path / "volume",
                models_layers=str(tmp_path / "image"),
                models_manifest=manifest,
            )
        )
        found = ensurer.find(ensurer.manifest.file("made.safetensors"))
        assert found.state is State.VERIFIED
        assert found.path == tmp_path / "image/models/vae/made.safetensors"

    def test_token_is_a_secret(self):
        """Every line that fetches has the token mounted, and only there."""
        for line in instructions(Path(PACKED, "Dockerfile")):
            if "wan models ensure" in line:
                assert "--mount=type=secret,id=hf_token,env=HF_TOKEN " in line


def test_qwen_has_no_comfyui():
    """Qwen's image is not made from the one with ComfyUI, and serves on 8000."""
    text = (ROOT / QWEN / "Dockerfile").read_text()

    assert "gpu" not in text.replace("--gpus", "")
    assert "comfyui" not in "".join(instructions(Path(QWEN, "Dockerfile"))).lower()
    assert "WAN_PORT=8000" in text
