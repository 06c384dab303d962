"""
The other way to bring a file: aria2c, for addresses that last.

It writes `data` beside its own control file. Neither its record nor our journal proves
anything to the other: aria2c begins only where no journal has a block, and `fetch`
throws away what aria2c left unfinished. The hash follows the pieces that aria2c says
are there, and is ours: aria2c's own is several times slower.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.models.errors import NoSpace, SourcesFailed, Stopped
from common.models.fetch import Fetched, Goal, WrongBytes
from common.models.sources.address import Address
from common.models.staging import ARIA2, DATA, JOURNAL, claimed_bytes, pread
from common.models.watermark import Hasher, Watermark

#: What it is started with. `--auto-save-interval=1` is what makes its resume worth
#: something after a kill; at its default of 60 all was lost.
OPTIONS = {
    "continue": "true",
    "auto-save-interval": "1",
    "file-allocation": "none",
    "allow-overwrite": "false",
    "auto-file-renaming": "false",
    "max-connection-per-server": "16",
    "split": "16",
    "min-split-size": "4M",
    "lowest-speed-limit": "1K",
    "disk-cache": "0",
    "max-tries": "5",
    "retry-wait": "1",
}

#: aria2c's exit status for a full disk. Source: EXIT STATUS in aria2c(1).
DISK_FULL = "9"

_START_S = 10.0


def suits(address: object, staging: Path) -> bool:
    """
    Say if aria2c may bring a file from here into this staging.

    It keeps the first redirect for all pieces and sends its headers along, so it gets
    neither addresses that expire nor any that need a header.
    """
    return (
        isinstance(address, Address)
        and address.expires_at is None
        and not address.headers
        and address.url.startswith(("http://", "https://"))
        and claimed_bytes(staging) == 0
        and shutil.which("aria2c") is not None
        and find_spec("aria2p") is not None
    )


def fetch_by_aria2(
    goal: Goal,
    address: Address,
    label: str,
    staging: Path,
    *,
    notice: Callable[[int, int | None], None],
    stop: threading.Event,
) -> Fetched:
    """
    Bring a file of known size and hash into `staging / "data"`, as `fetch` does.

    Raises:
        WrongBytes: all came and the sha256 is another.
        NoSpace: the volume is full.
        SourcesFailed: aria2c gave up; what came is kept for its next time.
        Stopped: `stop` was set.
    """
    assert goal.size is not None
    assert goal.sha256 is not None
    staging.mkdir(parents=True, exist_ok=True)
    (staging / JOURNAL).unlink(missing_ok=True)
    if not (staging / ARIA2).exists():
        # aria2c takes a file without a control file for the beginning of the whole.
        (staging / DATA).unlink(missing_ok=True)
    (staging / DATA).touch()
    notice(0, goal.size)
    with (
        _running(staging) as client,
        (staging / DATA).open("rb", buffering=0) as file,
    ):
        mark = Watermark()

        def read(view: memoryview, offset: int) -> int:
            return pread(file.fileno(), view, offset)

        hasher = Hasher(mark, goal.size, read)
        hasher.start()
        try:
            _follow(client, goal, address, staging, mark, notice, stop)
            while hasher.is_alive():
                if stop.is_set():
                    raise Stopped(f"{goal.name}: stopped; what came is kept")
                hasher.join(0.05)
        finally:
            mark.stop()
            hasher.join()
    (staging / ARIA2).unlink(missing_ok=True)
    if hasher.sha256 != goal.sha256:
        found = hasher.sha256 or "of a shorter file"
        raise WrongBytes(goal, found, {label: [(0, goal.size)]})
    notice(goal.size, goal.size)
    path = staging / DATA
    given = {label: goal.size}
    return Fetched(path, goal.size, goal.sha256, (), given)


def _follow(
    client: Any,
    goal: Goal,
    address: Address,
    staging: Path,
    mark: Watermark,
    notice: Callable[[int, int | None], None],
    stop: threading.Event,
) -> None:
    """Have aria2c bring the file; move the mark as its pieces come."""
    assert goal.size is not None
    gid = client.add_uri([address.url], {"dir": str(staging), "out": DATA})
    keys = ["status", "completedLength", "totalLength", "bitfield", "pieceLength"]
    keys += ["errorCode"]
    while True:
        state = client.tell_status(gid, keys)
        total = int(state["totalLength"])
        if total not in (0, goal.size):
            why = f"{goal.name}: its file has {total} bytes, not {goal.size}"
            raise SourcesFailed(why)
        notice(int(state["completedLength"]), goal.size)
        if state["status"] == "complete":
            mark.move(goal.size)
            return
        if state["status"] in ("error", "removed"):
            code = state.get("errorCode", "?")
            if code == DISK_FULL:
                raise NoSpace(f"no space left for {staging}")
            # Its error text may hold the address, which may hold a secret.
            raise SourcesFailed(f"{goal.name}: aria2c gave up with its error {code}")
        pieces = leading_ones(state.get("bitfield", ""))
        mark.move(min(goal.size, pieces * int(state["pieceLength"])))
        if stop.wait(0.1):
            raise Stopped(f"{goal.name}: stopped; what came is kept")


def leading_ones(bitfield: str) -> int:
    """
    Return how many pieces from the first are there, of aria2's bitfield in hex.

    >>> leading_ones("ff80"), leading_ones("7f"), leading_ones("")
    (9, 0, 0)
    """
    bits = "".join(f"{int(digit, 16):04b}" for digit in bitfield)
    return len(bits) - len(bits.lstrip("1"))


@contextlib.contextmanager
def _running(staging: Path) -> Iterator[Any]:
    """Run aria2c and yield its client; SIGTERM lets it save its control file."""
    import aria2p

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="wan-aria2-") as folder:
        # A file, as every user of the machine can read a command line.
        settings = Path(folder) / "aria2.conf"
        lines = {
            "enable-rpc": "true",
            "rpc-listen-port": str(port),
            "rpc-secret": secret,
            "stop-with-process": str(os.getpid()),
            "quiet": "true",
            **OPTIONS,
        }
        settings.touch(mode=0o600)
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        settings.write_text(text, encoding="ascii")
        child = subprocess.Popen(
            ["aria2c", f"--conf-path={settings}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = aria2p.Client("http://127.0.0.1", port, secret, timeout=10)
            _wait_for(client, child)
            yield client
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_for(client: Any, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # what requests raises are OSErrors
            client.get_version()
            return
        time.sleep(0.02)
    raise SourcesFailed("aria2c does not start")
