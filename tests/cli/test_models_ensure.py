import json
import os
import pty
import re
import select
import signal
import threading
import time

import pytest

from common.cli.models import show
from common.models.errors import (
    AuthNeeded,
    BadManifest,
    Corrupt,
    Locked,
    Missing,
    NoSpace,
    ReadOnly,
    SourcesFailed,
    Stopped,
)
from common.models.meter import Meter, Notice, Step
from tests.models.shelf import shelf
from tests.models.tensors import tensors
from tests.range_server import Fault

SIZE = len(tensors(0, 8192))


@pytest.fixture
def weights(tmp_path):
    """A publisher of one file."""
    with shelf(tmp_path) as published:
        published.put("a.safetensors", 8192)
        yield published


def test_ensure_brings_and_then_has_nothing_to_do(models, weights):
    """The second time one line is said, and no source is asked."""
    first = models("ensure", "m@1")
    assert first.code == 0
    assert "fetched" in first.err
    asked = len(weights.server.asked)

    second = models("ensure", "m@1")

    assert second.err == "ready: 1 file, 8.4 kB, nothing to fetch\n"
    assert (second.code, second.out) == (0, "")
    assert len(weights.server.asked) == asked


def test_ensure_without_a_name_is_wrong_use(models):
    """Nobody fetches 150 GB by accident."""
    said = models("ensure")
    assert said.code == 2
    assert "which weights?" in said.err


@pytest.mark.parametrize("option", ["--only", "--file"])
def test_one_file(models, weights, option):
    """A single file can be asked for, by either name of the option."""
    weights.put("b.safetensors")

    assert models("ensure", option, "b.safetensors").code == 0

    there = sorted(p.name for p in (weights.folder / "root/models").rglob("*.s*"))
    assert there == ["b.safetensors"]


def test_json_is_one_object_and_progress_is_lines(models, weights):
    """stdout is one object, and each line of stderr is JSON, too."""
    said = models("ensure", "--all", "--json")

    found = json.loads(said.out)
    assert found["ready"] is True
    [file] = found["files"]
    assert file["path"] == str(weights.folder / "root/models/vae/a.safetensors")
    assert file["sources"] == {f"{weights.server.url}/a.safetensors": SIZE}
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert lines[-1]["step"] == "ready"
    assert lines[-1]["all"]["done_bytes"] == lines[-1]["all"]["total_bytes"] == SIZE


def test_who_has_no_source_left_is_6(models, weights):
    """Each file's failure is said; the others come."""
    weights.put("b.safetensors")
    weights.server.fault = lambda one: Fault(404) if "a.saf" in one.path else None

    said = models("ensure", "--all", "--json")

    assert said.code == 6
    found = json.loads(said.out)
    assert [one["error"] and one["error"]["code"] for one in found["files"]] == [
        "sources_failed",
        None,
    ]
    assert "error: " in said.err


def test_a_source_that_wants_a_token_is_7(models, weights):
    """The hint says what to do."""
    weights.server.fault = lambda one: Fault(401)

    said = models("ensure", "--all")

    assert said.code == 7
    assert "hint: " in said.err


def test_a_full_volume_is_5_before_anything_is_fetched(models, weights, monkeypatch):
    """The plan is refused as a whole."""
    monkeypatch.setenv("WAN_MODELS_MARGIN_GB", "1e9")

    said = models("ensure", "--all", "--json")

    assert said.code == 5
    assert json.loads(said.out)["error"]["code"] == "no_space"
    assert weights.server.asked == []


def test_bytes_of_another_file_are_4(models, weights):
    """What the manifest does not say is not given its name."""
    (weights.server.folder / "a.safetensors").write_bytes(bytes(len(tensors(0, 8192))))

    said = models("ensure", "--all")

    assert said.code == 4
    assert not (weights.folder / "root/models/vae/a.safetensors").exists()


