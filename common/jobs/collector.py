"""From ComfyUI's output folder to ours: copied, checked, published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.comfy import Comfy, EngineUnreachable, OutputMissing, OutputTooLarge
from common.disk import DISK_FULL
from common.errors import NoSpace
from common.events import EngineFile
from common.job import Expected, Job, JobError, Output
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


class Publisher(Protocol):
    """Check a file against what is expected and publish it; runs in a thread."""

    def __call__(
        self, source: Path, folder: Path, expected: Expected, *, name: str
    ) -> Output:
        """Return what was published; raises BadOutput or NoSpace."""


@dataclass(frozen=True)
class _Copy:
    """A file that is being copied although history has not confirmed it."""

    file: EngineFile
    path: Path
    task: asyncio.Task[None]


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
        self._ahead: dict[str, _Copy] = {}

    @asynccontextmanager
    async def ahead(
        self, job_id: str, saved: tuple[EngineFile, ...], engine: Comfy
    ) -> AsyncIterator[None]:
        """Copy what the events named while history is asked; `collect` takes it."""
        if files := _outputs(saved):
            path = self._files.incoming()
            task = asyncio.create_task(_download(files[-1], path, engine))
            self._ahead[job_id] = _Copy(files[-1], path, task)
        try:
            yield
        finally:
            if copy := self._ahead.pop(job_id, None):
                await _drop(copy)

    async def collect(self, job: Job, done: Done, engine: Comfy) -> Outcome:
        """Return what became of the files; all are whole, or none is published."""
        expected = self._expected(job)
        wanted = expected.count * expected.parts
        files = _outputs(done.saved)[-wanted:]
        if len(files) < wanted:
            saved = f"{len(files)} of {wanted} files" if files else "no file"
            message = f"ComfyUI finished, but its output node saved {saved}"
            return Spoiled(JobError("no_output", message, _RERUN))
        sources: list[Path] = []
        try:
            for file in reversed(files):  # the last one is copied already
                sources.insert(0, await self._copied(job, file, engine))
            async with self._room:
                if expected.parts > 1:
                    sources.append(self._files.incoming())
                    await self._joined(sources[:-1], sources[-1], job, expected)
                outputs = await self._check(sources[-expected.count :], job, expected)
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
        finally:
            for source in sources:
                source.unlink(missing_ok=True)
        return Published(outputs, done.nodes)

    async def _joined(
        self, parts: Sequence[Path], film: Path, job: Job, expected: Expected
    ) -> None:
        """Join what was saved in parts."""
        ids = [job.request[name] for name in expected.sounds]
        sounds = [self._files.input(job.id, id_) for id_ in ids if id_ is not None]
        await asyncio.to_thread(join, parts, sounds, film)

    async def _copied(self, job: Job, file: EngineFile, engine: Comfy) -> Path:
        """Return a local copy: the one made ahead, when it is of the right file."""
        copy = self._ahead.pop(job.id, None)
        if copy is not None:
            if copy.file == file:
                await copy.task
                return copy.path
            await _drop(copy)
        path = self._files.incoming()
        await _download(file, path, engine)
        return path

    async def find(self, job: Job) -> Published | None:
        """Return what was published just before an earlier process died."""
        expected = self._expected(job)
        folder = self._files.job(job.id)
        files = [folder / name for name in names(expected)]
        if all(file.is_file() for file in files):
            with suppress(BadOutput):
                return Published(await self._check(files, job, expected))
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
            for output in made:
                (folder / output.name).unlink(missing_ok=True)
            raise
        return tuple(made)


def names(expected: Expected) -> list[str]:
    """
    Return what the files of a job are called.

    >>> names(Expected("image", count=2))
    ['image.png', 'image-2.png']
    """
    stem, suffix = ("video", "mp4") if expected.kind == "video" else ("image", "png")
    numbers = ["", *(f"-{number}" for number in range(2, expected.count + 1))]
    return [f"{stem}{number}.{suffix}" for number in numbers]


def _outputs(saved: tuple[EngineFile, ...]) -> list[EngineFile]:
    return [file for file in saved if file.type == "output"]


async def _download(file: EngineFile, path: Path, engine: Comfy) -> None:
    await engine.download(file, path, max_bytes=MAX_OUTPUT_BYTES)


async def _drop(copy: _Copy) -> None:
    """End a copy that nobody takes."""
    copy.task.cancel()
    await asyncio.gather(copy.task, return_exceptions=True)
    copy.path.unlink(missing_ok=True)


def _no_space() -> JobError:
    return JobError(
        "no_space",
        "the disk of the data folder is full",
        "make room, or lower WAN_RETENTION_HOURS",
    )
