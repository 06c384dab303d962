"""Commits: durable, shared, and refused by a database that cannot take them."""

import asyncio
import sqlite3

import pytest

from common.errors import StoreUnavailable
from common.job import Job
from common.jobs.commits import Unusable
from common.jobs.store import Store
from tests.jobs.conftest import accepted, address


async def test_what_was_accepted_is_there_after_a_restart(tmp_path, clock):
    """The file is opened again as it is."""
    one = accepted()
    first = Store(address(tmp_path), clock)
    await first.open()
    await first.add(one)
    await first.aclose()

    second = Store(address(tmp_path), clock)
    await second.open()
    found = await second.get(one.job.id)
    await second.aclose()

    assert found == one.job


async def test_commits_are_durable(tmp_path, clock):
    """Write-ahead log, and a flush for each commit."""
    store = Store(address(tmp_path), clock)
    await store.open()

    def settings(connection):
        return [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await store._database.write(settings) == ["wal", 2, 1]
    await store.aclose()


async def test_a_failing_write_does_not_take_its_neighbours_along(store):
    """Writes share a commit; one that is refused is refused alone."""
    good, twice = accepted(), accepted()
    results = await asyncio.gather(
        store.add(good), store.add(twice), store.add(twice), return_exceptions=True
    )

    assert [isinstance(r, Job) for r in results] == [True, True, False]
    assert len((await store.page("")).jobs) == 2


async def test_a_damaged_database_is_refused_and_left_alone(tmp_path, clock):
    """It is never silently replaced by a new one."""
    store = Store(address(tmp_path), clock)
    await store.open()
    for _ in range(50):
        await store.add(accepted())
    await store.aclose()
    path = tmp_path / "jobs.sqlite3"
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)

    with pytest.raises(Unusable, match="cannot be opened"):
        await Store(address(tmp_path), clock).open()
    assert path.read_bytes() == data


async def test_a_database_of_a_newer_release_is_refused(tmp_path, clock):
    """With what to do about it, and untouched."""
    store = Store(address(tmp_path), clock)
    await store.open()
    await store.aclose()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        connection.execute("UPDATE wan_schema SET version = 99")
    connection.close()

    with pytest.raises(Unusable, match="schema 99"):
        await Store(address(tmp_path), clock).open()


async def test_a_locked_database_is_said_to_be_unavailable(clock, tmp_path):
    """After the busy time-out; and it recovers when the lock goes."""
    store = Store(address(tmp_path), clock)
    await store.open()
    await store._database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=50")
    )
    holder = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreUnavailable):
            await store.add(accepted())
    finally:
        holder.execute("ROLLBACK")
        holder.close()

    assert await store.add(accepted())
    await store.aclose()


async def test_a_server_s_database_serves_one_service(new_database, clock):
    """The second is refused, until the first is gone."""
    url = await new_database()
    first, second = Store(url, clock), Store(url, clock)
    await first.open()
    with pytest.raises(Unusable, match="another service"):
        await second.open()
    await first.aclose()

    third = Store(url, clock)
    await third.open()
    await third.aclose()
