"""What a run saved is collected ahead of history's word, which is the last one."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from common.comfy import EngineUnreachable
from common.errors import NoSpace
from common.events import EngineFile
from common.jobs.collector import Collector
from common.jobs.outcome import (
    Broken,
    Done,
    Lost,
    Published,
    Spoiled,
    Stopped,
    lost_in_restart,
)
from common.outputs import publish
from tests.live import both


@pytest.fixture
async def live(tmp_path):
    async with both(tmp_path) as live:
        yield live


async def saved(live, comfy, job):
    """Return what ComfyUI's history says a finished job saved."""
    state = await comfy.state(job.prompt_id)
    (files,) = (files for files in state.history.files_by_node.values() if files)
    return tuple(files)


@pytest.fixture
async def runs(live):
    """Two jobs with different films, a collector, and what each saved."""
    runtime = live.runtime
    (engine,) = runtime.engines
    jobs = []
    for seed in (1, 2):
        made = await live.finished((await live.job(seed=seed))["id"])
        jobs.append(await runtime.ledger.get(made["id"], ""))
    for job in jobs:
        video(live, job).unlink()
    expected = runtime.service.request.expected
    collector = Collector(runtime.files, publish, lambda job: expected(job.request))
    return (
        live,
        engine,
        collector,
        [(job, await saved(live, engine.comfy, job)) for job in jobs],
    )


def video(live, job):
    return live.runtime.files.job(job.id) / "video.mp4"


def left(live):
    return list((live.runtime.data / "tmp").iterdir())


@pytest.fixture
def downloads(runs, monkeypatch):
    """The files that were asked for over HTTP."""
    comfy = runs[1].comfy
    asked = []
    download = comfy.download

    async def counted(file, dest, **limits):
        asked.append(file)
        await download(file, dest, **limits)

    monkeypatch.setattr(comfy, "download", counted)
    return asked


async def test_what_was_collected_ahead_is_the_outcome(runs, downloads):
    """One download serves; how long the nodes took comes from history."""
    live, engine, collector, [(job, files), _] = runs
    async with collector.ahead(job, Done(files, {"Sampler": 1.5}), engine) as confirmed:
        outcome = await confirmed(Done(files, {"Sampler": 1.5}))

    assert outcome == Published(job.outputs, {"Sampler": 1.5})
    assert video(live, job).is_file()
    assert downloads == [files[-1]]
    assert left(live) == []


async def test_a_file_on_this_machine_is_not_copied(runs, downloads, monkeypatch):
    """It is read where the engine saved it, and stays there."""
    live, engine, collector, [(job, files), _] = runs
    folder = live.runtime.data.parent / "engine/output"
    here = folder / files[-1].subfolder / files[-1].filename
    monkeypatch.setattr(engine, "saved", lambda file: here)
    outcome = await collector.collect(job, Done(files, {}), engine)

    assert outcome == Published(job.outputs)
    assert here.is_file()
    assert downloads == []


async def test_history_has_the_last_word(runs):
    """When it names another file than the events did, that one is published."""
    live, engine, collector, [(_, others), (job, files)] = runs
    async with collector.ahead(job, Done(others, {}), engine) as confirmed:
        outcome = await confirmed(Done(files, {}))
        assert not video(live, job).exists()
    outcome = await collector.collect(job, outcome, engine)

    assert outcome == Published(job.outputs)
    data = video(live, job).read_bytes()
    assert hashlib.sha256(data).hexdigest() == job.outputs[0].sha256
    assert left(live) == []


async def test_a_run_that_failed_after_its_node_had_saved_publishes_nothing(runs):
    """What was collected is taken back, and the failure stands."""
    live, engine, collector, [(job, files), _] = runs
    async with collector.ahead(job, Done(files, {"Sampler": 1.5}), engine) as confirmed:
        outcome = await confirmed(Stopped())

    assert outcome == Stopped()
    assert not video(live, job).exists()
    assert left(live) == []


