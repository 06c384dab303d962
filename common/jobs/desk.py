"""What a caller can do with a job of theirs once it is accepted."""

from __future__ import annotations

import asyncio

from common.errors import ShuttingDown
from common.job import IllegalMove, Job
from common.jobs.dispatcher import Dispatcher
from common.jobs.intake import Intake
from common.jobs.janitor import Janitor
from common.jobs.ledger import Ledger

DELETE_WAIT_S = 10.0


class Desk:
    """Cancel, retry, wait for and delete jobs."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        intake: Intake,
        janitor: Janitor,
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._intake = intake
        self._janitor = janitor
        self._removals: set[asyncio.Task[None]] = set()

    async def cancel(self, job: Job) -> Job:
        """Cancel a job; one that is over, or being canceled, stays as it is."""
        try:
            return await self._dispatcher.cancel(job)
        except IllegalMove:
            return await self._ledger.latest(job)

    async def retry(self, job: Job, owner: str) -> Job:
        """Return a new job with the same request."""
        return await self._intake.retry(job, owner)

    async def wait(self, job: Job, timeout_s: float) -> Job:
        """Return the job once it is over, or as it stands when time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                async for _ in self._ledger.watch(job):
                    pass
        except TimeoutError:
            pass
        return await self._ledger.latest(job)

    async def delete(self, job: Job) -> None:
        """
        Remove a job and its files; one that runs is canceled first.

        The GPU may need longer than the caller should wait; it is removed then.
        """
        removal = asyncio.create_task(self._remove(job), name=f"delete {job.id}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        done, _ = await asyncio.wait({removal}, timeout=DELETE_WAIT_S)
        for task in done:
            task.result()

    async def aclose(self) -> None:
        """Give up on removals that still wait for a GPU."""
        for task in self._removals:
            task.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)

    async def _remove(self, job: Job) -> None:
        if not job.status.terminal:
            await self.cancel(job)
            async for _ in self._ledger.watch(job):
                pass
            if self._ledger.live(job.id):
                raise ShuttingDown("the service is stopping", retry_after_s=30)
        await self._janitor.remove([job.id])
