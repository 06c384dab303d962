"""From ComfyUI's output folder to ours: checked and published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from common.comfy import EngineUnreachable, OutputMissing, OutputTooLarge
from common.disk import DISK_FULL, remove_parts
from common.errors import NoSpace
from common.events import EngineFile
from common.job import Expected, Job, JobError, Output
from common.jobs.engine import Engine
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
from common.joined import join
from common.outputs import BadOutput

MAX_OUTPUT_BYTES = 4 << 30
AT_ONCE = 2  # decoding takes a core each

_RERUN = "send the job again; if it comes back, look at the workflow's save node"


Confirmed = Callable[[Outcome], Awaitable[Outcome]]


class Publisher(Protocol):
    """Check a file against what is expected and publish it; runs in a thread."""

    def __call__(
        self, source: Path, folder: Path, expected: Expected, *, name: str
    ) -> Output:
        """Return what was published; raises BadOutput or NoSpace."""


class Collector:
    """Collects what the output node saved."""

    def __init__(
        self,
        files: Files,
        publish: Publisher,
        expected: Callable[[Job], Expected],
    ) -> None:
        self._files = files
        self._publish = publish
        self._expected = expected
        self._room = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def ahead(
        self, job: Job, told: Done, engine: Engine
    ) -> AsyncIterator[Confirmed]:
        """
        Collect what the events told of while history is asked.

        Yields what takes history's outcome and returns the job's. If history names
        other files, or none, what was collected is taken back; if it is lost, the
        events are believed.
        """
        files = self._wanted(job, told)
        task = files and asyncio.create_task(self._collected(job, files, told, engine))

        async def confirmed(outcome: Outcome) -> Outcome:
            if not task:
                return outcome
            if isinstance(outcome, Done) and self._wanted(job, outcome) == files:
                made = await task
                return outcome if isinstance(made, Lost) else made  # fetched once more
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(found, Published):
                if isinstance(outcome, Lost):
                    return found
                self._take_back(job, found.outputs)
            return outcome

        try:
            await asyncio.sleep(0)  # let it begin before the question is put
            yield confirmed
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def collect(self, job: Job, done: Done, engine: Engine) -> Outcome:
        """Return what became of the files; all are whole, or none is published."""
        if files := self._wanted(job, done):
            return await self._collected(job, files, done, engine)
        count, wanted = len(_outputs(done)), self._count(job)
        saved = f"{count} of {wanted} files" if count else "no file"
        message = f"ComfyUI finished, but its output node saved {saved}"
        return Spoiled(JobError("no_output", message, _RERUN))

    def _count(self, job: Job) -> int:
        expected = self._expected(job)
        return expected.count * expected.parts

    def _wanted(self, job: Job, done: Done) -> list[EngineFile]:
        """Return the files that make a job's outputs; none when some are missing."""
        wanted = self._count(job)
        files = _outputs(done)[-wanted:]
        return files if len(files) == wanted else []

    async def _collected(
        self, job: Job, files: Sequence[EngineFile], done: Done, engine: Engine
    ) -> Outcome:
        expected = self._expected(job)
        with ExitStack() as ours:
            try:
                sources = [await self._local(file, engine, ours) for file in files]
                async with self._room:
                    if expected.parts > 1:
                        sources = [await self._joined(sources, job, expected, ours)]
                    outputs = await self._check(sources, job, expected)
                return Published(outputs, done.nodes)
            except OutputMissing as error:
                return Spoiled(JobError("no_output", str(error), _RERUN))
            except (BadOutput, OutputTooLarge) as error:
                return Spoiled(JobError("bad_output", str(error), _RERUN))
            except EngineUnreachable:
                return Lost(lost_in_restart())
            except NoSpace:
                return Broken(_no_space())
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                return Broken(_no_space())

    async def _local(self, file: EngineFile, engine: Engine, ours: ExitStack) -> Path:
        """Return the file where the engine saved it, else a copy of our own."""
        if here := engine.saved(file):
            return here
        path = self._incoming(ours)
        await engine.comfy.download(file, path, max_bytes=MAX_OUTPUT_BYTES)
        return path

    def _incoming(self, ours: ExitStack) -> Path:
        path = self._files.incoming()
        ours.callback(path.unlink, missing_ok=True)
        return path

    async def _joined(
        self, parts: Sequence[Path], job: Job, expected: Expected, ours: ExitStack
    ) -> Path:
        """Join what was saved in parts."""
        ids = [job.request[name] for name in expected.sounds]
        sounds = [self._files.input(job.id, id_) for id_ in ids if id_ is not None]
        film = self._incoming(ours)
        await asyncio.to_thread(join, parts, sounds, film)
        return film

    async def find(self, job: Job) -> Outcome | None:
        """Return what was published just before an earlier process died."""
        expected = self._expected(job)
        folder = self._files.job(job.id)
        remove_parts(folder)
        files = [folder / name for name in names(expected)]
        if all(file.is_file() for file in files):
            try:
                return Published(await self._check(files, job, expected))
            except BadOutput:
                return None
            except NoSpace:
                return Broken(_no_space())
        return None

    async def _check(
        self, sources: Sequence[Path], job: Job, expected: Expected
    ) -> tuple[Output, ...]:
        """Publish all files of a job; when one is no good, none stays."""
        folder = self._files.job(job.id)
        made: list[Output] = []
        try:
            for source, name in zip(sources, names(expected), strict=True):
                made.append(
                    await asyncio.to_thread(
                        self._publish, source, folder, expected, name=name
                    )
                )
        except BaseException:
            self._take_back(job, made)
            raise
        return tuple(made)

    def _take_back(self, job: Job, outputs: Iterable[Output]) -> None:
        for output in outputs:
            (self._files.job(job.id) / output.name).unlink(missing_ok=True)


def names(expected: Expected) -> list[str]:
    """
    Return what the files of a job are called.

    >>> names(Expected("image", count=2))
    ['image.png', 'image-2.png']
    """
    stem, suffix = ("video", "mp4") if expected.kind == "video" else ("image", "png")
    numbers = ["", *(f"-{number}" for number in range(2, expected.count + 1))]
    return [f"{stem}{number}.{suffix}" for number in numbers]


def _outputs(done: Done) -> list[EngineFile]:
    return [file for file in done.saved if file.type == "output"]


def _no_space() -> JobError:
    return JobError(
        "no_space",
        "the disk of the data folder is full",
        "make room, or lower WAN_RETENTION_HOURS",
    )
