import io
import sys

import pytest

from common.cli import follow
from common.cli.screen import Stop
from common.client import Refused, Unreachable

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
    """Stands for a client: yields what the test wrote down, and may break off."""

    def __init__(self, *jobs, url="http://127.0.0.1:8189", breaks=None):
        self._jobs = jobs
        self._breaks = breaks
        self.url = url

    def watch(self, _job_id):
        yield from self._jobs
        if self._breaks is not None:
            raise self._breaks


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
    later = {**RUNNING, "progress": {**PROGRESS, "value": 0.59}}
    ends = {**RUNNING, "status": "canceling"}

    follow.watched(Service(waits, RUNNING, later, ends), waits, as_json=False)

    assert capsys.readouterr().err.splitlines() == [
        "queued, 2 before it (50%)",
        "sampling (50%)",
        "canceling (50%)",
    ]


def test_elsewhere_a_long_stage_shows_that_it_goes_on(capsys):
    """Each tenth is a line; of a download it is a tenth of its bytes."""
    steps = [
        {**RUNNING, "progress": {**PROGRESS, "value": percent / 100}}
        for percent in range(30, 52)
    ]
    bytes_ = {"stage": "downloading", "done_bytes": 25, "total_bytes": 100}
    fetching = {**RUNNING, "progress": {**PROGRESS, **bytes_}}

    follow.watched(Service(fetching, *steps), steps[0], as_json=False)

    assert capsys.readouterr().err.splitlines() == [
        "downloading (25%)",
        "sampling (30%)",
        "sampling (40%)",
        "sampling (50%)",
    ]


@pytest.mark.parametrize(
    ("url", "at"),
    [
        ("http://127.0.0.1:8189", ""),
        ("http://gpu:8000", " --url http://gpu:8000"),
    ],
    ids=["usual", "named"],
)
@pytest.mark.parametrize(
    ("breaks", "code"),
    [(Unreachable("there"), 4), (Refused(502, {}, None), 1)],
    ids=["away", "proxy"],
)
def test_a_job_whose_service_went_away_can_be_found_again(url, at, breaks, code):
    """The hint has its id, and the command that goes on with it."""
    service = Service(RUNNING, url=url, breaks=breaks)

    with pytest.raises(Stop) as caught:
        follow.watched(service, RUNNING, as_json=False)

    assert f"'wan jobs watch x{at}'" in caught.value.hint
    assert caught.value.code == code


def test_a_refusal_in_mid_job_stays_one():
    """A job that is gone is not said to be kept."""
    service = Service(RUNNING, breaks=Refused(404, {}, None))

    with pytest.raises(Refused):
        follow.watched(service, RUNNING, as_json=False)


@pytest.mark.parametrize(
    ("job", "words", "hint"),
    [
        (
            {"status": "failed", "error": {"message": "no room", "hint": "use less"}},
            "no room",
            "use less",
        ),
        ({"status": "canceled", "error": None}, "^job x is canceled$", None),
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
