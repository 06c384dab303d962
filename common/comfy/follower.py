"""A listener to one prompt's events, with bounded memory however slow it is."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from common.events import Event, NodeStates, Preview, Progress

MAX_PENDING = 10_000  #: a workflow has some dozens of nodes, with few events each


@dataclass(frozen=True)
class SocketLost:
    """
    Events may be missing from here on: ask `Comfy.state` how the prompt stands.

    Said once for each loss; events may or may not come again.
    """


class Follower:
    """Hands out the events of one prompt in order."""

    def __init__(self) -> None:
        self._pending: OrderedDict[object, Event | SocketLost] = OrderedDict()
        self._wake = asyncio.Event()

    async def next(self, timeout_s: float) -> Event | SocketLost | None:
        """Return the next event, or None when nothing was said for so long."""
        if not self._pending:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        return self._pending.popitem(last=False)[1]

    def put(self, event: Event | SocketLost) -> None:
        """
        Add an event.

        What only says how far a node is replaces its own older word if that still
        waits; everything else is kept.
        """
        if len(self._pending) >= MAX_PENDING:
            self._pending.clear()
            event = SocketLost()
        match event:
            case Progress(node):
                key: object = ("progress", node)
            case Preview() | NodeStates() | SocketLost():
                key = type(event)
            case _:
                key = object()
        self._pending[key] = event
        self._wake.set()
