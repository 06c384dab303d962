"""What the benchmarks share: processes and figures. Loopback only."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
SERVICE = "fastwan2.2-5b-network-storage"
TRIVIAL = {"prompt": "bench", "width": 256, "height": 256, "frames": 5, "steps": 1}


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command; what it says is kept in a file, for when it fails."""
    log = Path(tempfile.gettempdir()) / "wan-bench.log"
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )


@contextlib.contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of this repository's, and end it by its pid."""
    child = spawn(command, environment or {})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def engine(folder: Path, speed: float = 0) -> Iterator[str]:
    """Run an embedded engine and return its address."""
    port = free_port()
    command = [sys.executable, "-m", "common.engine", "--port", str(port)]
    with process([*command, "--data", str(folder), "--speed", str(speed)]):
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/system_stats")
        yield url


def serve_command(data: Path, port: int, engine_url: str) -> list[str]:
    """Return how to serve FastWan over an engine."""
    return [*_serve(data, port), "--comfyui-url", engine_url]


def _serve(data: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "common.cli.main", "serve", SERVICE]
    return [*command, "--data", str(data), "--port", str(port)]


@contextlib.contextmanager
def wrapper(
    data: Path, engine_url: str, ready: str = "/ready"
) -> Iterator[tuple[str, int]]:
    """Run a wrapper over an engine that runs; return its address and pid."""
    port = free_port()
    with _serving(serve_command(data, port, engine_url), {}) as pid:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + ready)
        yield url, pid


@contextlib.contextmanager
def wrapper_and_engine(data: Path) -> Iterator[tuple[str, str]]:
    """Run a wrapper with an engine of its own; return their addresses."""
    port, engine_port = free_port(), free_port()
    command = [*_serve(data, port), "--engine", "embedded", "--speed", "0"]
    with _serving(command, {"WAN_ENGINE_PORT": str(engine_port)}):
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/ready")
        yield url, f"http://127.0.0.1:{engine_port}"


@contextlib.contextmanager
def _serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[int]:
    quiet = {"LOG_LEVEL": "warning", "WAN_QUEUE_LIMIT": "100000"}
    with process(command, {**quiet, **environment}) as child:
        yield child.pid


def wait_for(url: str, limit_s: float = 60) -> float:
    """Ask until it answers 200; return the seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as a:
            if a.status == 200:
                return time.monotonic() - began
        time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer in {limit_s} s")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Lend a folder."""
    with tempfile.TemporaryDirectory(prefix="wan-bench-") as name:
        yield Path(name)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def ms(seconds: float) -> float:
    """Return milliseconds, rounded for a table."""
    return round(seconds * 1000, 2)


def report(name: str, figures: dict[str, object], ok: bool) -> None:
    """Print one JSON line; exit with 1 on a miss."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0, 0, 0)
    machine = {
        "cores": psutil.cpu_count(),
        "load": round(load[0], 1),
        "python": platform.python_version(),
    }
    print(json.dumps({"bench": name, "ok": ok, **figures, "machine": machine}))
    if not ok:
        sys.exit(1)
