import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import common
from common.cli.screen import Stop, guarded
from common.service import folders
from tests.cli.test_follow import Terminal

SERVICE = "fastwan2.2-5b-network-storage"
FULL = Path("/dev/full")


def test_help_needs_nothing_heavy():
    """`wan --help` starts at once, because what a command needs is imported in it."""
    heavy = "fastapi sqlalchemy pydantic av aiohttp requests rich.progress asyncio"
    code = (
        "import sys; sys.argv = ['wan', '--help']\n"
        "from common.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"sys.exit(' '.join(m for m in '{heavy}'.split() if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.strip() == ""
    assert "Exit codes: 0 done" in done.stdout


def test_version(wan):
    """The version is data."""
    assert wan("--version").out == f"wan {common.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("frob",)], ids=["nothing", "unknown"])
def test_what_is_no_command(wan, arguments):
    """No command and an unknown one end with code 2."""
    assert wan(*arguments).code == 2


def test_services_are_listed(wan):
    """A table for people, JSON lines for programs."""
    (first, *_) = wan("services", "--json").out.splitlines()
    row = json.loads(first)

    assert row["name"] == SERVICE
    assert row["takes"] == ["prompt", "image?"]
    assert "FastWan 2.2 5B" in wan("services").out


def test_names_of_services_are_whole(wan, monkeypatch):
    """In a terminal of 80 columns a name is still what one can type."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")

    wan("services")

    assert all(folder.name in screen.getvalue() for folder in folders())


# ---- the end of a command


def test_an_interrupt_is_no_traceback(capsys):
    """Ctrl-C anywhere else ends with code 130."""

    def run():
        raise KeyboardInterrupt

    assert guarded(run) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_stop_is_a_few_lines(capsys):
    """Further lines of a message are set under the first, and the hint comes last."""

    def run():
        raise Stop("one\ntwo", "do this", 2)

    assert guarded(run) == 2
    said = capsys.readouterr().err
    assert said == "error: one\n       two\nhint:  do this\n"


def test_a_closed_pipe_is_no_error():
    """`wan services | head -0` ends quietly."""
    reader, writer = socket.socketpair()
    reader.close()
    with writer:
        done = subprocess.run(
            [sys.executable, "-m", "common.cli.main", "services"],
            stdout=writer.fileno(),
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.stderr == ""


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("services",), ("--version",)], ids=str)
def test_a_full_disk_is_said(arguments):
    """`wan services > file` where the disk is full is a line, and no traceback."""
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "common.cli.main", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("error: cannot write to stdout: ")
    assert second.startswith("hint:  ")


def test_commands_are_said_as_they_are_typed(capsys, monkeypatch):
    """Where start.py runs us, hints name start.py: `wan` is not on the PATH."""

    def run():
        raise Stop("nothing there", "'wan models ensure' or `wan doctor`, said wan")

    monkeypatch.setenv("WAN_COMMAND", "python start.py")
    guarded(run)

    said = capsys.readouterr().err
    assert "'python start.py models ensure' or `python start.py doctor`" in said
    assert said.endswith(", said wan\n")


def test_no_thread_is_left(service):
    """Nothing that a command started is alive after it, but the service itself."""
    names = {one.name for one in threading.enumerate()}

    assert "service" not in names
