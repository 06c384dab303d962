"""What a run saved is copied ahead of history's word, which is the last one."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from common.events import EngineFile
from common.jobs.collector import Collector
from common.jobs.outcome import Done, Published, Spoiled
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
    comfy = runtime.engines[0].comfy
    jobs = []
    for seed in (1, 2):
        made = await live.finished((await live.job(seed=seed))["id"])
        jobs.append(await runtime.ledger.get(made["id"], ""))
    expected = runtime.service.request.expected
    collector = Collector(runtime.files, publish, lambda job: expected(job.request))
    return (
        live,
        comfy,
        collector,
        [(job, await saved(live, comfy, job)) for job in jobs],
    )


def left(live):
    return list((live.runtime.data / "tmp").iterdir())


async def test_a_copy_made_ahead_is_used(runs, monkeypatch):
    """One download serves, and nothing stays in the way."""
    live, comfy, collector, [(job, files), _] = runs
    asked = []
    download = comfy.download

    async def counted(file, dest, **limits):
        asked.append(file)
        await download(file, dest, **limits)

    monkeypatch.setattr(comfy, "download", counted)
    async with collector.ahead(job.id, files, comfy):
        outcome = await collector.collect(job, Done(files, {}), comfy)

    assert isinstance(outcome, Published)
    assert outcome.outputs == job.outputs
    assert asked == [files[-1]]
    assert left(live) == []


async def test_history_has_the_last_word(runs):
    """When it names another file than the events did, that one is published."""
    live, comfy, collector, [(_, others), (job, files)] = runs
    async with collector.ahead(job.id, others, comfy):
        outcome = await collector.collect(job, Done(files, {}), comfy)

    assert isinstance(outcome, Published)
    path = live.runtime.files.job(job.id) / "video.mp4"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == job.outputs[0].sha256
    assert left(live) == []


async def test_what_nobody_takes_is_dropped(runs):
    """A run that failed after its node had saved leaves no copy and no task."""
    live, comfy, collector, [(job, files), _] = runs
    async with collector.ahead(job.id, files, comfy):
        await asyncio.sleep(0)

    assert left(live) == []
    assert "_download" not in {t.get_coro().__name__ for t in asyncio.all_tasks()}


async def test_a_copy_that_fails_ahead_is_told_when_it_is_wanted(runs):
    """The file is not there: the outcome says so, as without a copy ahead."""
    live, comfy, collector, [(job, _), _] = runs
    gone = (EngineFile("gone.mp4", "wan"),)
    async with collector.ahead(job.id, gone, comfy):
        outcome = await collector.collect(job, Done(gone, {}), comfy)

    assert isinstance(outcome, Spoiled)
    assert outcome.error.code == "no_output"
    assert left(live) == []


async def test_a_film_of_which_a_part_is_missing_is_not_published(runs):
    """The error counts the files."""
    live, comfy, _, [(job, files), _] = runs
    parts = replace(live.runtime.service.request.expected(job.request), parts=3)
    collector = Collector(live.runtime.files, publish, lambda job: parts)
    outcome = await collector.collect(job, Done(files, {}), comfy)

    assert isinstance(outcome, Spoiled)
    assert "1 of 3 files" in outcome.error.message
    assert left(live) == []


async def test_a_film_in_parts_is_joined(runs):
    """Both jobs' films as one; the parts are gone."""
    live, comfy, _, [(_, one), (job, other)] = runs
    expected = live.runtime.service.request.expected(job.request)
    whole = replace(expected, frames=2 * expected.frames, parts=2)
    collector = Collector(live.runtime.files, publish, lambda job: whole)
    outcome = await collector.collect(job, Done((*one, *other), {}), comfy)

    assert isinstance(outcome, Published)
    assert outcome.outputs[0].frames == 2 * job.outputs[0].frames
    assert left(live) == []