async def test_when_history_is_lost_the_events_are_believed(runs):
    """They told of a success, and the file is whole."""
    live, engine, collector, [(job, files), _] = runs
    async with collector.ahead(job, Done(files, {"Sampler": 1.5}), engine) as confirmed:
        outcome = await confirmed(Lost(lost_in_restart()))

    assert outcome == Published(job.outputs, {"Sampler": 1.5})
    assert video(live, job).is_file()


async def test_a_copy_that_broke_ahead_is_fetched_again(runs, monkeypatch):
    """The film is whole in the engine: nothing is made twice for a cut connection."""
    _, engine, collector, [(job, files), _] = runs
    download, cut = engine.comfy.download, [True]

    async def broken_once(file, dest, **limits):
        if cut and cut.pop():
            raise EngineUnreachable("GET /view: connection reset", maybe_sent=True)
        await download(file, dest, **limits)

    monkeypatch.setattr(engine.comfy, "download", broken_once)
    done = Done(files, {})
    async with collector.ahead(job, done, engine) as confirmed:
        outcome = await confirmed(done)
    again = await collector.collect(job, outcome, engine)

    assert outcome == done
    assert again == Published(job.outputs)


async def test_a_full_disk_is_said_of_a_film_that_was_found(runs):
    """Also of one that an earlier process published just before it died."""
    live, engine, collector, [(job, files), _] = runs
    await collector.collect(job, Done(files, {}), engine)

    def full(*given, name):
        raise NoSpace("the disk is full")

    expected = live.runtime.service.request.expected
    finder = Collector(live.runtime.files, full, lambda job: expected(job.request))
    (live.runtime.files.job(job.id) / ".video.mp4.0.part").touch()
    outcome = await finder.find(job)

    assert isinstance(outcome, Broken)
    assert outcome.error.code == "no_space"
    assert [p.name for p in live.runtime.files.job(job.id).glob("*")] == ["video.mp4"]


async def test_a_service_that_stops_leaves_no_copy_and_no_task(runs):
    """The slot is canceled while history is asked."""
    live, engine, collector, [(job, files), _] = runs
    with pytest.raises(asyncio.CancelledError):
        async with collector.ahead(job, Done(files, {"Sampler": 1.5}), engine):
            raise asyncio.CancelledError

    assert left(live) == []
    assert "_collected" not in {t.get_coro().__name__ for t in asyncio.all_tasks()}


async def test_trouble_ahead_is_told_when_it_is_wanted(runs):
    """The file is not there: the outcome says so, as without looking ahead."""
    live, engine, collector, [(job, _), _] = runs
    gone = (EngineFile("gone.mp4", "wan"),)
    async with collector.ahead(job, Done(gone, {}), engine) as confirmed:
        outcome = await confirmed(Done(gone, {}))

    assert isinstance(outcome, Spoiled)
    assert outcome.error.code == "no_output"
    assert left(live) == []


async def test_a_film_of_which_a_part_is_missing_is_not_published(runs):
    """The error counts the files."""
    live, engine, _, [(job, files), _] = runs
    parts = replace(live.runtime.service.request.expected(job.request), parts=3)
    collector = Collector(live.runtime.files, publish, lambda job: parts)
    outcome = await collector.collect(job, Done(files, {}), engine)

    assert isinstance(outcome, Spoiled)
    assert "1 of 3 files" in outcome.error.message
    assert left(live) == []


async def test_a_film_in_parts_is_joined(runs):
    """Both jobs' films as one; the parts are gone."""
    live, engine, _, [(_, one), (job, other)] = runs
    expected = live.runtime.service.request.expected(job.request)
    whole = replace(expected, frames=2 * expected.frames, parts=2)
    collector = Collector(live.runtime.files, publish, lambda job: whole)
    outcome = await collector.collect(job, Done((*one, *other), {}), engine)

    assert isinstance(outcome, Published)
    assert outcome.outputs[0].frames == 2 * job.outputs[0].frames
    assert left(live) == []
