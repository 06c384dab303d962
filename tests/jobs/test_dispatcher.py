"""Several engines, a restart and a cancel between two moments: nothing is lost."""

import asyncio
import contextlib
from unittest.mock import AsyncMock, Mock

import aiohttp

from common.comfy import Comfy, EngineUnreachable
from common.job import Requeued, Started, Status
from common.jobs.bus import Bus
from common.jobs.dispatcher import Dispatcher
from common.jobs.ledger import Ledger
from common.jobs.queue import Waiting
from tests.jobs.conftest import AT, accepted
from tests.live import Live, both, engine, wrapper
from tests.pictures import png

QUICK = {"poll_s": 0.1, "zombie_s": 0.5, "cancel_s": 3.0, "load_s": 3.0}
NOBODY = "http://127.0.0.1:9"


async def prompts(live, url):
    """Return the log of one of several engines."""
    async with live.http.get(f"{url}/embedded/log") as answer:
        return await answer.json()


async def over(live, url):
    """Tell whether an engine is done with all that it was given."""
    return not {p["state"] for p in await prompts(live, url)} & {"queued", "running"}


def held_back(monkeypatch, url):
    """Keep the slot of one engine from taking jobs."""
    ready = Comfy.wait_until_ready

    async def wait_until_ready(self, timeout_s):
        if self.url == url:
            await asyncio.sleep(timeout_s)
            raise EngineUnreachable("held back", maybe_sent=False)
        await ready(self, timeout_s)

    monkeypatch.setattr(Comfy, "wait_until_ready", wait_until_ready)


async def left_running(data, url, canceled=False, **fields):
    """Return a job that runs in an engine whose service has stopped."""
    async with wrapper(data, url, drain_s=0) as live:
        job = await live.job(**fields)
        await live.until(job["id"], lambda j: j["progress"]["step"])
        if canceled:
            await live.fault(ignore_interrupt=True)
            await live.post(f"/jobs/{job['id']}/cancel")
    return job["id"]


async def test_a_run_is_collected_from_the_engine_that_has_it(tmp_path, monkeypatch):
    """Whichever slot takes it up after a restart, it is not made again."""
    async with (
        engine(tmp_path / "one") as one,
        engine(tmp_path / "other", speed=1) as other,
    ):
        job_id = await left_running(tmp_path / "data", other, steps=4)
        held_back(monkeypatch, other)
        async with wrapper(
            tmp_path / "data",
            other,
            comfyui_urls=(one, other),
            limits=QUICK,
            reach=False,
        ) as live:
            done = await live.finished(job_id)

            assert (done["status"], done["attempt"]) == ("succeeded", 1)
            assert await prompts(live, one) == []
            assert len(await prompts(live, other)) == 1


async def test_an_engine_that_does_not_answer_may_have_the_run(tmp_path, monkeypatch):
    """Unanswered questions after a restart do not make a job run twice."""
    async with engine(tmp_path / "engine", speed=1) as url:
        job_id = await left_running(tmp_path / "data", url, steps=4)
        state, unanswered = Comfy.state, iter(range(2))

        async def late(self, prompt_id):
            if next(unanswered, None) is not None:
                raise EngineUnreachable("GET /history: timeout", maybe_sent=True)
            return await state(self, prompt_id)

        monkeypatch.setattr(Comfy, "state", late)
        async with wrapper(tmp_path / "data", url, limits=QUICK) as live:
            done = await live.finished(job_id)

            assert (done["status"], done["attempt"]) == ("succeeded", 1)
            assert len(await live.prompts()) == 1


async def test_a_run_in_an_engine_that_stays_away_is_made_again(tmp_path):
    """It is waited for, and not for ever."""
    async with engine(tmp_path / "gone", speed=1) as gone:
        job_id = await left_running(tmp_path / "data", gone, steps=8)
    async with (
        engine(tmp_path / "engine") as url,
        wrapper(
            tmp_path / "data",
            url,
            comfyui_urls=(url, NOBODY),
            limits={**QUICK, "home_s": 0.3},
            reach=False,
        ) as live,
    ):
        done = await live.finished(job_id)

        assert (done["status"], done["attempt"]) == ("succeeded", 2)


async def test_a_cancel_from_before_a_restart_is_kept(tmp_path):
    """The run that is adopted is stopped."""
    async with engine(tmp_path / "engine", speed=1) as url:
        job_id = await left_running(tmp_path / "data", url, canceled=True, steps=50)
        async with aiohttp.ClientSession() as http:
            await Live(None, "", url, http).fault(reset=True)
        async with wrapper(tmp_path / "data", url, limits=QUICK) as live:
            assert (await live.finished(job_id))["status"] == "canceled"
            assert [p["state"] for p in await live.prompts()] == ["interrupted"]


