"""
What is past its time goes: jobs with their files, uploads, keys, orphaned files.

Also watches the disk, so that jobs are refused before a full disk breaks them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from common.errors import ServiceError
from common.job import Expired, IllegalMove, Status
from common.jobs.files import Files
from common.jobs.ledger import Ledger, now
from common.jobs.store import Store

log = logging.getLogger(__name__)

EVERY_S = 600.0
ORPHAN_AGE_S = 3600.0  # a file is minutes old at most when its row is committed


class Janitor:
    """Cleans one service's data."""

    def __init__(
        self, store: Store, ledger: Ledger, files: Files, retention_s: float
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._files = files
        self._retention_s = retention_s

    async def work(self) -> None:
        """Clean now and then, for ever."""
        while True:
            try:
                await self.clean()
            except (ServiceError, OSError):
                log.exception("cleaning failed; trying again in %.0f s", EVERY_S)
            await asyncio.sleep(EVERY_S)

    async def clean(self) -> int:
        """Remove what is due; return how many jobs went."""
        removed = 0
        await self._store.forget_keys()
        if self._retention_s:
            limit = now().timestamp() - self._retention_s
            await self._expire_waiting()
            while due := await self._store.ended_before(limit):
                await self.remove(due)
                removed += len(due)
            gone = await self._store.uploads.forget(limit)
            await asyncio.to_thread(self._files.forget, (), gone)
        jobs, uploads = await self._store.known_ids()
        orphans = await asyncio.to_thread(
            self._files.sweep, jobs, uploads, ORPHAN_AGE_S
        )
        if removed or orphans:
            log.info("removed %d old jobs and %d orphaned files", removed, orphans)
        return removed

    async def remove(self, job_ids: list[str]) -> None:
        """Remove jobs that are over: rows first, so that no row lacks its files."""
        gone = await self._store.forget(job_ids)
        self._ledger.forget(job_ids)
        await asyncio.to_thread(self._files.forget, job_ids, gone)

    async def _expire_waiting(self) -> None:
        limit = now() - timedelta(seconds=self._retention_s)
        for job_id in self._ledger.waiting.ids():
            job = self._ledger.live(job_id)
            if job and job.status is Status.QUEUED and job.created_at < limit:
                with suppress(IllegalMove):  # it ended by itself
                    await self._ledger.change(job_id, Expired(now()))
                    self._ledger.waiting.remove(job_id)