def test_the_codes_are_those_of_the_errors():
    """The help names each class's own code."""
    from common.cli.models.asked import EXIT_CODES

    classes = (
        BadManifest,
        Missing,
        Corrupt,
        NoSpace,
        SourcesFailed,
        AuthNeeded,
        Locked,
        ReadOnly,
        Stopped,
    )
    for error in classes:
        assert re.search(rf"[ ,]{error.exit_code} \w", EXIT_CODES), error


def test_repair_fetches_what_is_wrong(models, weights):
    """A flipped byte is found and replaced; what is right stays."""
    models("ensure", "--all")
    path = weights.folder / "root/models/vae/a.safetensors"
    good = path.read_bytes()
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    said = models("repair")

    assert said.code == 0
    assert path.read_bytes() == good
    assert models("verify", "--deep").code == 0


def test_repair_with_nothing_there_fetches_nothing(models, weights):
    """Only what is named and absent is brought."""
    assert models("repair").code == 0
    assert weights.server.asked == []


def test_bake_makes_the_same_bytes_twice(models, weights, monkeypatch):
    """Two builds of the same weights cannot be told apart, in content or date."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = []
    for root in ("one", "two"):
        said = models("ensure", "--bake", "--all", "--root", weights.folder / root)
        assert said.code == 0
        found.append(snapshot(weights.folder / root))
        time.sleep(0.01)

    assert found[0] == found[1]
    assert {date for _, date in found[0].values()} == {1_700_000_000 * 10**9}
    assert "models/vae/a.safetensors" in found[0]
    assert not any(name.startswith((".locks", "blobs", "refs")) for name in found[0])


def test_a_second_step_of_a_build_touches_nothing_of_the_first(models, weights):
    """An image's layer with another file holds that file only."""
    models("ensure", "--baked", "--only", "a.safetensors")
    path = weights.folder / "root/models/vae/a.safetensors"
    before = path.stat()
    weights.put("b.safetensors")
    models("ensure", "--baked", "--only", "b.safetensors")

    after = path.stat()
    assert (after.st_ctime_ns, after.st_ino) == (before.st_ctime_ns, before.st_ino)
    said = models("status", "--all", "--root", weights.folder / "volume", "--layer",
                  weights.folder / "root")  # fmt: skip
    assert said.code == 0


def test_a_volume_is_not_baked(models, weights):
    """Its pins and locks are not taken for leftovers of a build."""
    models("ensure", "--all")
    models("pin", "m@1")

    said = models("ensure", "--bake", "--all")

    assert said.code == 2
    assert "is a volume" in said.err
    assert (weights.folder / "root/refs/m@1.pin").exists()


def snapshot(root):
    """Return content and date of everything below a root."""
    found = {}
    for path in [root, *root.rglob("*")]:
        data = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = data, path.stat().st_mtime_ns
    return found


def test_ctrl_c_keeps_what_came(command, weights, monkeypatch):
    """The process ends at once with 130, says what is kept, and goes on from there."""
    size = 40 << 20
    weights.put("big.safetensors", size)
    weights.server.rate = 1 << 20
    monkeypatch.setenv("WAN_MODELS", str(weights.folder / "root"))
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(weights.write()))
    monkeypatch.setenv("WAN_MODELS_MARGIN_GB", "0")
    process = command("models", "ensure", "--only", "big.safetensors")
    deadline = time.monotonic() + 30
    journal = weights.folder / "root/.staging"
    while time.monotonic() < deadline and not any(
        len(one.read_bytes().splitlines()) > 3 for one in journal.rglob("journal")
    ):
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "Traceback" not in said
    kept = re.search(r"kept for the next time: (\d.*) of big.safetensors", said)
    assert kept is not None
    weights.server.rate = None
    sent = weights.server.sent
    process = command("models", "ensure", "--only", "big.safetensors")
    assert process.wait(30) == 0
    assert weights.server.sent - sent < size


