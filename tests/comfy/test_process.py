"""A local engine is kept up: real child processes, really killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common.comfy.commands import embedded_command
from common.comfy.process import MAX_LOG_BYTES, EngineDidNotStart, LocalEngine

posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")

# Answers every GET; starts as ComfyUI does, with a port. Modes: "stubborn" ignores
# SIGTERM, "family" has a child of its own.
ENGINE = """
import http.server, signal, subprocess, sys
port, mode = int(sys.argv[1]), sys.argv[2]
print("starting", mode, flush=True)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "family":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def port():
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
async def engine(tmp_path, port):
    """Return a function that makes an engine; each is closed at the end."""
    engines = []

    def made(code=ENGINE, mode="plain", **more):
        command = [sys.executable, "-c", code, str(port), mode]
        more = {"backoff_s": (0.05, 0.2), "start_s": 20} | more
        engines.append(
            LocalEngine(
                command,
                url=f"http://127.0.0.1:{port}",
                log_file=tmp_path / "engine.log",
                **more,
            )
        )
        return engines[-1]

    yield made
    for each in engines:
        await each.aclose()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid):
    return (
        not psutil.pid_exists(pid)
        or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )


async def test_start_and_close(engine, tmp_path):
    """It answers once started, writes its log, and is gone once closed."""
    local = engine()

    await local.start()
    pid = local.pid
    assert local.up
    await local.aclose()

    assert gone(pid)
    assert not local.up
    assert list(local.deaths) == []
    assert "starting plain" in (tmp_path / "engine.log").read_text()
    assert not (tmp_path / "engine.pid").exists()


@posix
async def test_killed(engine):
    """A killed engine is noted with its signal, and comes back."""
    local = engine()
    await local.start()
    first = local.pid

    os.kill(first, signal.SIGKILL)
    await until(lambda: local.deaths)
    await until(lambda: local.up)

    [death] = local.deaths
    assert (death.returncode, death.oom_killed) == (-9, False)
    assert local.pid not in (None, first)
    assert local.trouble is None


@posix
async def test_killed_for_memory(engine):
    """A SIGKILL while the kernel's counter rises is put down to memory."""
    kills = iter(range(100))
    local = engine(count_kills=lambda: next(kills))
    await local.start()

    os.kill(local.pid, signal.SIGKILL)
    await until(lambda: local.deaths)

    assert local.deaths[0].oom_killed


async def test_restart(engine):
    """A wanted restart is no death."""
    local = engine()
    await local.start()
    first = local.pid

    await local.restart()

    assert local.up
    assert local.pid != first
    assert gone(first)
    assert list(local.deaths) == []


@posix
async def test_stubborn(engine):
    """An engine that ignores SIGTERM is killed."""
    local = engine(mode="stubborn", term_s=0.2)
    await local.start()
    pid = local.pid

    await local.aclose()

    assert gone(pid)


@posix
async def test_stopped(engine):
    """An engine that hangs altogether is killed and replaced."""
    local = engine(term_s=0.2)
    await local.start()
    pid = local.pid
    os.kill(pid, signal.SIGSTOP)

    await local.restart()

    assert gone(pid)
    assert local.up


@posix
async def test_family(engine, tmp_path):
    """Processes that the engine started end with it, also when it is killed."""
    local = engine(mode="family")
    await local.start()
    child = int((tmp_path / "engine.log").read_text().split()[-1])

    os.kill(local.pid, signal.SIGKILL)
    await until(lambda: gone(child))


async def test_crash_loop(engine, tmp_path, port):
    """It is started again and again, later each time, and every death is remembered."""
    (tmp_path / "fine").touch()
    code = ENGINE.replace(
        "import http", "import os; os.path.exists('fine') or exit(3)\nimport http", 1
    )
    local = engine(code, cwd=tmp_path)
    await local.start()

    (tmp_path / "fine").unlink()
    if local.pid:
        psutil.Process(local.pid).kill()
    await until(lambda: len(local.deaths) >= 4)
    at = [death.at for death in local.deaths]
    codes = [death.returncode for death in local.deaths]
    trouble = local.trouble
    (tmp_path / "fine").touch()
    await until(lambda: local.up)

    assert codes[1:4] == [3, 3, 3]
    assert at[3] - at[2] >= 0.2  # after waits of 0.05 and 0.1
    assert "ended with 3" in trouble


