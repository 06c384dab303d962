"""What is known of an attempt at a job while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from common.comfy import Comfy, EngineUnreachable, Follower
from common.events import EngineFile
from common.job import Job
from common.jobs.outcome import Done
from common.progress import Meter
from common.workflow import Workflow


@dataclass
class Run:
    """What the runner knows of the attempt it follows."""

    job: Job
    engine: Comfy
    workflow: Workflow
    meter: Meter
    follower: Follower
    output_nodes: tuple[str, ...]  #: several where a film is saved in parts
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    cancel_asked: float | None = None
    cancel_sent: float = 0.0
    started: asyncio.Task[None] | None = None  #: the commit that it runs
    waiting_since: float | None = None  #: queued in ComfyUI while nothing runs there
    told: float = 0.0  #: when the watchers last heard of progress
    untold: bool = False
    missed_since: float | None = None  #: neither in history nor in the queue
    #: nothing of this run came over the socket since it stood: silence says nothing
    blind: bool = True
    refusal: EngineUnreachable | None = None  #: for all we know it never arrived
    succeeded: bool = False  #: by the events; history has the last word
    #: by each output node, as the events said
    saved: dict[str, tuple[EngineFile, ...]] = field(default_factory=dict)

    def done(self, saved: Mapping[str, tuple[EngineFile, ...]]) -> Done:
        """Return the end, with the files in the order of the film."""
        files = tuple(f for node in self.output_nodes for f in saved.get(node, ()))
        return Done(files, dict(self.meter.seconds))

    async def send_cancel(self) -> None:
        """Ask ComfyUI; an interrupt between two nodes can miss, so ask repeatedly."""
        self.cancel_sent = time.monotonic()
        with suppress(EngineUnreachable):
            await self.engine.cancel(self.job.prompt_id)
