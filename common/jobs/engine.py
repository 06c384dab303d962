"""What running a job asks of an engine, beside what it says over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from common.comfy import Comfy
from common.events import EngineFile


class Engine(Protocol):
    """An engine and, when it is a child of ours, the means to restart it."""

    comfy: Comfy
    ours: bool  #: a child of this process, which ends with it
    resting: bool  #: it needs a restart, and is given no job meanwhile

    async def restart(self) -> None:
        """Kill and start it again; does nothing for an engine that is not ours."""

    def killed_by_kernel(self) -> bool:
        """Tell whether its last death was for want of host memory."""

    def saved(self, file: EngineFile) -> Path | None:
        """Return where a file that it saved lies on this machine, if it does."""

    def tidy(self, prompt_id: str) -> None:
        """Remove what a collected prompt left in the engine's output folder."""