async def test_a_cancel_while_a_run_is_looked_for_is_kept(tmp_path, monkeypatch):
    """It has no slot's run yet, and is stopped all the same."""
    async with engine(tmp_path / "engine", speed=1) as url:
        job_id = await left_running(tmp_path / "data", url, steps=50)
        state, asked, canceled = Comfy.state, asyncio.Event(), asyncio.Event()

        async def slow(self, prompt_id):
            asked.set()
            await canceled.wait()
            return await state(self, prompt_id)

        monkeypatch.setattr(Comfy, "state", slow)
        async with wrapper(tmp_path / "data", url, limits=QUICK) as live:
            await asked.wait()
            await live.post(f"/jobs/{job_id}/cancel")
            canceled.set()

            assert (await live.finished(job_id))["status"] == "canceled"
            assert [p["state"] for p in await live.prompts()] == ["interrupted"]


async def test_a_cancel_between_attempts_names_the_attempts_own_prompt(store):
    """Nobody runs it yet, so every engine is told, of the prompt it may have."""
    waiting = Waiting()
    ledger = Ledger(store, Bus(), waiting, 0)
    runner = Mock(cancel=AsyncMock(return_value=False))
    comfy = Mock(cancel=AsyncMock())
    dispatcher = Dispatcher(ledger, waiting, runner, Mock(), [Mock(comfy=comfy)], 3)
    job = await ledger.add(accepted())
    for change in (Started(AT), Requeued(), Started(AT)):
        job = await ledger.change(job.id, change)
    assert (await dispatcher.cancel(job)).status is Status.CANCELING
    await dispatcher.drain(5)

    assert (await ledger.get(job.id, "")).status is Status.CANCELED
    comfy.cancel.assert_awaited_once_with(job.prompt_id)
    assert job.prompt_id != job.id


async def test_an_engine_that_needs_a_restart_rests(tmp_path):
    """A dead worker costs one attempt, and the healthy engine does the rest."""
    limits = {**QUICK, "rest_s": 30.0}
    async with contextlib.AsyncExitStack() as stack:
        dead = await stack.enter_async_context(engine(tmp_path / "dead", speed=1))
        well = await stack.enter_async_context(engine(tmp_path / "well", speed=3))
        live = await stack.enter_async_context(
            wrapper(tmp_path / "data", dead, comfyui_urls=(dead, well), limits=limits)
        )
        await live.fault(zombie=True)
        jobs = [await live.job(seed=seed) for seed in range(5)]
        done = [await live.finished(job["id"]) for job in jobs]
        ill = live.runtime.engines[0]
        trouble = ill.trouble()

        assert {job["status"] for job in done} == {"succeeded"}
        assert sorted(job["attempt"] for job in done) == [1, 1, 1, 1, 2]
        assert len(await prompts(live, dead)) == 1
        assert "restart it" in trouble

        await live.fault(reset=True)  # its queue moves
        async with asyncio.timeout(10):
            while ill.trouble() or not await over(live, dead):
                await asyncio.sleep(0.01)
        assert [p["state"] for p in await prompts(live, dead)] == ["interrupted"]


async def test_an_engine_does_not_rest_for_ever(tmp_path):
    """Without another it is given a job now and then, so that jobs have an end."""
    limits = {**QUICK, "rest_s": 0.3}
    async with both(tmp_path, limits=limits, max_attempts=2) as live:
        await live.fault(zombie=True)
        failed = await live.finished((await live.job())["id"])

        assert (failed["status"], failed["attempt"]) == ("failed", 2)
        assert "worker has died" in failed["error"]["message"]


async def test_a_job_is_busy_until_its_film_is_collected(live, monkeypatch):
    """Also in the moment when its slot lets go of it."""
    ledger, dispatcher = live.runtime.ledger, live.runtime.dispatcher
    moved, busy = ledger.queue_moved, []

    def noted():
        busy.append(dispatcher.busy)
        moved()

    monkeypatch.setattr(ledger, "queue_moved", noted)
    await live.finished((await live.job())["id"])
    await dispatcher.drain(10)

    assert busy == [1]
    assert dispatcher.busy == 0


async def test_a_drain_waits_for_the_film(live, monkeypatch):
    """The engine is done with it, and the file not yet checked."""
    held, checked = asyncio.Event(), asyncio.Event()
    collect = live.runtime.dispatcher._collector._check

    async def slow(*given):
        held.set()
        await checked.wait()
        return await collect(*given)

    monkeypatch.setattr(live.runtime.dispatcher._collector, "_check", slow)
    job = await live.job()
    await held.wait()
    drain = asyncio.create_task(live.runtime.dispatcher.drain(10))
    await asyncio.sleep(0.2)
    waited = not drain.done()
    checked.set()
    await drain

    assert waited
    assert (await live.finished(job["id"]))["status"] == "succeeded"


async def test_an_engine_that_refuses_files_costs_attempts(tmp_path):
    """The job fails saying what was refused, and the next one runs."""
    async with both(tmp_path, limits={**QUICK, "absent_s": 0.1}) as live:
        (tmp_path / "engine/input/wan").touch()  # where a folder should be
        form = aiohttp.FormData()
        form.add_field("file", png(256, 256), filename="x.png")
        upload = (await live.post("/uploads", data=form))[1]["id"]
        refused = await live.job(image=upload)
        following = await live.job()
        refused = await live.finished(refused["id"])

        assert (refused["status"], refused["attempt"]) == ("failed", 3)
        assert "did not take the job: POST /upload" in refused["error"]["message"]
        assert (await live.finished(following["id"]))["status"] == "succeeded"
