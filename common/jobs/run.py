"""What is known of an attempt at a job while it runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from common.comfy import Comfy, EngineUnreachable, Follower
from common.events import EngineFile
from common.job import Job
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
    blind: bool = False  #: the socket was lost, so silence says nothing
    succeeded: bool = False  #: by the events; history has the last word
    saved: tuple[EngineFile, ...] = ()  #: by the output nodes, as the events said

    async def send_cancel(self) -> None:
        """Ask ComfyUI; an interrupt between two nodes can miss, so ask repeatedly."""
        self.cancel_sent = time.monotonic()
        with suppress(EngineUnreachable):
            await self.engine.cancel(self.job.prompt_id)
