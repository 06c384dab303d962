"""Jobs are parked for what is absent, and go when it has come; no network here."""

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from common.jobs import supply as module
from common.jobs.queue import Waiting
from common.jobs.supply import Supply
from common.manifest_schema import WeightFile
from common.models.errors import NoSpace, SourcesFailed, Stopped
from common.models.meter import Notice, Step


def file(name):
    source = f"https://example.com/{name}"
    return WeightFile(
        name=f"{name}.safetensors",
        folder="vae",
        size=100,
        sha256="0" * 64,
        sources=(source,),
    )


A, B, C = file("a"), file("b"), file("c")


@dataclass
class Result:
    file: WeightFile
    error: Exception | None = None
    fetched_bytes: int = 100
    seconds: float = 1.0
    aside: None = None


class Volume:
    """A volume; a workflow is the files that it loads, and `gate` lets a file come."""

    def __init__(self, *there):
        self.there = set(there)
        self.asked = []
        self.repaired = []
        self.uses = []  #: the files of each word that they are in use
        self.fails = []  #: raised, or returned for each file, one a fetch
        self.gates = {}
        self.stopped = threading.Event()

    def loaded_by(self, workflow):
        return tuple(workflow)

    def used(self, files):
        self.uses.append(list(files))

    def ready(self, file):
        return file in self.there

    def ensure_files(self, files, *, notice, stop):
        self.asked.append(list(files))
        failure = self.fails.pop(0) if self.fails else None
        if isinstance(failure, (NoSpace, RuntimeError)):
            raise failure
        results = []
        for one in files:
            error = failure
            gate = self.gates.get(one)
            for _ in range(1000):
                if gate is None or gate.wait(0.01):
                    break
                if stop.is_set():
                    self.stopped.set()
                    error = Stopped("stopped")
                    break
            if error is None:
                self.there.add(one)
                notice(Notice(one.path, Step.READY, 100, 100))
            results.append(Result(one, error))
        return results

    def repair_files(self, files, *, notice, stop):
        self.repaired += files
        return self.ensure_files(files, notice=notice, stop=stop)


class Counts:
    def __init__(self):
        self.results = []
        self.errors = []

    def fetched(self, result):
        self.results.append(result)

    def not_fetched(self, error):
        self.errors.append(error)


class Held:
    """What waiting jobs were told last."""

    def __init__(self):
        self.last = {}

    def __call__(self, job_ids, progress):
        self.last |= dict.fromkeys(job_ids, progress)


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    monkeypatch.setattr(module, "TELL_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", (0.01, 0.02))


@asynccontextmanager
async def working(volume):
    """Yield a supply that works, its queue, and what jobs were told."""
    waiting, held, counts = Waiting(), Held(), Counts()
    supply = Supply(volume, waiting, held, counts)
    task = asyncio.create_task(supply.work())
    try:
        yield supply, waiting, held, counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def taken(waiting):
    async with asyncio.timeout(10):
        return await waiting.next()


async def eventually(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def put(supply, waiting, job_id, *files):
    waiting.put(job_id, 3)
    supply.admit(job_id, files)


async def test_a_job_whose_files_are_there_goes_at_once():
    """Nothing is fetched; the next one is not even looked at."""
    volume = Volume(A)
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A)
        assert await taken(waiting) == "one"
        put(supply, waiting, "two", A)
        assert waiting.parked() == []

    assert volume.asked == []


async def test_a_job_goes_when_its_own_files_are_there():
    """Not when all that is being fetched has come."""
    volume = Volume()
    volume.gates[B] = threading.Event()
    async with working(volume) as (supply, waiting, held, _):
        put(supply, waiting, "both", A, B)
        put(supply, waiting, "first", A)
        assert await taken(waiting) == "first"
        assert waiting.parked() == ["both"]
        await eventually(lambda: held.last["both"].done_bytes == 100)
        volume.gates[B].set()
        assert await taken(waiting) == "both"

    assert held.last["both"].stage == "queued"


