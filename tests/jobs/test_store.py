import asyncio
import sqlite3
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import IdempotencyConflict, StoreUnavailable
from common.job import Failed, Job, JobError, Started, Status
from common.jobs.store import Accepted, Key, Store, Unusable, Upload
from common.request import MediaInput
from common.workflow import Workflow

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE = JobError("timeout", "late")
GRAPH = Workflow({"1": {"class_type": "Any", "inputs": {"text": "狐"}}})


class Clock:
    def __init__(self):
        self.time = AT

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request, tmp_path, clock):
    """Open an empty store, on either kind of database."""
    url = address(tmp_path)
    if request.param == "postgresql":
        url = await request.getfixturevalue("new_database")()
    store = Store(url, clock)
    await store.open()
    yield store
    await store.aclose()


def address(folder):
    return f"sqlite:///{folder / 'jobs.sqlite3'}"


def accepted(owner="", key=None, uploads=(), **changes):
    job = Job(str(uuid.uuid4()), "fastwan", "comfyui", {"prompt": "狐"}, AT)
    media = (MediaInput("image", "u1", "First", "image"),)
    return Accepted(replace(job, **changes), GRAPH, media, owner, key, uploads)


async def test_a_job_is_kept_with_its_workflow_and_files(store):
    """What is loaded is what was accepted."""
    one = accepted()
    await store.add(one)

    assert await store.get(one.job.id) == one.job
    assert await store.work_of(one.job.id) == (GRAPH, one.media)
    assert await store.get(str(uuid.uuid4())) is None


async def test_a_job_belongs_to_its_owner(store):
    """Another's job does not exist, in a look-up as in a list."""
    mine, other = accepted("me"), accepted("you")
    for one in (mine, other):
        await store.add(one)

    assert await store.get(mine.job.id, "you") is None
    assert (await store.page("me")).jobs == (mine.job,)


async def test_an_older_state_never_overwrites_a_newer_one(store):
    """Writes that arrive late lose."""
    one = accepted()
    await store.add(one)
    started = one.job.after(Started(AT))
    failed = started.after(Failed(LATE, AT))

    await store.save(failed)
    await store.save(started)

    assert await store.get(one.job.id) == failed


async def test_the_newest_of_a_status_come_first(store):
    """Everybody's, so that an estimate has runs to go by; and no more than asked."""
    jobs = [await store.add(accepted(owner)) for owner in "abcd"]
    for job in jobs[:3]:
        await store.save(job.after(Started(AT, "card")).after(Failed(LATE, AT)))

    newest = await store.newest(Status.FAILED, 2)

    assert [job.id for job in newest] == [jobs[2].id, jobs[1].id]
    assert newest[0].device == "card"
    assert await store.newest(Status.SUCCEEDED, 2) == []


async def test_the_same_key_gives_the_same_job(store):
    """However many at once: one row, one answer."""
    key = Key("k1", "fingerprint")
    many = [accepted(key=key) for _ in range(50)]

    answers = await asyncio.gather(*(store.add(one) for one in many))

    assert len({job.id for job in answers}) == 1
    assert len((await store.page("")).jobs) == 1


async def test_a_key_serves_one_request_only(store):
    """Another request under it is refused; another owner's key is another key."""
    await store.add(accepted(key=Key("k1", "one")))

    with pytest.raises(IdempotencyConflict):
        await store.add(accepted(key=Key("k1", "two")))
    await store.add(accepted("you", key=Key("k1", "two")))

    assert len((await store.page("")).jobs) == 1


async def test_a_key_is_free_again_after_a_day(store, clock):
    """Kept for 24 hours, as documented."""
    key = Key("k1", "one")
    first = await store.add(accepted(key=key))
    clock.time += timedelta(hours=23)
    assert (await store.by_key("", key)).id == first.id

    clock.time += timedelta(hours=2)
    assert await store.by_key("", key) is None
    second = await store.add(accepted(key=Key("k1", "two"), created_at=clock.time))

    assert second.id != first.id


async def test_pages_meet_without_gap_or_overlap(store):
    """Newest first, until there is no cursor."""
    ids = [(await store.add(accepted())).id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = await store.page("", limit=3, before=cursor)
        seen += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == ids[::-1]


async def test_jobs_are_found_by_status(store):
    """One or several statuses; open ones for the next start, oldest first."""
    queued, failed = accepted(), accepted()
    for one in (queued, failed):
        await store.add(one)
    over = failed.job.after(Failed(JobError("timeout", "late"), AT))
    await store.save(over)

    assert (await store.page("", status=[Status.FAILED])).jobs == (over,)
    assert await store.open_jobs() == [("", queued.job)]
    assert await store.counts() == {"queued": 1, "failed": 1}
    assert await store.ended_before(AT.timestamp() + 1) == [over.id]


async def test_forgetting_a_job_takes_its_keys_and_own_uploads(store):
    """An upload that a caller made by hand stays."""
    own = Upload("u-own", "image", "image/png", 3, 1, 1)
    kept = Upload("u-kept", "image", "image/png", 3, 1, 1)
    one = accepted(key=Key("k", "f"), uploads=(own,))
    await store.add(one)
    await store.add_upload(kept, "")

    assert await store.forget([one.job.id]) == ["u-own"]

    assert await store.known_ids() == (set(), {"u-kept"})
    assert await store.by_key("", Key("k", "f")) is None
    assert await store.upload("u-kept", "") == kept
    assert await store.upload("u-kept", "you") is None


async def test_uploads_expire(store, clock):
    """Those that no job brought along, past their time."""
    await store.add_upload(Upload("u", "image", "image/png", 3), "")

    assert await store.forget_uploads(AT.timestamp() - 1) == []
    assert await store.forget_uploads(AT.timestamp() + 1) == ["u"]


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
