"""
One database, and where its statements run.

A statement is a plain function of a SQLAlchemy connection. SQLite is called from
threads of our own: through an asyncio driver each commit is some six hops between
threads, which took 0.50 ms instead of 0.23, and on a busy machine 4.0 instead of 0.24.
A server is spoken to from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    make_url,
    select,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Work = Callable[[Connection], T]

READERS = 2
CLAIM = 0x77616E  # any number, so long as it stays the same


class Database(Protocol):
    """Runs functions in transactions; what they raise comes out."""

    async def read(self, work: Work[T]) -> T:
        """Run a function that only reads."""

    async def write(self, work: Work[T]) -> T:
        """Run a function and commit; nothing is kept when it raises."""

    async def claim(self) -> None:
        """
        Keep other services out until we are closed, or dead.

        Raises:
            InUse: another has it.
        """

    async def aclose(self) -> None:
        """Close every connection."""


class InUse(Exception):
    """Another service works with this database."""


def connect(url: str) -> Database:
    """Return the database at a SQLAlchemy URL; whatever the driver for SQLite."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return File(parsed.set(drivername="sqlite"))
    return Server(parsed)


class File:
    """A SQLite file: one thread that writes, some that read."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        event.listen(self._engine, "connect", _make_durable)
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._readers = ThreadPoolExecutor(READERS, "store-read")

    async def read(self, work: Work[T]) -> T:
        """Run it in a thread that reads."""
        return await self._run(self._readers, self._engine, work)

    async def write(self, work: Work[T]) -> T:
        """Run it in the thread that writes."""
        return await self._run(self._writer, self._engine, work)

    async def claim(self) -> None:
        """Do nothing: the lock on the data folder covers what lies in it."""

    async def aclose(self) -> None:
        """Wait for the threads and close the file."""
        for threads in (self._writer, self._readers):
            await asyncio.to_thread(threads.shutdown)
        self._engine.dispose()

    @staticmethod
    async def _run(threads: ThreadPoolExecutor, engine: Engine, work: Work[T]) -> T:
        def call() -> T:
            with engine.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(threads, call)


class Server:
    """PostgreSQL."""

    def __init__(self, url: URL) -> None:
        # It loads SQLAlchemy's ORM: a fifth of our start, which SQLite does not need.
        from sqlalchemy.ext.asyncio import create_async_engine

        self._engine = create_async_engine(url, pool_size=5, pool_pre_ping=True)
        self._claim: AsyncConnection | None = None

    async def read(self, work: Work[T]) -> T:
        """Run it on a connection of the pool."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Work[T]) -> T:
        """Run it in a transaction."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def claim(self) -> None:
        """Hold an advisory lock; the server frees it when our connection ends."""
        connection = await self._engine.connect()
        taken = await connection.scalar(select(func.pg_try_advisory_lock(CLAIM)))
        if not taken:
            await connection.close()
            raise InUse(
                "another service works with this database: stop it, or give each"
                " service a database of its own"
            )
        await connection.commit()
        self._claim = connection

    async def aclose(self) -> None:
        """Close the pool."""
        if self._claim is not None:
            await self._claim.invalidate()  # closed for good, so the lock is free
            await self._claim.close()
        await self._engine.dispose()


def _make_durable(connection: Any, _record: object) -> None:
    """Make a commit mean that it is on the disk."""
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # NORMAL may lose an acknowledged job on power loss
        "busy_timeout=5000",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
