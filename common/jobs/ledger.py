"""
The one place where a job changes: decide (pure), commit, publish.

Jobs that are not over are held in memory, so that a poll or a progress step costs no
query. What was answered or published is on disk before; progress alone is not, since
it can be told again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from common.errors import NotFound, ServiceError
from common.job import (
    Advanced,
    Change,
    Held,
    IllegalMove,
    Job,
    Moved,
    Progress,
    Status,
)
from common.jobs.bus import Bus, Frame, Still
from common.jobs.queue import Waiting
from common.jobs.store import Accepted, Store
from common.jobs.view import view
from common.request import MediaInput
from common.workflow import Workflow

log = logging.getLogger(__name__)

# Progress since the last commit is lost with the process, and so are the versions it
# used. A run makes some hundred; a restart skips more than any can have made.
VERSIONS_SKIPPED = 1 << 16


T = TypeVar("T")
REMEMBERED = 256  # a few kB each


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass
class _Live:
    job: Job
    owner: str
    work: tuple[Workflow, tuple[MediaInput, ...]] | None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Ledger:
    """The jobs of this service."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        waiting: Waiting,
        retention_s: float,
        observe: Callable[[Job], None] = lambda job: None,
        root: str = "",
    ) -> None:
        self.store = store
        self.bus = bus
        self.waiting = waiting
        self._retention_s = retention_s
        self._observe = observe
        self._root = root
        self._live: dict[str, _Live] = {}
        self._over: OrderedDict[str, _Live] = OrderedDict()  #: the newest that ended

    async def recover(self) -> list[Job]:
        """Take up the jobs that an earlier process left open, oldest first."""
        found = []
        for owner, job in await self.store.open_jobs():
            job = replace(job, version=job.version + VERSIONS_SKIPPED)
            self._live[job.id] = _Live(job, owner, None)
            self._publish(job)
            found.append(job)
        return found

    async def add(self, accepted: Accepted) -> Job:
        """Commit a new job; return an earlier one if the key was used for it."""
        job = await self.store.add(accepted)
        if job.id == accepted.job.id:
            work = (accepted.workflow, accepted.media)
            self._live[job.id] = _Live(job, accepted.owner, work)
            self._publish(job)
        return job

    async def get(self, job_id: str, owner: str) -> Job:
        """
        Return a job of `owner` as it stands.

        Raises:
            NotFound: there is none, or it is another's: the same words for both.
        """
        live = self._live.get(job_id) or self._over.get(job_id)
        if live is not None:
            job = live.job if live.owner == owner else None
        else:
            job = await self.store.get(job_id, owner)
        if job is None:
            raise NotFound(f"there is no job {job_id[:64]}")
        return job

    def live(self, job_id: str) -> Job | None:
        """Return a job that is not over."""
        live = self._live.get(job_id)
        return live.job if live else None

    def open_ids(self) -> list[str]:
        """Return the ids of the jobs that are not over."""
        return list(self._live)

    def current(self, job: Job) -> Job:
        """Return what memory knows of a job that was read from the store."""
        known = self._live.get(job.id) or self._over.get(job.id)
        return known.job if known else job

    async def latest(self, job: Job) -> Job:
        """Return a job as it stands now."""
        known = self.current(job)
        if known is not job or job.status.terminal:
            return known
        return await self.store.get(job.id) or job

    async def work_of(self, job_id: str) -> tuple[Workflow, tuple[MediaInput, ...]]:
        """Return the job's own copy of its workflow, and the files it needs."""
        live = self._live[job_id]
        if live.work is None:
            live.work = await _persist(job_id, lambda: self.store.work_of(job_id))
        workflow, media = live.work
        return workflow.copy(), media

    async def change(self, job_id: str, change: Change) -> Job:
        """
        Change a job, commit, and tell its watchers.

        Raises:
            IllegalMove: it is over, or the change does not fit its status.
            ServiceError: the store did not take it; the job stays as it was.
        """
        live = self._live.get(job_id)
        if live is None:
            raise IllegalMove("the job is over")
        async with live.lock:
            if job_id not in self._live:
                raise IllegalMove("the job is over")
            job = live.job.after(change)
            await self.store.save(job)
            live.job = job
            if job.status.terminal:
                self._retire(self._live.pop(job_id))
                self._observe(job)
            self._publish(job)
        _log_change(job)
        return job

    async def insist(self, job_id: str, change: Change) -> Job | None:
        """
        Change a job although the store may be away: try until it takes it.

        For what has happened and cannot be taken back. None when the job is over.
        """
        with suppress(IllegalMove):
            return await _persist(job_id, lambda: self.change(job_id, change))
        return None

    def advance(self, job_id: str, progress: Progress) -> None:
        """Tell watchers how far a run is; not committed."""
        live = self._live.get(job_id)
        # While a change is being committed its version is taken: this step is skipped.
        if live is None or live.lock.locked() or live.job.progress == progress:
            return
        live.job = live.job.after(Advanced(progress))
        self._publish(live.job)

    def hold(self, job_ids: Iterable[str], progress: Progress) -> None:
        """Tell waiting jobs what they wait for; not committed."""
        for job_id in job_ids:
            live = self._live.get(job_id)
            if (
                live
                and live.job.status is Status.QUEUED
                and live.job.progress != progress
                and not live.lock.locked()
            ):
                live.job = live.job.after(Held(progress))
                self._publish(live.job)

    def queue_moved(self) -> None:
        """Tell those who watch waiting jobs their new place."""
        for job_id in self.waiting.ids():
            live = self._live.get(job_id)
            if live and self.bus.watched(job_id) and not live.lock.locked():
                live.job = live.job.after(Moved())
                self._publish(live.job)

    def forget(self, job_ids: list[str]) -> None:
        """Drop jobs whose rows are gone."""
        for job_id in job_ids:
            self._live.pop(job_id, None)
            self._over.pop(job_id, None)

    def view(self, job: Job) -> dict[str, Any]:
        """Return a job as callers see it."""
        position = self.waiting.position(job.id)
        return view(job, position, self._retention_s, self._root)

    def frame(self, job: Job) -> Frame:
        """Return a job as watchers are sent it."""
        return Frame(job, self._render)

    def _render(self, job: Job) -> str:
        return json.dumps(self.view(job), ensure_ascii=False, separators=(",", ":"))

    async def watch(
        self, job: Job, after: int | None = None
    ) -> AsyncIterator[Frame | Still | None]:
        """Yield the job as it stands and after each change, until it is over."""
        if job.id in self._live:
            async for seen in self.bus.watch(job.id, after):
                yield seen
        else:
            yield self.frame(await self.latest(job))

    def _publish(self, job: Job) -> None:
        self.bus.publish(job.id, self.frame(job))

    def _retire(self, live: _Live) -> None:
        """Remember a job that ended: its watchers come for the file right away."""
        live.work = None
        self._over[live.job.id] = live
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)


async def _persist(job_id: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers."""
    pause_s = 0.2
    while True:
        try:
            return await ask()
        except ServiceError as error:
            log.warning("%s: %s; trying again", job_id, error.detail)
            await asyncio.sleep(pause_s)
            pause_s = min(5.0, pause_s * 2)


def _log_change(job: Job) -> None:
    error = f" {job.error.code}: {job.error.message}" if job.error else ""
    attempt = f" (attempt {job.attempt})" if job.attempt > 1 else ""
    log.info("%s %s%s%s", job.id, job.status.value, attempt, error)
