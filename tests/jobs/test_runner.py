"""One attempt, over a ComfyUI of which a test says every word."""

import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import AsyncMock, Mock

import pytest

from common.comfy import (
    Absent,
    EngineUnreachable,
    Finished,
    Follower,
    History,
    Queued,
    Running,
)
from common.events import Ended, EngineFile, Executed, Succeeded
from common.jobs.bus import Bus
from common.jobs.ledger import Ledger
from common.jobs.limits import Limits
from common.jobs.outcome import Done, Lost
from common.jobs.queue import Waiting
from common.jobs.run import Run
from common.jobs.runner import Ran, Runner
from common.jobs.store import Store
from common.progress import Meter
from common.request import MediaInput
from common.workflow import Workflow
from tests.jobs.conftest import accepted, address

FILM = Workflow(
    {
        "3": {
            "class_type": "LoadImage",
            "inputs": {"image": ""},
            "_meta": {"title": "First"},
        },
        "1": {"class_type": "SaveVideo", "inputs": {}, "_meta": {"title": "Save"}},
        "2": {"class_type": "SaveVideo", "inputs": {}, "_meta": {"title": "Save, 2"}},
    }
)
ONE, TWO = EngineFile("1.mp4", "wan"), EngineFile("2.mp4", "wan")
DONE = Finished(History("success", {"1": (ONE,), "2": (TWO,)}))


class Engine:
    """A ComfyUI that says what it is told to."""

    def __init__(self, events=(), states=(DONE,)):
        self.info = None
        self.said = events
        self.states = list(states)
        self.upload = AsyncMock(return_value="wan/x.png")
        self.cancel = AsyncMock()
        self.queue_sizes = AsyncMock(return_value=(1, 1))

    @contextmanager
    def follow(self, prompt_id):
        self.follower = Follower()
        yield self.follower

    async def submit(self, prompt_id, graph):
        for event in self.said:
            self.follower.put(event)

    async def state(self, prompt_id):
        """Say one thing after the other, and the last for ever."""
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture
async def ledger(tmp_path, clock):
    """A ledger over an empty store on a disk."""
    store = Store(address(tmp_path), clock)
    await store.open()
    yield Ledger(store, Bus(), Waiting(), 0)
    await store.aclose()


def runner(ledger, **limits):
    request = Mock(patches=list)
    limits = Limits(**{"poll_s": 0.02, **limits})
    return Runner(ledger, Mock(), limits, request, "Save", lambda job, info: None)


async def begun(ledger, media=()):
    return await ledger.add(replace(accepted(), workflow=FILM, media=media))


async def test_parts_keep_the_order_of_the_film(ledger):
    """Whichever node told of its file first, or twice."""
    said = (Executed("2", (TWO,)), Executed("1", (ONE,)), Executed("2", (TWO,)))
    engine = Engine((*said, Succeeded(), Ended()))
    outcome = await runner(ledger).run(await begun(ledger), engine)

    assert isinstance(outcome, Ran)
    assert outcome.told.saved == (ONE, TWO)


async def test_inputs_go_to_a_folder_of_the_prompts_own(ledger):
    """So that they can be removed with it."""
    engine = Engine()
    media = MediaInput("image", str(uuid.uuid4()), "First", "image")
    job = await begun(ledger, (media,))
    await runner(ledger).run(job, engine)

    (upload,) = engine.upload.await_args_list
    assert upload.args[2] == f"wan/{job.prompt_id}"


async def test_somebody_elses_prompt_costs_no_time(ledger):
    """While another's runs before it, a job's own time has not begun."""
    engine = Engine(states=[*[Queued(0)] * 20, DONE])
    limits = {"job_s": 0.2, "load_s": 0.2, "zombie_s": 0.1}
    outcome = await runner(ledger, **limits).run(await begun(ledger), engine)

    assert isinstance(outcome, Done)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((Absent(),), "did not take the job: POST /prompt: timeout"),
        ((Running(), Absent()), "was restarted"),
    ],
    ids=["never arrived", "arrived"],
)
async def test_what_was_refused_is_said_of_what_never_arrived(ledger, states, said):
    """An engine that took the job all the same, and forgot it, was restarted."""
    engine = Engine(states=states)
    engine.submit = AsyncMock(
        side_effect=EngineUnreachable("POST /prompt: timeout", maybe_sent=True)
    )
    outcome = await runner(ledger, absent_s=0.05).run(await begun(ledger), engine)

    assert isinstance(outcome, Lost)
    assert said in outcome.error.message


async def test_a_run_that_succeeded_is_over_no_limit(ledger):
    """The engine died before its history was read: lost, and so the film may stand."""
    engine = Engine(states=[Absent()])
    job = await begun(ledger)
    run = Run(job, engine, FILM, Meter.of(FILM), Follower(), ("1", "2"))
    run.began = time.monotonic() - 10_000
    outcome = await runner(ledger, absent_s=0.1).conclude(Ran(run))

    assert isinstance(outcome, Lost)
