"""The CPU image: built by buildah over a bare Debian, started, and asked for a clip."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from common.ports import next_free
from start import OFFLINE

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent.parent
SUITE = "bookworm"
BASE = "localhost/base"
SERVICE = "fastwan2.2-5b-network-storage"
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem")
LIMIT_S = 60


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """Return what runs buildah with a storage of its own."""
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    folder = tmp_path_factory.mktemp("buildah")
    storage = ["--root", folder / "root", "--runroot", folder / "run"]

    def run(*words):
        return subprocess.run(
            ["buildah", *storage, *words],
            cwd=ROOT,
            env={
                **os.environ,
                "TMPDIR": str(folder),
                "BUILDAH_ISOLATION": "chroot",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    run.folder, run.storage = folder, storage
    yield run
    run("rm", "--all")
    run("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def image(buildah):
    """Build the CPU image as docker-bake.hcl does, but over our own Debian."""
    base = buildah.folder / "base"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, base],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"debootstrap: {made.stdout[-300:]}")
    begun = buildah("from", "scratch")
    container = begun.stdout.strip()
    for words in (
        ("add", "-q", container, base, "/"),
        ("commit", "-q", container, BASE),
    ):
        begun = begun if begun.returncode else buildah(*words)
    if begun.returncode:
        pytest.skip(f"buildah cannot work here: {begun.stderr[-300:]}")
    shutil.rmtree(base)
    done = buildah(
        *("bud", "--format", "docker", "--target", "cpu", "--tag", "wan-cpu"),
        *("--build-arg", f"BASE_IMAGE={BASE}"),
        *network(buildah.folder),
        *("--file", "common/Dockerfile", "."),
    )
    said = done.stdout[-3000:] + done.stderr[-3000:]
    if done.returncode and any(sign in said.lower() for sign in OFFLINE):
        pytest.skip(f"no package index is to be reached from the build: {said[-300:]}")
    assert done.returncode == 0, said
    return "localhost/wan-cpu"


def network(folder):
    """Return what lets pip reach its index from here, and stays out of layers."""
    lines = ["[global]"]
    bundle = next((one for one in BUNDLES if Path(one).exists()), None)
    options = []
    if bundle is not None:
        shutil.copy(bundle, folder / "ca.crt")
        lines.append("cert = /run/ca.crt")
        options += ["--volume", f"{folder / 'ca.crt'}:/run/ca.crt:ro"]
    index = os.environ.get("PIP_INDEX_URL")
    lines += [f"index-url = {index}"] if index else []
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return [*options, "--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"]


def test_says_how_it_runs(buildah, image):
    """The image names its user, entry, health check, and no build-time setting."""
    done = buildah("inspect", "--type", "image", image)
    config = json.loads(done.stdout)["Docker"]["config"]

    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["tini", "-s", "--"]
    assert config["Cmd"] == ["wan", "container"]
    assert config["Healthcheck"]["Test"][-1] == "common.container.health"
    assert not [name for name in config["Env"] if name.startswith(("PIP", "SSL"))]


def test_makes_a_clip(buildah, image):
    """Started as its configuration says, it makes a clip and drains on SIGTERM."""
    config = json.loads(buildah("inspect", "--type", "image", image).stdout)
    config = config["Docker"]["config"]
    port, engine = (next_free("127.0.0.1", start) for start in (28700, 28800))
    container = buildah("from", image).stdout.strip()
    said = buildah(
        *("run", container, "--", "sh", "-c"),
        "cat /etc/pip.conf /run/ca.crt 2>/dev/null; touch /opt/wan/x 2>&1; id -u;"
        " command -v start_services.sh; command -v aria2c; python -c 'import aria2p'",
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[1:] == [
        *("1000", "/usr/local/bin/start_services.sh", "/usr/bin/aria2c")
    ]
    env = {
        "WAN_SERVICE": SERVICE,
        "WAN_PORT": port,
        "WAN_ENGINE_PORT": engine,
        "WAN_ENGINE_SPEED": 0,
        "WAN_API_KEYS": "key",
    }
    options = [
        word for pair in env.items() for word in ("--env", "=".join(map(str, pair)))
    ]
    log = buildah.folder / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [
                *("buildah", *buildah.storage, "run", *options, container, "--"),
                *(*config["Entrypoint"], *config["Cmd"]),
            ],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            stdout=output,
            stderr=output,
        )
    try:
        until_ready(f"http://127.0.0.1:{port}", running, log)
        health = buildah(
            *("run", *options, container, "--", *config["Healthcheck"]["Test"][1:])
        )
        job = clip(f"http://127.0.0.1:{port}")
        first = first_process(running.pid)
        first.terminate()

        assert running.wait(60) == 0, log.read_text()
        assert health.returncode == 0
        assert (job["status"], job["engine"]) == ("succeeded", "embedded")
        assert job["outputs"][0]["frames"] == 5
    finally:
        for one in (
            psutil.Process(running.pid).children(recursive=True)
            if (running.poll() is None)
            else ()
        ):
            one.kill()
        running.wait()


def until_ready(url, running, log):
    limit = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, OSError):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.2)


def clip(url):
    body = {"prompt": "a fox", "width": 256, "height": 256, "frames": 5, "steps": 2}
    request = urllib.request.Request(
        f"{url}/generate",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": "Bearer key",
            "Prefer": "wait=60",
        },
    )
    with urllib.request.urlopen(request, timeout=70) as answer:
        return json.load(answer)


def first_process(pid):
    """Return tini, which in an image is process 1."""
    return next(
        one
        for one in psutil.Process(pid).children(recursive=True)
        if one.name() == "tini"
    )
