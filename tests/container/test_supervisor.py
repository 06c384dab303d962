"""The supervisor over real processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a container is Linux")

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 30
# Says that it runs, and what it was told.
PATIENT = (
    "trap 'echo {0} ended >>said; exit 0' TERM; echo {0} up >>said;"
    " while :; do sleep 0.02; done"
)


class Container:
    """A supervisor in a process of its own."""

    def __init__(self, folder, *programs, unshare=(), **options):
        self.folder = folder
        self.said_file = folder / "said"
        plan = {
            "programs": [
                {"name": name, "kind": kind, "command": ["sh", "-c", script]}
                for name, kind, script in programs
            ],
            **options,
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        self.process = subprocess.Popen(
            [
                *unshare,
                sys.executable,
                str(Path(__file__).with_name("driver.py")),
                str(folder / "plan.json"),
            ],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def said(self):
        """Return what programs wrote."""
        return (
            self.said_file.read_text().splitlines() if self.said_file.exists() else []
        )

    def until(self, line, count=1):
        """Wait until programs wrote a line so often."""
        limit = time.monotonic() + LIMIT_S
        while self.said().count(line) < count:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < limit, self.said()
            time.sleep(0.01)

    def ended(self):
        """Wait for the end; return the exit code and the log."""
        try:
            _, log = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, log = self.process.communicate()
            raise AssertionError(log) from None
        return self.process.returncode, log


@pytest.mark.parametrize(
    "code", [0, 2, 3], ids=["done", "wrong settings", "port taken"]
)
def test_final_end(tmp_path, code):
    """A service whose end another try would not change ends the container with it."""
    container = Container(
        tmp_path,
        ("service", "SERVICE", f"sleep 0.3; echo service >>said; exit {code}"),
        ("helper", "HELPER", PATIENT.format("helper")),
    )

    assert container.ended()[0] == code
    assert container.said() == ["helper up", "service", "helper ended"]


def test_crash_is_restarted(tmp_path):
    """A service that crashes is started again, later each time."""
    script = "echo up >>said; test $(wc -l <said) = 3 && exit 0; exit 7"
    code, log = Container(tmp_path, ("service", "SERVICE", script)).ended()

    assert code == 0
    assert "service ended (exit code 7), again in 0.01 s" in log
    assert "service ended (exit code 7), again in 0.02 s" in log


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 9", 9), ("kill -SEGV $$", 139)],
    ids=["exit code", "signal"],
)
def test_gives_up(tmp_path, script, code):
    """A service that only crashes ends the container, so that its platform hears."""
    plan = ("service", "SERVICE", f"echo up >>said; {script}")
    container = Container(tmp_path, plan, give_up=3)

    assert container.ended()[0] == code
    assert len(container.said()) == 3


def test_helpers_are_no_reason_to_end(tmp_path):
    """A helper that cannot even stand is tried on, while the service serves."""
    container = Container(
        tmp_path,
        ("service", "SERVICE", PATIENT.format("service")),
        ("helper", "HELPER", "echo tried >>said; exit 1"),
        ("task", "TASK", "echo task >>said; test $(grep -c task said) = 2"),
        give_up=2,
    )
    container.until("tried", 4)
    container.process.send_signal(signal.SIGTERM)

    assert container.ended()[0] == 0
    assert container.said().count("task") == 2


def test_drain(tmp_path):
    """On SIGTERM the service finishes its work while its helpers still carry it."""
    slow = PATIENT.replace("exit 0", "sleep 0.3; echo drained >>said; exit 0")
    container = Container(
        tmp_path,
        ("service", "SERVICE", slow.format("service")),
        ("helper", "HELPER", PATIENT.format("helper")),
    )
    container.until("service up")
    container.until("helper up")
    container.process.send_signal(signal.SIGTERM)

    assert container.ended()[0] == 0
    assert container.said()[2:] == ["service ended", "drained", "helper ended"]


def test_drain_has_an_end(tmp_path):
    """A service that does not end is killed, with all that it started."""
    deaf = "trap '' TERM; echo up >>said; sleep 60 & wait; sleep 60"
    container = Container(tmp_path, ("service", "SERVICE", deaf), grace_s=0.2)
    container.until("up")
    container.process.send_signal(signal.SIGTERM)

    code, log = container.ended()
    assert code == 137
    assert "did not end in time" in log


def test_nothing_begins_while_draining(tmp_path):
    """A helper that waits for its restart is not started for a container that ends."""
    slow = PATIENT.replace("exit 0", "sleep 0.5; exit 0")
    container = Container(
        tmp_path,
        ("service", "SERVICE", slow.format("service")),
        ("helper", "HELPER", "echo tried >>said; exit 1"),
        backoff_s=(0.4, 0.4),
    )
    container.until("service up")
    container.until("tried")
    container.process.send_signal(signal.SIGTERM)

    assert container.ended()[0] == 0
    assert container.said().count("tried") == 1


def test_nothing_is_left_behind(tmp_path):
    """What a program started and left ends with it."""
    script = "sleep 300 & echo $! >left; exit 0"
    Container(tmp_path, ("service", "SERVICE", script)).ended()
    left = int((tmp_path / "left").read_text())

    def lives():
        try:
            # A zombie is dead; whoever adopted it is slow to bury it.
            return psutil.Process(left).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    limit = time.monotonic() + LIMIT_S
    while lives():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_stop_during_backoff(tmp_path):
    """A stop while the service waits for its restart ends at once, and well."""
    container = Container(
        tmp_path, ("service", "SERVICE", "echo up >>said; exit 1"), backoff_s=(30, 30)
    )
    container.until("up")
    time.sleep(0.2)
    container.process.send_signal(signal.SIGTERM)

    assert container.ended()[0] == 0


def test_memory_kill_is_said(tmp_path):
    """A kill by the kernel for memory is told from any other, and says what helps."""
    kill = "test -e kills && exit 0; printf x >kills; kill -KILL $$"
    _, log = Container(tmp_path, ("service", "SERVICE", kill)).ended()

    assert "out of memory" in log


def test_plain_kill_is_not_called_memory(tmp_path):
    """SIGKILL alone says nothing of memory."""
    kill = "test -e was && exit 0; touch was; kill -KILL $$"
    code, log = Container(tmp_path, ("service", "SERVICE", kill)).ended()

    assert code == 0
    assert "service ended (SIGKILL)" in log
    assert "memory" not in log


def test_missing_command(tmp_path):
    """A program that is not installed is said by name."""
    (tmp_path / "plan.json").write_text("")
    container = Container(tmp_path, ("service", "SERVICE", "exit 0"), give_up=2)
    container.ended()
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["programs"][0]["command"] = ["no-such-program"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    again = subprocess.run(
        container.process.args,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )

    assert again.returncode == 127
    assert "cannot run no-such-program" in again.stderr


@pytest.mark.root
def test_first_process_buries_orphans(tmp_path):
    """As process 1, whoever is left behind by a program leaves no zombie."""
    orphans = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.5; "
    count = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l >zombies"
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    if subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("namespaces need root")
    container = Container(
        tmp_path, ("service", "SERVICE", orphans + count), unshare=unshare
    )
    code, log = container.ended()

    assert code == 0
    assert (tmp_path / "zombies").read_text().strip() == "0"
    assert log.count("buried an orphan") == 5
