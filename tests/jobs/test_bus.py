import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

from common.job import Job, Status
from common.jobs.bus import KEPT, Bus, Frame, Still

AT = datetime(2026, 1, 2, tzinfo=UTC)


def frame(version, terminal=False, render=str):
    status = Status.SUCCEEDED if terminal else Status.RUNNING
    job = Job("j", "fastwan", "comfyui", {}, AT, version=version, status=status)
    return Frame(job, render)


async def seen(bus, after=None):
    return [item async for item in bus.watch("j", after)]


async def test_a_watcher_gets_the_present_and_each_change_to_the_end():
    """And is done after the terminal one."""
    bus = Bus()
    bus.publish("j", frame(4))
    watcher = asyncio.create_task(seen(bus))
    await asyncio.sleep(0)
    assert bus.watchers() == 1
    for version in (5, 6, 7):
        bus.publish("j", frame(version, terminal=version == 7))

    assert [f.version for f in await watcher] == [4, 5, 6, 7]
    assert bus.watchers() == 0


async def test_a_reconnect_gets_what_it_missed_and_nothing_twice():
    """After version 5 come 6 and 7; after 7, only what is new."""
    bus = Bus()
    for version in (4, 5, 6, 7):
        bus.publish("j", frame(version))
    behind = asyncio.create_task(seen(bus, after=5))
    level = asyncio.create_task(seen(bus, after=7))
    await asyncio.sleep(0)
    bus.publish("j", frame(8, terminal=True))

    assert [f.version for f in await behind] == [6, 7, 8]
    assert [f.version for f in await level] == [8]


async def test_one_that_missed_too_much_gets_what_is_kept():
    """Memory is bounded; each frame is the whole job, so nothing is lost."""
    bus = Bus()
    for version in range(1, KEPT + 50):
        bus.publish("j", frame(version))
    watcher = asyncio.create_task(seen(bus, after=1))
    await asyncio.sleep(0)
    bus.publish("j", frame(KEPT + 50, terminal=True))
    versions = [f.version for f in await watcher]

    assert versions == sorted(versions)
    assert versions[-1] == KEPT + 50
    assert len(versions) <= KEPT + 1


async def test_a_watcher_that_stops_reading_holds_nobody_up():
    """The others are sent everything, and its topic keeps no more than before."""
    bus = Bus()
    bus.publish("j", frame(1))
    async with aclosing(bus.watch("j")) as stuck:
        await anext(stuck)
        others = [asyncio.create_task(seen(bus)) for _ in range(20)]
        await asyncio.sleep(0)
        for version in range(2, 1000):
            bus.publish("j", frame(version))
        bus.publish("j", frame(1000, terminal=True))

        for other in others:
            assert (await other)[-1].version == 1000


async def test_previews_come_between_and_only_the_newest():
    """A still has a number, so that a page fetches each once."""
    bus = Bus()
    bus.publish("j", frame(1))
    bus.show("j", b"old", "image/jpeg")
    bus.show("j", b"new", "image/png")
    watcher = asyncio.create_task(seen(bus))
    await asyncio.sleep(0)
    assert bus.preview("j") == (b"new", "image/png")
    bus.publish("j", frame(2, terminal=True))

    first, still, last = await watcher
    assert (first.version, still, last.version) == (1, Still(2), 2)
    assert bus.preview("j") is None


async def test_a_job_that_is_over_has_no_topic():
    """The store answers for it."""
    bus = Bus()
    bus.publish("j", frame(1, terminal=True))

    assert await seen(bus) == []
    bus.show("j", b"late", "image/png")
    assert bus.preview("j") is None


def test_a_change_is_rendered_once_and_only_if_read():
    """However many watch."""
    rendered = []
    one = frame(1, render=lambda job: rendered.append(job) or "text")
    assert rendered == []

    assert one.data == one.data == "text"
    assert len(rendered) == 1
