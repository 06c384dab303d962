import json
import socket
import subprocess
import sys
import threading

import pytest

import common
from common.cli.screen import Stop, guarded

SERVICE = "fastwan2.2-5b-network-storage"


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


def test_no_thread_is_left(service):
    """Nothing that a command started is alive after it, but the service itself."""
    names = {one.name for one in threading.enumerate()}

    assert "service" not in names