def test_bars_are_drawn_on_a_terminal(weights, monkeypatch):
    """A person sees name, bytes and all that is to come, and in the end a line."""
    weights.put("b.safetensors", 3 << 20)
    weights.server.rate = 1 << 20
    environment = {
        **os.environ,
        "WAN_MODELS": str(weights.folder / "root"),
        "WAN_MODELS_MANIFEST": str(weights.write()),
        "WAN_MODELS_MARGIN_GB": "0",
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    text, code = in_terminal(["models", "ensure", "--all"], environment)

    assert code == 0
    assert "━" in text
    assert "✓ vae/b.safetensors  3.1 MB" in text
    assert re.search(r"of 3\.2 MB", text)
    assert "ready: 2 files, 3.2 MB; fetched 3.2 MB" in text


def in_terminal(arguments, environment):
    """Run `wan` in a pseudo-terminal; return what it drew, and its exit code."""
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "common.cli.main", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    text = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 30)
        try:
            data = os.read(ours, 65536) if ready else b""
        except OSError:  # Linux says so when the other end is closed
            data = b""
        if not data:
            break
        text += data
    os.close(ours)
    return text.decode(), process.wait(10)


def test_a_line_says_who_is_waited_for(capsys, monkeypatch):
    """Outside of a terminal a new step is a line; the same step is one now and then."""
    monkeypatch.setattr(show, "LINE_S", 3600.0)
    notices = [
        Notice("vae/a", Step.WAITING, 10, 100, "process 7 on pod-b (10 %)"),
        Notice("vae/a", Step.WAITING, 20, 100, "process 7 on pod-b (20 %)"),
        Notice("vae/a", Step.DOWNLOADING, 20, 100),
        Notice("vae/a", Step.FAILED, 20, 100, "why"),
        Notice("vae/a", Step.READY, 100, 100),
    ]
    with show.watching([("vae/a", 100)]) as tell:
        for one in notices:
            tell(one)
    plain = capsys.readouterr().err
    with show.watching([("vae/a", 100)], as_json=True) as tell:
        for one in notices:
            tell(one)

    assert plain.splitlines() == [
        "vae/a: waits for process 7 on pod-b (10 %)",
        "vae/a: downloading, 20 bytes of 100 bytes",
        "vae/a: failed",
        "vae/a: ready, 100 bytes",
    ]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    steps = ["waiting", "downloading", "failed", "ready"]
    assert [one["step"] for one in lines] == steps
    assert lines[0]["detail"] == "process 7 on pod-b (10 %)"


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        (Notice("a", Step.WAITING, 1, 2, "process 7 on b"), "waits for process 7 on b"),
        (
            Notice("a", Step.DOWNLOADING, 10**9, 3 * 10**9),
            "1.00 GB of 3.00 GB, 20 s left",
        ),
        (Notice("a", Step.VERIFYING, 500, None), "hashing, 500 bytes"),
    ],
    ids=["waiting", "downloading", "verifying"],
)  # fmt: skip
def test_what_is_said_beside_a_bar(notice, words):
    """Who is waited for, or bytes and the time left."""
    assert show.doing(notice, 1e8) == words


@pytest.mark.parametrize(
    ("step", "whose"),
    [(Step.DOWNLOADING, ""), (Step.WAITING, " of another process")],
    ids=["ours", "another's"],
)
def test_beside_the_bar_of_all(step, whose):
    """Bytes, rate and whose it is, time left."""
    meter = Meter.of([("a", 4000)])
    meter.note(Notice("a", step, 0, 4000), 0.0)
    meter.note(Notice("a", step, 1000, 4000), 1.0)

    assert show.rest_of(meter) == f"1.0 kB of 4.0 kB, 1.0 kB/s{whose}, 3 s left"


def test_a_signal_sets_the_event_and_the_second_one_ends():
    """Ctrl-C is kind once; handlers are put back after."""
    before = signal.getsignal(signal.SIGINT)
    with show.stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_beside_the_main_thread_nothing_is_caught():
    """Python takes handlers in the main thread only."""
    lent = []

    def work():
        with show.stoppable() as stop:
            lent.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert lent == [False]
