import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import common
from common.cli.main import app
from common.cli.screen import guarded
from tests.models.shelf import shelf
from tests.threaded import served


@dataclass
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No variable and no folder of the machine that runs the tests counts."""
    for name in os.environ:
        if name.startswith(("WAN_", "COMFY")) or name in ("LOG_LEVEL", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(common.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wan(capsys):
    """Run `wan` with arguments in this process."""

    def run(*arguments):
        try:
            words = [str(one) for one in arguments]
            code = guarded(lambda: app(words, prog_name="wan"))
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Said(code or 0, out, err)

    return run


@pytest.fixture
def weights(tmp_path):
    """A publisher of one file that the manifest knows, and of one unverified."""
    with shelf(tmp_path) as published:
        published.put("a.safetensors", 8192)
        published.put("b.safetensors", 4096, pinned=False)
        yield published


@pytest.fixture
def models(wan, weights, monkeypatch):
    """Run `wan models` over an empty root of that publisher's manifest."""
    monkeypatch.setenv("WAN_MODELS", str(weights.folder / "root"))
    monkeypatch.setenv("WAN_MODELS_MARGIN_GB", "0")

    def run(*arguments):
        monkeypatch.setenv("WAN_MODELS_MANIFEST", str(weights.write()))
        return wan("models", *arguments)

    return run


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that runs, for the tests of a module."""
    with served(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def command():
    """Start `wan` as a process; each is ended with the test."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "common.cli.main", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def any_port(monkeypatch):
    """Let engines and services take any port."""
    monkeypatch.setenv("WAN_ENGINE_PORT", "0")
    monkeypatch.setenv("WAN_PORT", "0")
