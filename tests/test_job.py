from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.job import (
    MOVES,
    Advanced,
    CancelAsked,
    Canceled,
    Deferred,
    Expired,
    Failed,
    Held,
    IllegalMove,
    Job,
    JobError,
    Moved,
    Output,
    Progress,
    Requeued,
    Started,
    Status,
    Succeeded,
)
from common.jobs import document

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = Job("0b7c0c3e-7ad0-4a3c-9e57-0a3f4a0f8b11", "fastwan", "comfyui", {}, AT)
CLIP = Output("video.mp4", "video", "video/mp4", 9, "ab" * 32, 64, 64, 5, 24.0, 0.2)
OOM = JobError("out_of_memory", "too small", "use 832×480", "Sampler")


def after(*changes):
    return reduce(Job.after, changes, JOB)


def test_a_run_that_succeeds_ends_with_full_progress_and_its_outputs():
    """Started, advanced, done: the whole way of a job."""
    half = Advanced(Progress(0.5, "sampling", 4, 8, "Sampler", 3.0))
    job = after(Started(AT), half, Succeeded((CLIP,), {"Sampler": 2.0}, AT))

    assert (job.status, job.progress.value) == (Status.SUCCEEDED, 1.0)
    assert job.outputs == (CLIP,)
    assert job.nodes == {"Sampler": 2.0}
    assert job.version == 4


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ([CancelAsked(AT)], Status.CANCELED),
        ([Started(AT), CancelAsked(AT)], Status.CANCELING),
        ([Started(AT), CancelAsked(AT), Canceled(AT)], Status.CANCELED),
        ([Started(AT), CancelAsked(AT), Succeeded((), {}, AT)], Status.SUCCEEDED),
        ([Started(AT), Failed(OOM, AT)], Status.FAILED),
        ([Expired(AT)], Status.EXPIRED),
        ([Started(AT), Requeued()], Status.QUEUED),
        ([Moved()], Status.QUEUED),
        ([Held(Progress(stage="downloading"))], Status.QUEUED),
    ],
    ids=[
        "cancel while queued",
        "cancel while running",
        "canceled",
        "finished before the cancel bit",
        "failed",
        "waited too long",
        "attempt lost",
        "moved up",
        "waits for weights",
    ],
)
def test_each_change_leads_to_its_status(changes, status):
    """The table of legal moves."""
    assert after(*changes).status is status


@pytest.mark.parametrize(
    "last",
    [Succeeded((), {}, AT), Failed(OOM, AT), Canceled(AT)],
    ids=["succeeded", "failed", "canceled"],
)
@pytest.mark.parametrize(
    "change",
    [
        Started(AT),
        Advanced(Progress()),
        CancelAsked(AT),
        Requeued(),
        Succeeded((), {}, AT),
        Failed(OOM, AT),
    ],
    ids=lambda change: type(change).__name__,
)
def test_what_is_over_stays_as_it_is(last, change):
    """Terminal states are final."""
    with pytest.raises(IllegalMove):
        after(Started(AT), last, change)


def test_a_job_knows_the_card_of_its_last_attempt():
    """Times of different cards are not to be mixed."""
    second = after(Started(AT, "one"), Requeued(), Started(AT, "two"))

    assert second.device == "two"
    assert second.after(Succeeded((), {}, AT)).device == "two"


def test_each_attempt_has_its_own_prompt_id():
    """The first is the job's id; later ones follow from it, the same every time."""
    second = after(Started(AT), Requeued())

    assert JOB.prompt_id == JOB.id
    assert second.prompt_id not in (JOB.id, "")
    assert second.prompt_id == after(Started(AT), Requeued()).prompt_id
    assert after(Started(AT), Deferred()).prompt_id == JOB.id


def test_a_job_survives_the_store_unchanged():
    """What is loaded equals what was dumped."""
    job = replace(after(Started(AT), Failed(OOM, AT)), outputs=(CLIP,))

    assert document.load(document.dump(job)) == job


def test_a_row_of_another_release_can_be_read():
    """Unknown entries are ignored and absent ones take their defaults."""
    text = document.dump(JOB).replace('"priority":3', '"from_the_future":1')

    assert document.load(text) == JOB


CHANGES = st.sampled_from(
    [
        Started(AT),
        Advanced(Progress(0.5)),
        Moved(),
        Held(Progress(stage="downloading")),
        Requeued(),
        Deferred(),
        CancelAsked(AT),
        Succeeded((CLIP,), {}, AT),
        Failed(OOM, AT),
        Canceled(AT),
        Expired(AT),
    ]
)


@given(st.lists(CHANGES, max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_stream_of_changes_keeps_the_job_lawful(changes):
    """Versions grow by one, moves obey the table, attempts never go down."""
    job = JOB
    for change in changes:
        try:
            following = job.after(change)
        except IllegalMove:
            continue
        same = following.status is job.status
        assert same or following.status in MOVES[job.status]
        assert following.version == job.version + 1
        assert following.attempt >= job.attempt
        job = following


class Life(RuleBasedStateMachine):
    """A job between a caller, a slot and a dying engine."""

    def __init__(self):
        super().__init__()
        self.job = JOB
        self.ended = None

    def change(self, change):
        before = self.job
        try:
            self.job = before.after(change)
        except IllegalMove:
            assert before.status.terminal or before.status is not Status.RUNNING

    @rule()
    def slot_starts(self):
        self.change(Started(AT))

    @precondition(lambda self: self.job.status is Status.RUNNING)
    @rule(value=st.floats(0, 1))
    def engine_reports(self, value):
        self.change(Advanced(Progress(value)))

    @precondition(lambda self: self.job.status is Status.RUNNING)
    @rule()
    def engine_dies(self):
        self.change(
            Requeued() if self.job.attempt < 3 else Failed(JobError("x", "y"), AT)
        )

    @rule()
    def caller_cancels(self):
        self.change(CancelAsked(AT))

    @precondition(lambda self: self.job.status is Status.CANCELING)
    @rule()
    def engine_obeys(self):
        self.change(Canceled(AT))

    @precondition(lambda self: self.job.status in (Status.RUNNING, Status.CANCELING))
    @rule()
    def engine_finishes(self):
        self.change(Succeeded((CLIP,), {}, AT))

    @rule()
    def wrapper_restarts(self):
        self.job = document.load(document.dump(self.job))

    @invariant()
    def ends_once(self):
        if self.ended is not None:
            assert self.job == self.ended
        elif self.job.status.terminal:
            assert self.job.completed_at is not None
            self.ended = self.job

    @invariant()
    def attempts_are_bounded(self):
        assert self.job.attempt <= 3


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, deadline=None)