async def test_what_is_there_is_said_to_be_used(monkeypatch):
    """At the start and again and again: gc takes away what nobody used for long."""
    monkeypatch.setattr(module, "USED_S", 0.02)
    volume = Volume(A)
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A, B)
        await eventually(lambda: len(volume.uses) > 3)

    assert volume.uses[0] == [A]
    assert set(volume.uses[-1]) == {A, B}


async def test_a_waiting_job_is_told_how_far_it_is():
    """As soon as it waits, also when the fetch began before."""
    volume = Volume()
    volume.gates[A] = threading.Event()
    async with working(volume) as (supply, waiting, held, _):
        supply.want([A])
        await eventually(lambda: supply.fetching)
        put(supply, waiting, "late", A)
        told = held.last["late"]
        volume.gates[A].set()
        await taken(waiting)

    assert (told.stage, told.total_bytes) == ("downloading", 100)


@pytest.mark.parametrize(
    ("failure", "counted"),
    [
        (NoSpace("full"), "errors"),
        (SourcesFailed("gone"), "results"),
        (RuntimeError("a fault of ours"), None),
    ],
    ids=["no space", "no source", "a fault of ours"],
)
async def test_a_fetch_that_fails_is_tried_again(failure, counted):
    """The job waits meanwhile, and what went wrong is kept until it does not."""
    volume = Volume()
    volume.fails = [failure] * 3
    seen = []
    async with working(volume) as (supply, waiting, held, counts):
        put(supply, waiting, "one", A)
        await eventually(lambda: A in supply.troubles)
        seen.append(waiting.parked())
        seen.append(held.last["one"].stage)
        assert await taken(waiting) == "one"
        await eventually(lambda: not supply.troubles)

    assert seen == [["one"], "queued"]
    assert len(volume.asked) == 4
    if counted == "errors":
        assert counts.errors == [failure] * 3
    elif counted == "results":
        assert [one.error for one in counts.results] == [failure] * 3 + [None]


async def test_a_file_more_ends_the_pause(monkeypatch):
    """And another job for the same file does not: it would hammer the source."""
    monkeypatch.setattr(module, "RETRY_S", (3600.0, 3600.0))
    volume = Volume()
    volume.fails = [SourcesFailed("gone")]
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A)
        await eventually(lambda: A in supply.troubles)
        put(supply, waiting, "two", A)
        await asyncio.sleep(0.05)
        assert len(volume.asked) == 1
        put(supply, waiting, "three", B)
        assert [await taken(waiting) for _ in range(3)] == ["one", "two", "three"]


async def test_a_job_that_is_canceled_is_forgotten():
    """What it waited for is fetched all the same, for the next one."""
    volume = Volume()
    volume.gates[A] = threading.Event()
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A)
        waiting.remove("one")
        volume.gates[A].set()
        await eventually(lambda: A in volume.there and not supply.wanted(A))
        put(supply, waiting, "two", A)
        assert await taken(waiting) == "two"


async def test_what_could_not_be_loaded_is_looked_at_again():
    """A corrupt file is hashed although it looks right, one that is missing is not."""
    volume = Volume(A, B)
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A)
        await taken(waiting)
        assert supply.mend((A,), corrupt=False)
        put(supply, waiting, "again", A)
        await taken(waiting)
        assert volume.repaired == []
        assert supply.mend((A,), corrupt=True)
        put(supply, waiting, "more", A)
        await taken(waiting)
        assert volume.repaired == [A]
        assert not supply.mend((), corrupt=True)


async def test_a_file_that_was_there_and_is_not_is_fetched_again():
    """Another that nobody asked for is left alone."""
    volume = Volume(A)
    async with working(volume) as (supply, waiting, _, _):
        put(supply, waiting, "one", A)
        await taken(waiting)
        volume.there.clear()
        supply.doubt(A)
        supply.doubt(B)
        await eventually(lambda: A in volume.there)

    assert volume.asked == [[A]]


async def test_it_ends_while_it_fetches():
    """The thread is told, and waited for: its partial file is in order."""
    volume = Volume()
    volume.gates[A] = threading.Event()
    async with working(volume) as (supply, _, _, _):
        supply.want([A])
        await eventually(lambda: volume.asked)

    assert volume.stopped.is_set()
