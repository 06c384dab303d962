"""
Brings the weights that jobs need: parks the jobs, fetches, and lets them go.

One fetch at a time, in a thread: each uses many connections, and what is wanted first
arrives first. A job whose files are all there is never kept.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from common.job import Progress
from common.jobs.queue import Waiting
from common.manifest_schema import WeightFile
from common.models.bring import Result
from common.models.errors import ModelsError
from common.models.meter import Meter, Notice, Step
from common.workflow import Workflow

log = logging.getLogger(__name__)

TELL_S = 1.0  #: between two words on how far it is
RETRY_S = (15.0, 300.0)  #: first and longest pause after a fetch that failed
USED_S = 21_600.0  #: between two words to gc that what is there is in use
STOP_S = 10.0  #: for a fetch to put its partial files in order

T = TypeVar("T")


class Weights(Protocol):
    """What knows, finds and fetches files; synchronous."""

    def loaded_by(self, workflow: Workflow) -> tuple[WeightFile, ...]:
        """Return the files of the manifest that a workflow loads."""

    def ready(self, file: WeightFile) -> bool:
        """Tell whether a file can be loaded; no network."""

    def used(self, files: Sequence[WeightFile]) -> None:
        """Take note that files are in use, for gc."""

    def ensure_files(
        self,
        files: Iterable[WeightFile],
        *,
        notice: Callable[[Notice], None],
        stop: threading.Event,
    ) -> Sequence[Result]:
        """Fetch what is absent; says how each file fared, or raises for all of them."""

    def repair_files(
        self,
        files: Iterable[WeightFile],
        *,
        notice: Callable[[Notice], None],
        stop: threading.Event,
    ) -> Sequence[Result]:
        """Hash what is there, and fetch what is broken or absent."""


class Observer(Protocol):
    """Who counts."""

    def fetched(self, result: Result) -> None:
        """Take note of what became of a file."""

    def not_fetched(self, error: ModelsError) -> None:
        """Take note that nothing could be fetched."""


class Supply:
    """
    The weights of one service.

    Args:
        weights: finds and fetches.
        waiting: the queue, in which jobs are parked.
        hold: tells waiting jobs how far it is.
        observer: counts files and errors.
        arrived: called when a file has come.
    """

    def __init__(
        self,
        weights: Weights,
        waiting: Waiting,
        hold: Callable[[Iterable[str], Progress], None],
        observer: Observer,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._weights = weights
        self._waiting = waiting
        self._hold = hold
        self._observer = observer
        self._told_of_arrival = arrived
        self._there: set[WeightFile] = set()
        self._broken: set[WeightFile] = set()  #: to be hashed, whatever they look like
        self._wanted: dict[WeightFile, None] = {}  #: in the order they were asked for
        self._jobs: dict[str, frozenset[WeightFile]] = {}  #: parked, and for what
        self._more = asyncio.Event()
        self._stop = threading.Event()
        self._notices: deque[Notice] = deque()  # filled by the fetching thread
        self.meter = Meter()  #: how far the fetch is
        self.fetching = False
        self.troubles: dict[WeightFile, ModelsError] = {}  #: the last word on each

    # ---- what is wanted

    def want(self, files: Iterable[WeightFile]) -> None:
        """Have files fetched, although no job waits for them yet."""
        for file in files:
            if file not in self._there and file not in self._wanted:
                self._wanted[file] = None
                self._more.set()

    def doubt(self, file: WeightFile) -> None:
        """Look after a file that was there and does not look whole any more."""
        if file in self._there:
            self._there.discard(file)
            self.want([file])

    @property
    def busy(self) -> bool:
        """Whether files are wanted that are not there."""
        return bool(self._wanted)

    def wanted(self, file: WeightFile) -> bool:
        """Tell whether a file is being fetched, or will be."""
        return file in self._wanted

    def admit(self, job_id: str, workflow: Workflow) -> None:
        """Park a waiting job unless its files are there, and have them fetched."""
        files = self._weights.loaded_by(workflow)
        absent = frozenset(files) - self._there
        if absent:
            self._waiting.park(job_id)
            self._jobs[job_id] = absent
            self.want(files)
            if self.fetching:
                self._hold([job_id], self.progress())

    def mend(self, workflow: Workflow, *, corrupt: bool) -> bool:
        """
        Have the files looked at again that the engine could not load.

        Returns False when none of them is in the manifest: nothing can be done.
        """
        files = self._weights.loaded_by(workflow)
        self._there.difference_update(files)
        if corrupt:
            self._broken.update(files)
        return bool(files)

    # ---- bringing it

    async def work(self) -> None:
        """Fetch what is wanted, for ever; ends within a moment when canceled."""
        pause_s = RETRY_S[0]
        while True:
            try:
                async with asyncio.timeout(USED_S):
                    await self._more.wait()
            except TimeoutError:
                there = tuple(self._there)
                await self._in_thread(partial(self._weights.used, there))
                continue
            self._more.clear()
            await self._fetch(tuple(self._wanted))
            if self.troubles.keys().isdisjoint(self._wanted):
                pause_s = RETRY_S[0]
            else:
                await self._pause(pause_s)
                pause_s = min(RETRY_S[1], 2 * pause_s)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; another file that is wanted ends the wait."""
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            self._more.set()

    async def _fetch(self, files: tuple[WeightFile, ...]) -> None:
        """Fetch files, and let go who waited for them."""
        try:
            for file in await self._in_thread(lambda: self._usable(files)):
                self._arrive(file)
            self._let_go()
            absent = [file for file in files if file in self._wanted]
            if absent:
                names = ", ".join(file.path for file in absent)
                log.info("weights to be fetched or hashed: %s", names)
                await self._bring(absent)
        except ModelsError as error:
            log.warning("weights: %s", error)
            self._observer.not_fetched(error)
            self.troubles.update(
                {file: error for file in files if file in self._wanted}
            )
        except Exception:
            log.exception("weights: the fetch failed")
            trouble = ModelsError("the fetch failed", "the service's log says why")
            self.troubles.update(
                {file: trouble for file in files if file in self._wanted}
            )

    def _usable(self, files: tuple[WeightFile, ...]) -> list[WeightFile]:
        usable = [
            file
            for file in files
            if file not in self._broken and self._weights.ready(file)
        ]
        if usable:
            self._weights.used(usable)
        return usable

    async def _bring(self, files: list[WeightFile]) -> None:
        self.meter = Meter.of((file.path, file.size) for file in files)
        self.fetching = True
        telling = asyncio.create_task(self._tell())
        try:
            for do, chosen in (
                (
                    self._weights.repair_files,
                    [file for file in files if file in self._broken],
                ),
                (
                    self._weights.ensure_files,
                    [file for file in files if file not in self._broken],
                ),
            ):
                if chosen:
                    await self._each(do, chosen)
        finally:
            self.fetching = False
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            self._hear()
            self._hold(self._waiting.parked(), self.progress())

    async def _each(
        self, do: Callable[..., Sequence[Result]], files: list[WeightFile]
    ) -> None:
        notice = self._notices.append
        results = await self._in_thread(
            lambda: do(files, notice=notice, stop=self._stop)
        )
        for one in results:
            self._observer.fetched(one)
            if one.error is None:
                log.info("%s is there, after %.0f s", one.file.name, one.seconds)
                if one.aside is not None:
                    log.warning("what had its name was wrong: it is in %s", one.aside)
                self._arrive(one.file)
            else:
                log.warning("%s: %s", one.file.name, one.error)
                self.troubles[one.file] = one.error
        self._let_go()

    async def _in_thread(self, do: Callable[[], T]) -> T:
        """Do it in a thread, which is told to stop, and waited for, on a cancel."""
        work = asyncio.ensure_future(asyncio.to_thread(do))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait({work}, timeout=STOP_S)
            if work.done() and not work.cancelled():
                work.exception()  # nobody else will ask for it
            raise

    # ---- telling

    async def _tell(self) -> None:
        while True:
            self._hear()
            self._hold(self._waiting.parked(), self.progress())
            await asyncio.sleep(TELL_S)

    def _hear(self) -> None:
        """Take in what the thread said; a file that came lets its jobs go at once."""
        came = set()
        while self._notices:
            notice = self._notices.popleft()
            self.meter.note(notice, time.monotonic())
            if notice.step is Step.READY:
                came.add(notice.name)
        for file in [file for file in self._wanted if file.path in came]:
            self._arrive(file)
        if came:
            self._let_go()

    def _arrive(self, file: WeightFile) -> None:
        self._there.add(file)
        self._broken.discard(file)
        self._wanted.pop(file, None)
        self.troubles.pop(file, None)
        self._told_of_arrival()

    def _let_go(self) -> None:
        """Let the jobs be taken whose files are all there."""
        parked = set(self._waiting.parked())
        ready = [id_ for id_, files in self._jobs.items() if files <= self._there]
        self._jobs = {
            id_: files
            for id_, files in self._jobs.items()
            if id_ in parked and id_ not in ready
        }
        self._hold(ready, Progress())
        for job_id in ready:
            self._waiting.release(job_id)

    def progress(self) -> Progress:
        """Return what a job that waits for weights is told."""
        if not self.fetching:
            return Progress()
        verifying = self.meter.step is Step.VERIFYING
        return Progress(
            stage="verifying" if verifying else "downloading",
            eta_s=self.meter.eta_s,
            done_bytes=self.meter.done,
            total_bytes=self.meter.total,
        )
