"""From ComfyUI's output folder to ours: copied, checked, published."""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from common.comfy import Comfy, EngineUnreachable, OutputMissing, OutputTooLarge
from common.errors import NoSpace
from common.job import Job, JobError, Output
from common.jobs.files import Files
from common.jobs.outcome import (
    Broken,
    Done,
    Lost,
    Outcome,
    Published,
    Spoiled,
    lost_in_restart,
)
from common.outputs import BadOutput

MAX_OUTPUT_BYTES = 4 << 30
AT_ONCE = 2  # decoding takes a core each

_RERUN = "send the job again; if it comes back, look at the workflow's save node"


class Publisher(Protocol):
    """Check a file against a request and publish it; runs in a thread."""

    def __call__(self, source: Path, folder: Path, job: Job) -> Output:
        """Return what was published; raises BadOutput or NoSpace."""


class Collector:
    """Collects what one output node saved."""

    def __init__(self, files: Files, publish: Publisher, output_node: str) -> None:
        self._files = files
        self._publish = publish
        self._output_node = output_node
        self._room = asyncio.Semaphore(AT_ONCE)

    async def collect(self, job: Job, done: Done, engine: Comfy) -> Outcome:
        """Return what became of the file; only a whole one is ever published."""
        saved = done.history.files_by_node.get(self._output_node, ())
        files = [file for file in saved if file.type == "output"]
        if not files:
            message = "ComfyUI finished, but its output node saved no file"
            return Spoiled(JobError("no_output", message, _RERUN))
        source = self._files.incoming()
        try:
            async with self._room:
                await engine.download(files[-1], source, max_bytes=MAX_OUTPUT_BYTES)
                output = await self._check(source, job)
        except OutputMissing as error:
            return Spoiled(JobError("no_output", str(error), _RERUN))
        except (BadOutput, OutputTooLarge) as error:
            return Spoiled(JobError("bad_output", str(error), _RERUN))
        except EngineUnreachable:
            return Lost(lost_in_restart())
        except NoSpace:
            return Broken(_no_space())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return Broken(_no_space())
        finally:
            source.unlink(missing_ok=True)
        return Published((output,), done.nodes)

    async def find(self, job: Job) -> Published | None:
        """Return what was published just before an earlier process died."""
        for file in self._files.job(job.id).glob("video.mp4"):
            with suppress(BadOutput):
                return Published((await self._check(file, job),))
        return None

    async def _check(self, source: Path, job: Job) -> Output:
        folder = self._files.job(job.id)
        return await asyncio.to_thread(self._publish, source, folder, job)


def _no_space() -> JobError:
    return JobError(
        "no_space",
        "the disk of the data folder is full",
        "make room, or lower WAN_RETENTION_HOURS",
    )
