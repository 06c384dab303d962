"""What becomes of a job whose weights could not be loaded: mended once, and no more."""

from unittest.mock import Mock

import pytest

from common.job import JobError, Started, Status
from common.jobs.bus import Bus
from common.jobs.ledger import Ledger
from common.jobs.outcome import Broken, Lost, Published, Spoiled, Stopped
from common.jobs.queue import Waiting
from common.jobs.settlement import Settlement
from common.jobs.store import Store
from tests.jobs.conftest import AT, accepted, address

LOST = Lost(JobError("engine_unreachable", "it does not answer"))


class Mender:
    """A supply that notes what it is asked to look after."""

    def __init__(self, known=True):
        self.known = known
        self.mended = []

    def admit(self, job_id, workflow):
        """Let every job go."""

    def mend(self, workflow, *, corrupt):
        """Say whether the manifest has the files."""
        self.mended.append(corrupt)
        return self.known


class Process:
    """One life of a service: a ledger and what settles its jobs."""

    def __init__(self, store, supply, max_attempts=3):
        self.waiting = Waiting()
        self.ledger = Ledger(store, Bus(), self.waiting, 0)
        self.settlement = Settlement(
            self.ledger, self.waiting, None, max_attempts, supply
        )

    async def attempt(self, job_id, outcome, engine=None):
        """Have a job taken, and its attempt end so."""
        assert self.waiting.remove(job_id)
        await self.ledger.change(job_id, Started(AT))
        await self.settlement.settle(job_id, outcome, engine or Mock())
        return await self.ledger.get(job_id, "")


@pytest.fixture
async def store(tmp_path, clock):
    """An empty store on a disk."""
    store = Store(address(tmp_path), clock)
    await store.open()
    yield store
    await store.aclose()


def broken(code):
    return Broken(JobError(code, "it cannot be loaded"))


async def begun(process):
    job = await process.ledger.add(accepted())
    process.waiting.put(job.id, 3)
    return job.id


@pytest.mark.parametrize("code", ["missing_model", "corrupt_model"])
@pytest.mark.parametrize("before", [0, 1, 2], ids=lambda n: f"attempt {n + 1}")
async def test_weights_are_mended_once_whatever_the_attempt(store, code, before):
    """Attempts that an engine lost do not count; a second fault ends the job."""
    supply = Mender()
    process = Process(store, supply)
    job_id = await begun(process)
    for _ in range(before):
        await process.attempt(job_id, LOST)

    job = await process.attempt(job_id, broken(code))
    assert (job.status, job.attempt) == (Status.QUEUED, before + 2)
    assert supply.mended == [code == "corrupt_model"]

    job = await process.attempt(job_id, broken(code))
    assert (job.status, job.error.code) == (Status.FAILED, code)
    assert len(supply.mended) == 1


@pytest.mark.parametrize("code", ["missing_model", "corrupt_model"])
async def test_a_restart_begins_the_mending_anew_and_counts_it(store, code):
    """What was being hashed is hashed; a fault after that ends the job all the same."""
    first = Process(store, Mender())
    job_id = await begun(first)
    await first.attempt(job_id, broken(code))

    supply = Mender()
    second = Process(store, supply)
    (job,) = await second.ledger.recover()
    second.waiting.put(job.id, 3)
    await second.settlement.admit(job.id, job.mended)
    assert supply.mended == [code == "corrupt_model"]

    job = await second.attempt(job_id, broken(code))
    assert job.status is Status.FAILED
    assert len(supply.mended) == 1


@pytest.mark.parametrize(
    ("supply", "code"),
    [
        (None, "missing_model"),
        (Mender(known=False), "missing_model"),
        (Mender(), "model_unavailable"),
        (Mender(), "internal"),
    ],
    ids=["nobody fetches", "not in the manifest", "no library", "another fault"],
)
async def test_what_nobody_can_mend_fails_at_once(store, supply, code):
    """There is no second attempt."""
    process = Process(store, supply)
    job_id = await begun(process)
    job = await process.attempt(job_id, broken(code))

    assert (job.status, job.attempt) == (Status.FAILED, 1)


@pytest.mark.parametrize(
    "outcome",
    [
        LOST,
        broken("internal"),
        Spoiled(JobError("bad_output", "it is cut")),
        Stopped(),
        Published(()),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_what_a_run_left_in_the_engine_goes(store, outcome):
    """However it ended, and by the id of its own prompt."""
    process = Process(store, None)
    job_id = await begun(process)
    await process.attempt(job_id, LOST)
    prompt_id = process.ledger.live(job_id).prompt_id
    engine = Mock()
    await process.attempt(job_id, outcome, engine)

    engine.tidy.assert_called_once_with(prompt_id)
    assert prompt_id != job_id


async def test_a_fault_after_a_mending_has_the_attempts_that_are_left(store):
    """It is no way to more of them."""
    process = Process(store, Mender(), max_attempts=2)
    job_id = await begun(process)
    await process.attempt(job_id, broken("missing_model"))
    job = await process.attempt(job_id, LOST)

    assert (job.status, job.attempt) == (Status.FAILED, 2)


async def test_a_lost_attempt_after_a_mending_allows_no_second_one(store):
    """The job remembers it, whatever came between."""
    supply = Mender()
    process = Process(store, supply)
    job_id = await begun(process)
    await process.attempt(job_id, broken("corrupt_model"))
    await process.attempt(job_id, LOST)
    job = await process.attempt(job_id, broken("corrupt_model"))

    assert (job.status, job.attempt) == (Status.FAILED, 3)
    assert len(supply.mended) == 1
