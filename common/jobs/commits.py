"""
Reads and writes of the store, in the order they came.

A write returns after its commit is on disk (SQLite: WAL, synchronous=FULL). Writes that
wait together share one commit, so that a burst costs one fsync and not one each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, RowMapping, Select, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from common.errors import NoSpace, ServiceError, StoreUnavailable
from common.jobs.database import Database, InUse, Work
from common.jobs.tables import NewerSchema, upgrade

T = TypeVar("T")
BATCH = 64  # writes in one transaction


class Unusable(Exception):
    """The database cannot be opened; the message says why and what to do."""


class Damaged(Exception):
    """The database file has broken pages."""


@dataclass
class _Write:
    work: Work[Any]
    done: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Commits:
    """One database, with one writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes: asyncio.Queue[_Write] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Check the database, bring it up to date and start the writer.

        Raises:
            Unusable: it is corrupt, newer than this code, or cannot be reached.
        """
        try:
            await self._database.claim()
            await self._database.write(_prepare)
        except (SQLAlchemyError, NewerSchema, Damaged, InUse, OSError) as error:
            await self._database.aclose()
            said = _cause(error) if isinstance(error, SQLAlchemyError) else str(error)
            raise Unusable(f"the job store cannot be opened: {said}") from error
        self._writer = asyncio.create_task(self._write_for_ever(), name="store writer")

    async def aclose(self) -> None:
        """Finish what was queued and close every connection."""
        if self._writer is not None:
            await self._writes.join()
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._database.aclose()

    async def alive(self) -> bool:
        """Tell whether the database answers."""
        try:
            await self.rows(select(1))
        except ServiceError:
            return False
        return True

    async def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """
        Return what a query finds.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        try:
            return await self._database.read(
                lambda connection: connection.execute(query).mappings().all()
            )
        except SQLAlchemyError as error:
            raise _translated(error) from error

    async def write(self, work: Work[T]) -> T:
        """
        Run `work` in a transaction and return its result once that is committed.

        Raises:
            IntegrityError: what it writes is there already.
            StoreUnavailable: the database does not answer.
            NoSpace: its disk is full.
        """
        write = _Write(work)
        self._writes.put_nowait(write)
        try:
            result: T = await asyncio.shield(write.done)
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise _translated(error) from error
        return result

    async def _write_for_ever(self) -> None:
        while True:
            batch = [await self._writes.get()]
            while not self._writes.empty() and len(batch) < BATCH:
                batch.append(self._writes.get_nowait())
            await self._commit(batch)
            for _ in batch:
                self._writes.task_done()

    async def _commit(self, batch: list[_Write]) -> None:
        """Run a batch in one transaction; if it fails, each in its own."""
        try:
            results = await self._database.write(
                lambda connection: [write.work(connection) for write in batch]
            )
        except Exception as error:  # noqa: BLE001 - goes to who waits for the write
            if len(batch) > 1:
                for write in batch:
                    await self._commit([write])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        for write, result in zip(batch, results, strict=True):
            if not write.done.done():
                write.done.set_result(result)


def _prepare(connection: Connection) -> None:
    """Refuse a file with broken pages before anything is written; then upgrade."""
    if connection.dialect.name == "sqlite":
        verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar()
        if verdict != "ok":
            raise Damaged(
                f"it is damaged ({verdict}); restore a backup, or move the file away"
                " to start with an empty one"
            )
    upgrade(connection)


def _translated(error: SQLAlchemyError) -> ServiceError:
    """Say a database's trouble in our own terms."""
    cause = _cause(error)
    if "disk is full" in cause or "No space left" in cause or "DiskFull" in cause:
        return NoSpace("the disk of the job store is full", retry_after_s=30)
    return StoreUnavailable("the job store does not answer", retry_after_s=5)


def _cause(error: SQLAlchemyError) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
