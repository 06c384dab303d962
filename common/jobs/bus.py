"""
Who watches a job is sent whole jobs, as they change. In memory; nobody else's I/O.

A change is rendered once, if anybody watches, and shared by all who do. Nobody has a
queue of their own: a watcher that is slow skips to what is still kept, so a thousand of
them cost no more memory than one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cached_property

from common.job import Job

# A reconnect within this many changes misses nothing; a run makes about a hundred.
KEPT = 256

QUIET_S = 15.0  # proxies close streams that are silent for a minute or half of one


class Frame:
    """One job as it stood at one version; `data` is made when somebody reads it."""

    def __init__(self, job: Job, render: Callable[[Job], str]) -> None:
        self.job = job
        self._render = render

    @property
    def version(self) -> int:
        """The job's version, which is the event's id."""
        return self.job.version

    @property
    def terminal(self) -> bool:
        """Whether it is the last."""
        return self.job.status.terminal

    @cached_property
    def data(self) -> str:
        """The job as JSON text: rendered once, for all watchers."""
        return self._render(self.job)


@dataclass(frozen=True)
class Still:
    """A new preview image is there."""

    number: int


@dataclass
class Topic:
    """What is kept of one live job for its watchers."""

    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=KEPT))
    preview: bytes | None = None
    preview_type: str = "image/jpeg"
    previews: int = 0
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Wake everybody who waits now."""
        self.changed.set()
        self.changed = asyncio.Event()


class Bus:
    """The topics of the jobs that are not over."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._closed = False

    def close(self) -> None:
        """End every stream; who watches may come again when the service is back."""
        self._closed = True
        for topic in self._topics.values():
            topic.wake()

    def publish(self, job_id: str, frame: Frame) -> None:
        """Tell the watchers; a terminal frame is the last and closes the topic."""
        topic = self._topics.setdefault(job_id, Topic())
        topic.frames.append(frame)
        topic.wake()
        if frame.terminal:
            del self._topics[job_id]  # watchers hold on to it until they have read it

    def show(self, job_id: str, image: bytes, content_type: str) -> None:
        """Replace the newest preview."""
        if topic := self._topics.get(job_id):
            topic.preview, topic.preview_type = image, content_type
            topic.previews += 1
            topic.wake()

    def preview(self, job_id: str) -> tuple[bytes, str] | None:
        """Return the newest preview and its type."""
        topic = self._topics.get(job_id)
        if topic is None or topic.preview is None:
            return None
        return topic.preview, topic.preview_type

    def watched(self, job_id: str) -> bool:
        """Tell whether anybody watches."""
        topic = self._topics.get(job_id)
        return topic is not None and topic.watchers > 0

    def watchers(self) -> int:
        """Return how many watch, over all jobs."""
        return sum(topic.watchers for topic in self._topics.values())

    async def watch(
        self, job_id: str, after: int | None = None
    ) -> AsyncIterator[Frame | Still | None]:
        """
        Yield the job now and after each change, until it is over or the bus closes.

        None is for when nothing has changed for a while: a sign of life is due.

        With `after`, the version a watcher saw last, yield each later one that is kept;
        one that we never gave counts as none. A job without a topic yields nothing.
        """
        topic = self._topics.get(job_id)
        if topic is None:
            return
        topic.watchers += 1
        try:
            latest = topic.frames[-1].version
            seen = latest - 1 if after is None or after > latest else after
            shown = 0 if topic.preview is None else topic.previews - 1
            while True:
                changed = topic.changed
                for frame in [f for f in topic.frames if f.version > seen]:
                    yield frame
                    seen = frame.version
                    if frame.terminal:
                        return
                if topic.previews > shown:
                    shown = topic.previews
                    yield Still(shown)
                if self._closed:
                    return
                if topic.changed is changed and not await _set(changed, QUIET_S):
                    yield None
        finally:
            topic.watchers -= 1


async def _set(event: asyncio.Event, limit_s: float) -> bool:
    """Wait for an event; return whether it came in time."""
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False
