import json
import sys

import pytest
import requests

from common.cli.jobs import find
from common.cli.screen import Stop, key_hint
from tests.cli.test_follow import Terminal
from tests.live import SMALL


@pytest.fixture(scope="module")
def job(service):
    """A job that is over."""
    wait = {"Prefer": "wait=30"}
    answer = requests.post(f"{service.url}/generate", json=SMALL, headers=wait)
    assert answer.status_code == 200
    return answer.json()


def test_jobs_list(wan, service, job):
    """The newest jobs with their whole ids, also when nobody's terminal is wide."""
    assert job["id"] in wan("jobs", "list", "--url", service.url).out
    lines = wan("jobs", "list", "--json", "--url", service.url).out.splitlines()
    assert job["id"] in [json.loads(line)["id"] for line in lines]
    none = wan("jobs", "list", "--status", "failed", "--url", service.url)
    assert job["id"] not in none.out


@pytest.mark.parametrize(("columns", "created"), [(80, True), (60, False)])
def test_jobs_list_in_a_narrow_terminal(
    wan, service, job, monkeypatch, columns, created
):
    """Id and status are whole; what is made of the rest gives way."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")

    wan("jobs", "list", "--url", service.url)

    lines = screen.getvalue().splitlines()
    [line] = [one for one in lines if job["id"] in one]
    assert "succeeded" in line
    assert ((job["created_at"][:19].replace("T", " ")) in line) is created
    assert len(line) <= columns


def test_jobs_show_takes_a_beginning(wan, service, job):
    """A job is found by its id and by the beginning of it."""
    for text in (job["id"], job["id"][:8]):
        said = wan("jobs", "show", text, "--url", service.url)
        assert json.loads(said.out)["id"] == job["id"]


def test_jobs_watch(wan, service, job):
    """Following ends with where the outputs are."""
    said = wan("jobs", "watch", job["id"], "--url", service.url)

    assert said.out == f"{service.url}/jobs/{job['id']}/outputs/video.mp4\n"


def test_jobs_cancel(wan, service, job):
    """Canceling says what the job is now."""
    said = wan("jobs", "cancel", job["id"], "--url", service.url)

    assert said.out == f"{job['id']} succeeded\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zzzz", "none of the last 200 jobs begins with zzzz"),
        ("", "error: which job?"),
        ("0" * 36, "error: "),
    ],
    ids=["none", "nothing", "no id"],
)
def test_a_job_that_is_not_meant(wan, service, job, text, words):
    """What fits no job, or several, is said."""
    requests.post(f"{service.url}/generate", json=SMALL)

    said = wan("jobs", "show", text, "--url", service.url)

    assert said.code in (1, 2)
    assert words in said.err


def test_a_beginning_of_several_jobs():
    """Those that it fits are named."""

    class Two:
        def list(self, limit):
            return {"jobs": [{"id": "ab-1"}, {"id": "ab-2"}][:limit]}

    with pytest.raises(Stop, match=r"^ab fits several jobs: ab-1, ab-2$"):
        find(Two(), "ab")


def test_without_its_key_a_service_tells_how():
    """A refused key comes with how a key is given."""
    error = type("Refused", (Exception,), {"status": 401})()

    assert key_hint(error) == "set WAN_API_KEY to a key of the service"
    assert key_hint(Exception()) is None
