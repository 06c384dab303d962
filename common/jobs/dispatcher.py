"""
Who runs which job, and when.

One slot per engine: ComfyUI gets one job at a time, and order, priority, cancel and
limits stay ours. While the finished video of one job is collected, the slot
gives ComfyUI the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from common.comfy import Absent, EngineUnreachable, Finished, State
from common.errors import ServiceError
from common.job import (
    CancelAsked,
    Canceled,
    Deferred,
    Job,
    Started,
    Status,
)
from common.jobs.collector import Collector
from common.jobs.engine import Engine
from common.jobs.ledger import Ledger, now
from common.jobs.outcome import (
    Broken,
    Lost,
    Outcome,
    Postponed,
    Stopped,
    internal,
    lost_in_restart,
)
from common.jobs.queue import Waiting
from common.jobs.runner import Ran, Runner
from common.jobs.settlement import Settlement
from common.jobs.supply import Supply

log = logging.getLogger(__name__)

READY_POLL_S = 30.0


class Dispatcher:
    """Keeps every engine busy as long as jobs wait."""

    def __init__(
        self,
        ledger: Ledger,
        waiting: Waiting,
        runner: Runner,
        collector: Collector,
        engines: list[Engine],
        max_attempts: int,
        supply: Supply | None = None,
    ) -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._runner = runner
        self._collector = collector
        self._engines = engines
        self._settlement = Settlement(ledger, waiting, collector, max_attempts, supply)
        self._slots: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._rests: set[asyncio.Task[None]] = set()  #: engines'; no drain waits
        self._busy: set[str] = set()  #: jobs that a slot runs
        self._recovered: set[str] = set()  #: may be in an engine from before
        self.draining = False

    @property
    def alive(self) -> bool:
        """Whether every slot works."""
        return bool(self._slots) and not any(slot.done() for slot in self._slots)

    @property
    def busy(self) -> int:
        """How many jobs run now."""
        return len(self._busy)

    @property
    def spoilt(self) -> int:
        """How often an engine's process had to be given up."""
        return self._settlement.spoilt

    async def start(self) -> None:
        """Take up what an earlier process left, and begin to run jobs."""
        for job in await self._ledger.recover():
            self._recovered.add(job.id)
            if job.status is Status.QUEUED:
                self._waiting.put(job.id, job.priority)
                await self._settlement.admit(job.id, job.mended)
            else:
                self._waiting.put_first(job.id)
        self._slots = [
            asyncio.create_task(self._serve(engine), name=f"slot {engine.comfy.url}")
            for engine in self._engines
        ]

    async def drain(self, grace_s: float) -> None:
        """
        Stop taking jobs, and give the running ones `grace_s` to finish.

        What is not over by then stays open in the store, and the next process adopts
        it from ComfyUI or runs it again.
        """
        self.draining = True
        end = asyncio.get_running_loop().time() + grace_s
        while self._busy or self._tasks:
            if asyncio.get_running_loop().time() > end:
                log.warning("%d jobs are left for the next start", len(self._busy))
                return
            await asyncio.sleep(0.05)

    async def aclose(self) -> None:
        """Stop every slot at once. An engine of ours goes too: its job was not run."""
        tasks = [*self._slots, *self._tasks, *self._rests]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if all(engine.ours for engine in self._engines):
            for job_id in self._ledger.open_ids():
                job = self._ledger.live(job_id)
                if job is not None and job.status is Status.RUNNING:
                    with suppress(ServiceError):  # then the attempt counts
                        await self._ledger.change(job_id, Deferred())

    async def cancel(self, job: Job) -> Job:
        """Cancel a job that is not over; returns it as it stands then."""
        changed = await self._ledger.change(job.id, CancelAsked(now()))
        self._waiting.remove(job.id)
        if changed.status is Status.CANCELING:
            self._spawn(self._cancel_run(changed))
        else:
            self._ledger.queue_moved()
        return changed

    async def _cancel_run(self, job: Job) -> None:
        """Tell the run; a job between attempts, or not adopted yet, has none."""
        if await self._runner.cancel(job.id) or job.id in self._busy:
            return
        for engine in self._engines:
            with suppress(EngineUnreachable):
                await engine.comfy.cancel(job.prompt_id)
        await self._ledger.insist(job.id, Canceled(now()))

    async def _serve(self, engine: Engine) -> None:
        """Run jobs on one engine for ever."""
        while True:
            if not await self._ready(engine):
                continue
            job_id = await self._waiting.next()
            if self.draining or engine.resting or not engine.comfy.reachable:
                self._waiting.put_first(job_id)
                await asyncio.sleep(0.05)
                continue
            job = self._ledger.live(job_id)
            if job is None:
                continue
            self._busy.add(job_id)
            try:
                home, outcome = await self._attempt(job, engine)
                if isinstance(outcome, Ran):
                    self._spawn(self._conclude(job_id, outcome, home))
                    continue  # busy until that is done
                self._rest_after(outcome, home, job)
                await self._settlement.settle(job_id, outcome, home)
            except Exception as error:
                log.exception("%s: the slot failed", job_id)
                outcome = None
                await self._settlement.fail(job_id, internal(error))
            finally:
                self._ledger.queue_moved()
            self._busy.discard(job_id)
            if isinstance(outcome, Postponed):
                await asyncio.sleep(0.5)

    async def _ready(self, engine: Engine) -> bool:
        if self.draining or engine.resting:
            await asyncio.sleep(0.05)
            return False
        if engine.comfy.socket_alive:
            return True
        try:
            await engine.comfy.wait_until_ready(READY_POLL_S)
        except EngineUnreachable:
            return False
        return True

    async def _attempt(self, job: Job, engine: Engine) -> tuple[Engine, Outcome | Ran]:
        """Run a job, or adopt one from before a restart; also say which engine's."""
        if job.id in self._recovered:
            if published := await self._collector.find(job):
                self._recovered.discard(job.id)
                return engine, published
            home = await self._home(job, engine)
            self._recovered.discard(job.id)
            if home is not None:
                log.info("%s is adopted from %s", job.id, home.comfy.url)
                return home, await self._adopt(job, home)
            if job.status is Status.CANCELING:
                return engine, Stopped()
            if job.status is Status.RUNNING:
                return engine, Lost(lost_in_restart())
        return engine, await self._runner.run(job, engine.comfy)

    def _rest_after(self, outcome: Outcome, engine: Engine, job: Job) -> None:
        """Give an engine that needs a restart, and not from us, no job meanwhile."""
        needed = isinstance(outcome, Lost | Broken) and outcome.restart
        if needed and not engine.ours and not engine.resting:
            engine.resting = True
            rest = asyncio.create_task(self._rest(engine, job.prompt_id))
            self._rests.add(rest)
            rest.add_done_callback(self._rests.discard)

    async def _rest(self, engine: Engine, prompt_id: str) -> None:
        """
        Let it rest until it says something else of the prompt that it hangs at.

        A queue that moves does, and so does a restart, after which it knows no prompt.
        One that is done with the prompt does not hang.
        """
        seen: type[State] | None = None
        try:
            async with asyncio.timeout(self._runner.limits.rest_s):
                while seen not in (Absent, Finished):
                    with suppress(EngineUnreachable):
                        found = type(await engine.comfy.state(prompt_id))
                        if seen not in (None, found):
                            await engine.comfy.cancel(prompt_id)  # nobody wants it now
                            return
                        seen = found
                    await asyncio.sleep(self._runner.limits.poll_s)
        except TimeoutError:
            log.warning("%s is given a job although it was ill", engine.comfy.url)
        finally:
            engine.resting = False

    async def _adopt(self, job: Job, engine: Engine) -> Outcome | Ran:
        if job.status is Status.QUEUED:  # the process died before it said so
            await self._ledger.insist(job.id, Started(now()))
        return await self._runner.run(job, engine.comfy, adopt=True)

    async def _home(self, job: Job, engine: Engine) -> Engine | None:
        """
        Return the engine that knows this attempt, asking the slot's own first.

        One that does not answer may have it: a run is not called lost before its time.
        """
        limits = self._runner.limits
        end = asyncio.get_running_loop().time() + limits.home_s
        while True:
            unknown = False
            for candidate in sorted(self._engines, key=lambda e: e is not engine):
                try:
                    state = await candidate.comfy.state(job.prompt_id)
                except EngineUnreachable:
                    unknown = True
                    continue
                if not isinstance(state, Absent):
                    return candidate
            live = self._ledger.live(job.id)
            running = live is not None and live.status is Status.RUNNING
            if not (unknown and running) or asyncio.get_running_loop().time() > end:
                return None
            await asyncio.sleep(min(0.5, limits.poll_s))

    async def _conclude(self, job_id: str, ran: Ran, engine: Engine) -> None:
        """Finish a job whose slot has gone on to the next."""
        try:
            job, told = ran.run.job, ran.told
            async with self._collector.ahead(job, told, engine) as confirmed:
                outcome = await confirmed(await self._runner.conclude(ran))
            await self._settlement.settle(job_id, outcome, engine)
        except Exception as error:
            log.exception("%s: the end failed", job_id)
            await self._settlement.fail(job_id, internal(error))
        finally:
            self._busy.discard(job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
