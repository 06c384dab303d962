"""The order of waiting jobs: by priority, then by acceptance. In memory; no I/O."""

from __future__ import annotations

import asyncio
from bisect import insort
from itertools import count


class Waiting:
    """Jobs that wait for a slot."""

    def __init__(self) -> None:
        self._order: list[tuple[int, int, str]] = []
        self._parked: set[str] = set()
        self._numbers = count()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._order)

    def ids(self) -> list[str]:
        """Return the waiting jobs, next one first."""
        return [job_id for _, _, job_id in self._order]

    def put(self, job_id: str, priority: int) -> None:
        """Add a job behind those of its priority."""
        insort(self._order, (priority, next(self._numbers), job_id))
        self._arrived.set()

    def put_first(self, job_id: str) -> None:
        """Add a job before all others: it was running already."""
        insort(self._order, (0, next(self._numbers), job_id))
        self._arrived.set()

    def remove(self, job_id: str) -> bool:
        """Take a job out; return whether it was waiting."""
        for index, (_, _, waiting) in enumerate(self._order):
            if waiting == job_id:
                del self._order[index]
                self._parked.discard(job_id)
                return True
        return False

    def park(self, job_id: str) -> None:
        """Let others go before a job, until `release`; it keeps its place."""
        self._parked.add(job_id)

    def release(self, job_id: str) -> None:
        """Let a parked job be taken again."""
        self._parked.discard(job_id)
        self._arrived.set()

    def parked(self) -> list[str]:
        """Return the waiting jobs that others go before."""
        return [job_id for job_id in self.ids() if job_id in self._parked]

    def position(self, job_id: str) -> int | None:
        """Return how many jobs go before this one, or None when it is not waiting."""
        for index, (_, _, waiting) in enumerate(self._order):
            if waiting == job_id:
                return index
        return None

    async def next(self) -> str:
        """Wait for a job that is not parked, and take it out."""
        while True:
            for index, (_, _, job_id) in enumerate(self._order):
                if job_id not in self._parked:
                    del self._order[index]
                    return job_id
            self._arrived.clear()
            await self._arrived.wait()
