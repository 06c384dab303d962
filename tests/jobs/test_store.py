"""The store: what it keeps of jobs and keys is what was accepted."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from common.errors import IdempotencyConflict
from common.job import Failed, JobError, Started, Status
from common.jobs.store import Key
from common.jobs.uploads import Upload
from tests.jobs.conftest import AT, GRAPH, accepted

LATE = JobError("timeout", "late")


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
    assert await store.ended_before(AT.timestamp() + 1) == [over.id]


async def test_forgetting_a_job_takes_its_keys_and_own_uploads(store):
    """An upload that a caller made by hand stays."""
    own = Upload("u-own", "image", "image/png", 3, 1, 1)
    kept = Upload("u-kept", "image", "image/png", 3, 1, 1)
    one = accepted(key=Key("k", "f"), uploads=(own,))
    await store.add(one)
    await store.uploads.add(kept, "")

    assert await store.forget([one.job.id]) == ["u-own"]

    assert await store.known_ids() == (set(), {"u-kept"})
    assert await store.by_key("", Key("k", "f")) is None
    assert await store.uploads.get("u-kept", "") == kept
    assert await store.uploads.get("u-kept", "you") is None
