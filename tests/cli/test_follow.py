import io
import sys

import pytest

from common.cli import follow
from common.cli.screen import Stop

PROGRESS = {"value": 0.5, "stage": "sampling", "step": 3, "steps": 8, "eta_s": 12.4}
RUNNING = {
    "id": "x",
    "status": "running",
    "queue_position": None,
    "progress": PROGRESS,
    "error": None,
}


class Terminal(io.StringIO):
    """A stderr that somebody watches."""

    def isatty(self):
        return True


class Service:
    """Stands for a client: yields what the test wrote down."""

    def __init__(self, *jobs):
        self._jobs = jobs

    def watch(self, _job_id):
        yield from self._jobs


def test_a_terminal_gets_a_bar(monkeypatch):
    """Stage, step and time left, drawn and taken away again."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")

    last = follow.watched(Service(RUNNING), RUNNING, as_json=False)

    drawn = sys.stderr.getvalue()
    assert last == RUNNING
    assert "\x1b[" in drawn
    for word in ("sampling", "50%", "step 3/8, 12 s left"):
        assert word in drawn


def test_no_colour_is_respected(monkeypatch):
    """With NO_COLOR the bar has no colour."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    follow.watched(Service(RUNNING), RUNNING, as_json=False)

    assert "\x1b[3" not in sys.stderr.getvalue()


def test_elsewhere_a_line_for_each_stage(capsys):
    """A log gets a line when the stage changes, not one for each step."""
    waits = {**RUNNING, "status": "queued", "queue_position": 2}
    later = {**RUNNING, "progress": {**PROGRESS, "value": 0.6}}
    ends = {**RUNNING, "status": "canceling"}

    follow.watched(Service(waits, RUNNING, later, ends), waits, as_json=False)

    assert capsys.readouterr().err.splitlines() == [
        "queued, 2 before it (50%)",
        "sampling (50%)",
        "canceling (50%)",
    ]


@pytest.mark.parametrize(
    ("job", "words", "hint"),
    [
        (
            {"status": "failed", "error": {"message": "no room", "hint": "use less"}},
            "no room",
            "use less",
        ),
        ({"status": "canceled", "error": None}, "is canceled", None),
    ],
    ids=["failed", "canceled"],
)
def test_what_did_not_succeed_ends_the_command(job, words, hint):
    """Its message and its hint are what is said."""
    with pytest.raises(Stop, match=words) as caught:
        follow.outcome({"id": "x", **job})

    assert caught.value.hint == hint
    assert caught.value.code == 1


def test_weights_on_their_way_are_shown_instead_of_queued():
    """Bytes and time left; a job that only waits says so."""
    fetching = {
        "status": "queued",
        "queue_position": 2,
        "progress": {
            "stage": "downloading",
            "value": 0.0,
            "step": None,
            "eta_s": 60.0,
            "done_bytes": 3_100_000_000,
            "total_bytes": 18_800_000_000,
        },
    }

    assert follow._stage(fetching) == "downloading"
    rest = follow._rest(fetching["progress"])
    assert rest == "3.10 GB of 18.80 GB of weights, 60 s left"
