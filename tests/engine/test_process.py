"""The engine as a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest


@contextmanager
def started(tmp_path, *options):
    """Start an engine and wait until it answers; yield it and its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "common.engine", "--data", str(tmp_path)]
    command += ["--port", str(port), "--speed", "0", *options]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not _answers(f"{url}/system_stats"):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process, url
        finally:
            process.kill()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


def post(url, body):
    """POST JSON and return the answer's."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(tmp_path, workflow, number):
    """A signal drops what runs and ends the process with status 0."""
    with started(tmp_path, "--faults") as (process, url):
        faults = {"hang_at_node": "KSampler", "ignore_interrupt": True}
        post(f"{url}/embedded/faults", faults)
        post(f"{url}/prompt", {"prompt": workflow()})
        process.send_signal(number)

        assert process.wait(timeout=30) == 0


def test_a_crash(tmp_path, workflow):
    """A node kills the process, as the kernel does when memory is out."""
    with started(tmp_path, "--faults") as (process, url):
        post(f"{url}/embedded/faults", {"crash_at_node": "VAEDecode"})
        post(f"{url}/prompt", {"prompt": workflow()})

        assert process.wait(timeout=60) == 137


def test_a_port_that_is_taken(tmp_path):
    """A port in use is one clear line and status 1."""
    with started(tmp_path) as (_, url):
        port = url.rpartition(":")[2]
        command = [sys.executable, "-m", "common.engine", "--data", str(tmp_path)]
        second = subprocess.run(
            [*command, "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "left out"])
def test_metadata(tmp_path, workflow, kept):
    """The graph is in the file, unless the engine was told to leave it out."""
    options = () if kept else ("--disable-metadata",)
    with started(tmp_path, *options) as (_, url):
        post(f"{url}/prompt", {"prompt": workflow(), "prompt_id": "p"})
        deadline = time.monotonic() + 60
        while not _entry(url):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    [path] = (tmp_path / "output").rglob("*.mp4")
    assert (b"wan2.2_ti2v_5B_fp16.safetensors" in path.read_bytes()) is kept


def _entry(url):
    with urllib.request.urlopen(f"{url}/history/p", timeout=30) as answer:
        return json.loads(answer.read())