async def test_never_starts(engine, tmp_path):
    """An engine that ends at once is reported with its last words, without folders."""
    local = engine("raise SystemExit('no module /opt/secret/comfy.py')")

    with pytest.raises(EngineDidNotStart) as caught:
        await local.start()

    assert caught.value.returncode == 1
    assert "no module comfy.py" in str(caught.value)
    assert local.pid is None


async def test_never_answers(engine):
    """An engine that says nothing in time is ended and reported."""
    local = engine(
        "import time; print('loading', flush=True); time.sleep(60)", start_s=1
    )

    with pytest.raises(EngineDidNotStart, match="did not answer within 1 s: loading"):
        await local.start()

    assert local.pid is None


async def test_no_such_command(tmp_path):
    """A command that does not exist is named, without its folder."""
    local = LocalEngine(
        ["/nowhere/python-x"], url="http://127.0.0.1:1", log_file=tmp_path / "e.log"
    )

    with pytest.raises(EngineDidNotStart, match="there is no python-x to run"):
        await local.start()


async def test_taken_port(engine):
    """Another program on the port is not taken for our engine."""
    await engine().start()
    second = engine()
    second._pid_file = second._pid_file.with_name("other.pid")

    with pytest.raises(EngineDidNotStart, match="something else answers"):
        await second.start()


async def test_log_is_bounded(engine, tmp_path):
    """A large log is set aside at the next start, and an older one replaced."""
    log = tmp_path / "engine.log"
    for _ in range(2):
        with log.open("wb") as file:
            file.truncate(MAX_LOG_BYTES + 1)
        local = engine()
        await local.start()
        await local.aclose()

    assert log.stat().st_size < 1000
    assert (tmp_path / "engine.old.log").stat().st_size == MAX_LOG_BYTES + 1


WRAPPER = """
import asyncio, sys
from pathlib import Path
from common.comfy.process import LocalEngine
async def main(port, log, dies, code):
    local = LocalEngine([sys.executable, "-c", code, port, "plain"],
        url=f"http://127.0.0.1:{port}", log_file=Path(log), die_with_parent=dies == "1")
    await local.start()
    print(local.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main(*sys.argv[1:]))
"""


async def killed_wrapper(port, log, *, dies):
    """Run a wrapper, kill -9 it once its engine stands, and return the engine's pid."""
    wrapper = subprocess.Popen(
        [sys.executable, "-c", WRAPPER, str(port), str(log), str(int(dies)), ENGINE],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with wrapper:
        pid = int(await asyncio.to_thread(wrapper.stdout.readline))
        wrapper.kill()
    return pid


@linux
async def test_dies_with_parent(port, tmp_path):
    """No engine is left over when its wrapper is killed."""
    pid = await killed_wrapper(port, tmp_path / "engine.log", dies=True)

    await until(lambda: gone(pid))


@posix
async def test_adopted(engine, port, tmp_path):
    """An engine that may outlive its wrapper is taken over by the next."""
    pid = await killed_wrapper(port, tmp_path / "engine.log", dies=False)
    assert not gone(pid)
    local = engine(die_with_parent=False)

    await local.start()
    assert local.pid == pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: local.deaths and local.up)

    assert local.pid != pid
    await local.aclose()


@posix
async def test_orphan_is_ended(engine, port, tmp_path):
    """An engine that should have died with its wrapper is replaced, not adopted."""
    pid = await killed_wrapper(port, tmp_path / "engine.log", dies=False)
    local = engine()

    await local.start()

    assert gone(pid)
    assert local.pid != pid


async def test_pid_of_another(engine, tmp_path):
    """A pid that is now somebody else's is left alone."""
    (tmp_path / "engine.pid").write_text(f"{os.getpid()} 1.0")
    local = engine()

    await local.start()

    assert local.pid != os.getpid()


async def test_embedded_engine(tmp_path, port):
    """The embedded engine starts by its command, and answers."""
    local = LocalEngine(
        embedded_command(port, tmp_path / "data", 0),
        url=f"http://127.0.0.1:{port}",
        log_file=tmp_path / "engine.log",
    )
    await local.start()
    up = local.up
    await local.aclose()

    assert up
