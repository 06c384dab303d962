import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.models.errors import Locked, Stopped
from common.models.layer import Layer
from common.models.leases import (
    LeaseSettings,
    collecting,
    holder,
    lease,
    live,
    reading,
)

REPOSITORY = Path(__file__).parents[2]
QUICK = LeaseSettings(duration_s=1.5, heartbeat_s=0.3, poll_s=0.02)
KINDS = ["flock", "lease"]

HOLD = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from common.models.layer import Layer
from common.models.leases import LeaseSettings, lease
layer = Layer.open(Path(sys.argv[1]))
able = replace(layer.capabilities, flock=sys.argv[2] == "flock")
layer = replace(layer, capabilities=able)
quick = LeaseSettings(duration_s=1.5, heartbeat_s=0.3, poll_s=0.02, timeout_s=20)
with lease(layer, "key", stop=threading.Event(), settings=quick) as held:
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=KINDS)
def layer(tmp_path, request):
    """A volume whose locks hold, and one whose locks lie."""
    made = Layer.open(tmp_path)
    flock = request.param == "flock"
    if flock and not made.capabilities.flock:
        pytest.skip("the tests' folder is on a volume without locks")
    return replace(made, capabilities=replace(made.capabilities, flock=flock))


@pytest.fixture
def other(layer):
    """Hold the lease in another process; `other("unshare", "-u")` wraps it."""
    started = []

    def start(*wrap):
        kind = "flock" if layer.capabilities.flock else "lease"
        command = [*wrap, sys.executable, "-c", HOLD, str(layer.root), kind]
        pipe = subprocess.PIPE
        one = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def held(process):
    assert process.stdout.readline() == b"held\n"
    return process


def mine(layer, **changes):
    return lease(
        layer, "key", stop=threading.Event(), settings=replace(QUICK, **changes)
    )


def test_one_thread_at_a_time(layer):
    """Threads of one process wait for each other."""
    inside, most = [], []

    def work():
        with mine(layer):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert most == [1, 1, 1, 1]


def test_another_process_waits_and_knows_for_whom(layer, other):
    """Also where flock lies: then the lease keeps the second process out."""
    process = held(other())
    told = []
    waiting = lease(
        layer,
        "key",
        stop=threading.Event(),
        waiting=told.append,
        settings=replace(QUICK, timeout_s=0.3),
    )
    with pytest.raises(Locked, match=f"process {process.pid} on "), waiting:
        pass

    assert told[0].pid == process.pid
    assert live(layer, QUICK) == {"key"}


def test_the_next_has_it_when_the_first_ends(layer, other):
    """A lease that is given back is free at once."""
    process = held(other())
    process.communicate(b"\n", timeout=20)
    with mine(layer, timeout_s=1):
        assert holder(layer, "key").pid == os.getpid()

    assert holder(layer, "key") is None
    assert live(layer, QUICK) == frozenset()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_holder_is_followed_at_once(layer, other):
    """On the same host a dead process is known to be dead."""
    process = held(other())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with mine(layer, timeout_s=5, duration_s=1.5):
        pass


@pytest.mark.root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_a_pod_that_came_back_under_another_name_is_followed(layer, other):
    """A holder killed on another host is followed when its lease has run out."""
    if subprocess.run(["unshare", "-u", "true"], capture_output=True).returncode:
        pytest.skip("may not have another host name")
    renamed = ("unshare", "-u", "sh", "-c", 'hostname pod-2 && exec "$0" "$@"')
    process = held(other(*renamed))
    assert holder(layer, "key").host == "pod-2"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with mine(layer, timeout_s=10):
        assert holder(layer, "key").host != "pod-2"


def test_progress_is_for_who_waits(layer):
    """How far the holder is, once a second at most."""
    with mine(layer) as first:
        first._next = 0.0
        first.progress(10, 100)
        first.progress(20, 100)

        assert holder(layer, "key").done == 10
        assert str(holder(layer, "key")).endswith("(10 %)")


def test_a_holder_that_gets_nowhere_is_given_up(layer, other):
    """A living process that does nothing does not stop others for ever."""
    held(other())
    with pytest.raises(Locked), mine(layer, patience_s=1.3):
        pass


def test_waiting_can_be_stopped(layer, other):
    """Somebody asked us to end: that is not the holder's fault."""
    held(other())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped), lease(layer, "key", stop=stop, settings=QUICK):
        pass


@pytest.mark.parametrize("layer", ["lease"], indirect=True)
def test_a_lost_lease_stops_its_holder(layer):
    """A zombie that was taken over is told to stop before it writes on."""
    stop = threading.Event()
    with lease(layer, "key", stop=stop, settings=QUICK) as zombie:
        (layer.root / ".locks" / "key.lease").unlink()

        assert stop.wait(10)
        assert zombie.lost == "marker-missing"


def test_nobody_cleans_while_somebody_reads(layer):
    """gc waits for readers; readers go together."""
    late = pytest.raises(Locked)
    with reading(layer), reading(layer), late, collecting(layer, timeout_s=0.3):
        pass
    with collecting(layer, timeout_s=5), late, reading(layer, timeout_s=0.3):
        pass


def test_a_stop_is_heard_while_somebody_cleans(layer):
    """Who waits for gc need not wait for it to end."""
    stop = threading.Event()
    stop.set()
    with (
        collecting(layer, timeout_s=5),
        pytest.raises(Stopped),
        reading(layer, timeout_s=5, stop=stop),
    ):
        pass


def test_without_hard_links_one_cleans_at_a_time(layer):
    """The shared lock needs hard links; without it gcs keep each other out."""
    able = replace(layer.capabilities, hardlink=False)
    layer = replace(layer, capabilities=able)
    late = pytest.raises(Locked)
    with reading(layer), collecting(layer), late, collecting(layer, timeout_s=0.3):
        pass


def test_a_record_that_cannot_be_read_is_nobody(layer):
    """Half a record, or another tool's, names nobody."""
    layer.lock("key.json").write_text(json.dumps({"pid": "x"}))

    assert holder(layer, "key") is None
