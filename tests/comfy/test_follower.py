"""A follower keeps everything that matters, and little of what does not."""

import asyncio

from common.comfy.follower import MAX_PENDING, Follower, SocketLost
from common.events import Ended, Executing, NodeStates, Preview, Progress, Started


async def test_in_order():
    """Events come out as they went in, and then silence is None."""
    follower = Follower()
    for event in (Started(), Executing("3"), Ended()):
        follower.put(event)

    heard = [await follower.next(1) for _ in range(3)]

    assert heard == [Started(), Executing("3"), Ended()]
    assert await follower.next(0.01) is None


async def test_waits():
    """One that listens first hears at once."""
    follower = Follower()
    waiting = asyncio.create_task(follower.next(5))
    await asyncio.sleep(0)

    follower.put(Started())

    assert await waiting == Started()


async def test_slow_consumer():
    """Who lags gets the newest progress of each node, and every other event."""
    follower = Follower()
    follower.put(Started())
    for node in ("high", "low"):
        follower.put(Executing(node))
        for step in range(1, 1001):
            follower.put(Progress(node, step, 1000))
            follower.put(Preview(str(step).encode(), "image/jpeg"))
            follower.put(NodeStates(frozenset(), ()))
    follower.put(Ended())

    heard = []
    while (event := await follower.next(0.01)) is not None:
        heard.append(event)

    assert heard == [
        Started(),
        Executing("high"),
        Progress("high", 1000, 1000),
        Preview(b"1000", "image/jpeg"),
        NodeStates(frozenset(), ()),
        Executing("low"),
        Progress("low", 1000, 1000),
        Ended(),
    ]


async def test_bounded():
    """A flood of what may not be dropped becomes one SocketLost: ask history."""
    follower = Follower()
    for _ in range(MAX_PENDING + 1):
        follower.put(Executing("3"))

    assert await follower.next(1) == SocketLost()
    assert await follower.next(0.01) is None
