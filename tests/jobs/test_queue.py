import asyncio

from common.jobs.queue import Waiting


def queue(*jobs):
    waiting = Waiting()
    for job_id, priority in jobs:
        waiting.put(job_id, priority)
    return waiting


def test_jobs_go_by_priority_and_then_by_arrival():
    """1 before 5; equals in the order they came."""
    waiting = queue(("a", 3), ("b", 5), ("c", 3), ("d", 1))

    assert waiting.ids() == ["d", "a", "c", "b"]
    assert [waiting.position(j) for j in "dacb"] == [0, 1, 2, 3]
    assert waiting.position("x") is None


def test_what_ran_already_goes_first():
    """Jobs taken up after a restart keep their own order before all others."""
    waiting = queue(("a", 1))
    waiting.put_first("b")
    waiting.put_first("c")

    assert waiting.ids() == ["b", "c", "a"]


def test_a_job_can_leave():
    """And only once."""
    waiting = queue(("a", 3), ("b", 3))

    assert waiting.remove("a")
    assert not waiting.remove("a")
    assert len(waiting) == 1


async def test_others_go_before_a_parked_job():
    """It keeps its place and is taken as soon as it is released."""
    waiting = queue(("a", 1), ("b", 3))
    waiting.park("a")

    assert await waiting.next() == "b"
    assert (waiting.position("a"), waiting.parked()) == (0, ["a"])
    later = asyncio.create_task(waiting.next())
    await asyncio.sleep(0)
    assert not later.done()
    waiting.release("a")
    assert await later == "a"
    assert waiting.parked() == []


async def test_two_slots_never_get_the_same_job():
    """Who waits is woken when one comes, and each job is handed out once."""
    waiting = Waiting()
    slots = [asyncio.create_task(waiting.next()) for _ in range(3)]
    await asyncio.sleep(0)
    for job_id in "abc":
        waiting.put(job_id, 3)

    assert sorted(await asyncio.gather(*slots)) == ["a", "b", "c"]
    assert len(waiting) == 0
