"""`wan container` as process 1 of its own namespace, over a root that is read-only."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from common.ports import next_free

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]

ROOT = Path(__file__).parent.parent.parent
SERVICE = "fastwan2.2-5b-network-storage"
LIMIT_S = 60
# Nothing can be written but $HOME, where the service's data is.
READ_ONLY = """
mount --make-rprivate / &&
mount --bind "$HOME" "$HOME" &&
mount -o remount,bind,ro / &&
! touch /written 2>/dev/null &&
cd "$HOME" && exec "$@"
"""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class Container:
    """The command in its namespaces, and its API."""

    def __init__(self, home):
        self.port = next_free("127.0.0.1", 28500)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(*UNSHARE, "sh", "-c", READ_ONLY, "sh"),
                    *(sys.executable, "-m", "common.cli.main", "container", SERVICE),
                ],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "HOME": str(home),
                    "TMPDIR": str(home),
                    "WAN_DATA": str(home / "data"),
                    "WAN_PORT": str(self.port),
                    "WAN_ENGINE": "embedded",
                    "WAN_ENGINE_PORT": str(next_free("127.0.0.1", 28600)),
                    "WAN_ENGINE_SPEED": "20",
                },
                stdout=log,
                stderr=log,
            )

    def ask(self, path, body=None):
        """Return (status, JSON) of a request."""
        data = None if body is None else json.dumps(body).encode()
        heads = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, heads)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def until(self, condition):
        """Wait for something that is asked of the API."""
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.1)

    def ready(self):
        """Tell whether a job could run now."""
        return self.ask("/ready")[0] == 200

    def first(self):
        """Return process 1, as the machine sees it."""
        return psutil.Process(self.process.pid).children()[0]

    def service(self):
        """Return the service's process."""
        return next(p for p in self.first().children() if "serve" in p.cmdline())


@pytest.fixture
def container(tmp_path):
    """Start one, and leave nothing of it."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    if subprocess.run([*UNSHARE, "true"], check=False).returncode:
        pytest.skip("namespaces need root")
    running = Container(tmp_path)
    try:
        yield running
    finally:
        running.process.kill()  # unshare takes its namespace along
        running.process.wait()


def test_life(container):
    """It serves, outlives the service's death, and drains a running job on SIGTERM."""
    container.until(container.ready)
    container.service().kill()
    container.until(lambda: "again in 1 s" in container.log.read_text())
    container.until(container.ready)

    status, job = container.ask(
        "/generate", {"prompt": "a fox", "width": 256, "height": 256, "frames": 81}
    )
    assert status == 202, job
    path = f"/jobs/{job['id']}"
    container.until(lambda: container.ask(path)[1]["status"] == "running")
    container.first().send_signal(signal.SIGTERM)

    assert container.process.wait(LIMIT_S) == 0, container.log.read_text()
    assert f"{job['id']} succeeded" in container.log.read_text()
    assert not psutil.pid_exists(container.process.pid)
