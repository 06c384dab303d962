"""What becomes of a job when an attempt has ended: an end, another try, or weights."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from common.comfy import EngineUnreachable
from common.job import (
    Canceled,
    Change,
    Deferred,
    Failed,
    JobError,
    Requeued,
    Status,
    Succeeded,
)
from common.jobs.collector import Collector
from common.jobs.engine import Engine
from common.jobs.ledger import Ledger, now
from common.jobs.outcome import (
    Broken,
    Done,
    Lost,
    Outcome,
    Postponed,
    Published,
    Spoiled,
    Stopped,
    host_memory,
)
from common.jobs.queue import Waiting
from common.jobs.supply import Supply

log = logging.getLogger(__name__)

CORRUPT = "corrupt_model"
UNLOADED = ("missing_model", CORRUPT)


class Settlement:
    """Turns outcomes into the next states of jobs."""

    def __init__(
        self,
        ledger: Ledger,
        waiting: Waiting,
        collector: Collector,
        max_attempts: int,
        supply: Supply | None,
    ) -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._collector = collector
        self._max_attempts = max_attempts
        self._supply = supply
        self.spoilt = 0  #: how often an engine's process had to be given up

    async def admit(self, job_id: str, mended: str | None = None) -> None:
        """
        Let a job wait for its weights, if they are not there.

        Args:
            mended: as its job has it, after a restart: what was begun is done anew.
        """
        if self._supply is not None:
            workflow, _ = await self._ledger.work_of(job_id)
            if mended is not None:
                self._supply.mend(workflow, corrupt=mended == CORRUPT)
            self._supply.admit(job_id, workflow)

    async def settle(self, job_id: str, outcome: Outcome, engine: Engine) -> None:
        """Turn an attempt's outcome into the job's next state."""
        job = self._ledger.live(job_id)
        if job and not isinstance(outcome, Done | Published | Postponed):
            await asyncio.to_thread(engine.tidy, job.prompt_id)
        match outcome:
            case Done():
                if job:
                    found = await self._collector.collect(job, outcome, engine)
                    await self.settle(job_id, found, engine)
            case Published(outputs=outputs, nodes=nodes):
                await self._ledger.insist(job_id, Succeeded(outputs, nodes, now()))
                if job:
                    await asyncio.to_thread(engine.tidy, job.prompt_id)
            case Spoiled(error=error):
                await self._once_more(job_id, error, engine)
            case Stopped():
                await self._ledger.insist(job_id, Canceled(now()))
            case Postponed():
                await self._again(job_id, Deferred())
            case Lost(error=error, restart=restart):
                if restart:
                    await self._restart(engine)
                await self._try_again(job_id, error, engine)
            case Broken(error=error, restart=restart):
                if restart:
                    await self._restart(engine)
                if error.code == "out_of_memory":
                    # The models of another workflow may lie there: unload them.
                    with suppress(EngineUnreachable):
                        await engine.comfy.free()
                    await self._once_more(job_id, error, engine)
                elif await self._mended(job_id, error):
                    log.warning("%s: %s; seeing to that", job_id, error.message)
                    await self._again(job_id, Requeued(error.code))
                else:
                    await self.fail(job_id, error)

    async def _mended(self, job_id: str, error: JobError) -> bool:
        """
        Have weights that could not be loaded looked after, once a job.

        Whichever attempt it is: the weights' fault is none of the job's.
        """
        job = self._ledger.live(job_id)
        if self._supply is None or error.code not in UNLOADED:
            return False
        if job is None or job.status is not Status.RUNNING or job.mended:
            return False
        workflow, _ = await self._ledger.work_of(job_id)
        return self._supply.mend(workflow, corrupt=error.code == CORRUPT)

    async def _restart(self, engine: Engine) -> None:
        self.spoilt += 1
        await engine.restart()

    async def _once_more(self, job_id: str, error: JobError, engine: Engine) -> None:
        """Try a second time, and no third."""
        job = self._ledger.live(job_id)
        if job is not None and job.attempt == 1:
            await self._try_again(job_id, error, engine)
        else:
            await self.fail(job_id, error)

    async def _try_again(self, job_id: str, error: JobError, engine: Engine) -> None:
        job = self._ledger.live(job_id)
        if job is None:
            return
        if job.status is Status.CANCELING:
            await self._ledger.insist(job_id, Canceled(now()))
        elif job.attempt >= self._max_attempts:
            if error.code == "engine_lost" and engine.killed_by_kernel():
                error = host_memory()
            await self.fail(job_id, error)
        else:
            log.warning("%s: %s; trying again", job_id, error.message)
            await self._again(job_id, Requeued())

    async def _again(self, job_id: str, change: Change) -> None:
        job = self._ledger.live(job_id)
        if job is not None and job.status is Status.RUNNING:
            job = await self._ledger.insist(job_id, change)
        if job is not None and job.status is Status.QUEUED:
            await self.admit(job_id)
            self._waiting.put_first(job_id)
        elif job is not None and job.status is Status.CANCELING:
            await self._ledger.insist(job_id, Canceled(now()))

    async def fail(self, job_id: str, error: JobError) -> None:
        """End a job that cannot be had; one that was being canceled is canceled."""
        job = self._ledger.live(job_id)
        if job is not None and job.status is Status.CANCELING:
            await self._ledger.insist(job_id, Canceled(now()))
        else:
            await self._ledger.insist(job_id, Failed(error, now()))
