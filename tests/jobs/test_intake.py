"""A request becomes a job, whole or not at all, whoever waits for it."""

import asyncio
import contextlib

from common.jobs.intake import Submission
from tests.live import SMALL
from tests.pictures import png


async def test_a_caller_who_goes_leaves_a_job_that_runs(live, monkeypatch):
    """The commit was on its way: the key's job is live, with its files."""
    runtime = live.runtime
    add, written, answered = runtime.store.add, asyncio.Event(), asyncio.Event()

    async def slow(accepted):
        job = await add(accepted)
        written.set()
        await answered.wait()
        return job

    monkeypatch.setattr(runtime.store, "add", slow)
    sent = Submission(SMALL, {"image": png(256, 256)}, key="k1")
    caller = asyncio.create_task(runtime.intake.submit(sent))
    await written.wait()
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    answered.set()
    job = await runtime.intake.submit(sent)

    assert (await live.finished(job.id))["status"] == "succeeded"
