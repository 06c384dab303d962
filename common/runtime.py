"""A service that runs: its store, engines and loops, opened and closed together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common import engines
from common.comfy import EngineUnreachable
from common.job import Expected, Job
from common.jobs.bus import Bus
from common.jobs.collector import Collector
from common.jobs.desk import Desk
from common.jobs.dispatcher import Dispatcher
from common.jobs.estimator import Estimator
from common.jobs.files import Files
from common.jobs.intake import FetchLimits, Intake
from common.jobs.janitor import Janitor
from common.jobs.ledger import Ledger, now
from common.jobs.limits import Limits
from common.jobs.queue import Waiting
from common.jobs.runner import Runner
from common.jobs.store import Store
from common.jobs.supply import Supply
from common.manifest import Manifest
from common.metrics import Metrics
from common.models.ensurer import ModelEnsurer
from common.models.errors import ModelsError
from common.outputs import publish
from common.service import Service
from common.settings import BadSettings, Settings
from common.stock import Stock
from common.storage import Storage

log = logging.getLogger(__name__)

STORAGE = "Bytes that the weights take on the disks, counted at most once a minute."


class DataInUse(Exception):
    """Another process serves from this data folder."""


class Runtime:
    """Everything that is alive while a service serves."""

    def __init__(self, service: Service, settings: Settings) -> None:
        if settings.engine_kind == "nunchaku" and service.comfyui:
            raise BadSettings(
                f"WAN_ENGINE is nunchaku, which cannot run {service.name}"
            )
        self.service = service
        self.settings = settings
        self.data = (settings.data or Path("data") / service.name).resolve()
        self.began = time.monotonic()
        self.timeline: dict[str, float] = {}  #: seconds from start to each milestone
        self.files = Files(self.data)
        self.bus = Bus()
        self.waiting = Waiting()
        self.posters = asyncio.Semaphore(1)  # many who ask decode a film once
        self.engines = engines.of(settings, self.data)
        retention_s = settings.retention_hours * 3600
        self.store = Store(database_url(settings, self.data), now)
        self.metrics = self._metrics()
        self.ledger = Ledger(
            self.store,
            self.bus,
            self.waiting,
            retention_s,
            self.metrics.observe,
            settings.root_path,
        )
        self.estimator = Estimator(
            service,
            self.store,
            lambda: [engine.comfy.info for engine in self.engines],
            settings.engine_kind,
        )
        self.runner = Runner(
            self.ledger,
            self.files,
            limits(settings),
            service.request,
            service.output,
            self.estimator.oom_hint,
        )
        self.ensurer, manifest = weights_of(settings)
        self.supply = self._supply()
        self.dispatcher = Dispatcher(
            self.ledger,
            self.waiting,
            self.runner,
            Collector(self.files, publish, self._expected),
            list(self.engines),
            settings.max_attempts,
            self.supply,
        )
        self.janitor = Janitor(self.store, self.ledger, self.files, retention_s)
        self.stock = Stock(service, self.engines, manifest, self.ensurer, self.supply)
        self.intake = Intake(
            service,
            ledger=self.ledger,
            store=self.store,
            files=self.files,
            dispatcher=self.dispatcher,
            engine_kind=settings.engine_kind,
            queue_limit=settings.queue_limit,
            limits=FetchLimits(
                settings.max_upload_mb << 20, frozenset(settings.input_allow_hosts)
            ),
            choices=self.choices,
            supply=self.supply,
        )
        self.desk = Desk(self.ledger, self.dispatcher, self.intake, self.janitor)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """
        Open everything, in order, and close it in the opposite one.

        Raises:
            DataInUse, Unusable: with what to do about it.
        """
        async with AsyncExitStack() as stack:
            self.files.prepare()
            self._lock(stack)
            await self.store.open()
            stack.push_async_callback(self.store.aclose)
            self._mark("store")
            for engine in self.engines:
                stack.push_async_callback(engine.aclose)
                await engine.start()
            stack.push_async_callback(self.dispatcher.aclose)
            await self.dispatcher.start()
            self._mark("jobs recovered")
            stack.push_async_callback(self.desk.aclose)
            self._spawn(stack, self.janitor.work())
            self._spawn(stack, self._note_engine())
            if self.ensurer is not None and self.supply is not None:
                self.supply.want(self.ensurer.needed_by(self.service))
                self._spawn(stack, self.supply.work())
                storage = Storage(self.ensurer.layers)
                self.metrics.gauge("model_storage_bytes_used", STORAGE, storage.bytes)
                self._spawn(stack, storage.work())
            yield self

    async def drain(self) -> None:
        """Take no more jobs and let the running ones finish, as long as allowed."""
        log.info("stopping: up to %.0f s for running jobs", self.settings.drain_s)
        await self.dispatcher.drain(self.settings.drain_s)

    async def choices(self, class_type: str, input_: str) -> tuple[str, ...] | None:
        """Return what an engine offers for an input; None while none answers."""
        for engine in self.engines:
            try:
                return await engine.comfy.choices(class_type, input_)
            except EngineUnreachable:
                continue
        return None

    def _metrics(self) -> Metrics:
        metrics = Metrics()
        for name, help_, read in (
            ("wan_queue_depth", "Jobs that wait.", lambda: len(self.waiting)),
            ("wan_jobs_running", "Jobs that run.", lambda: self.dispatcher.busy),
            ("wan_watchers", "Event streams open.", self.bus.watchers),
            (
                "wan_engines_reachable",
                "Engines whose socket stands.",
                lambda: sum(e.comfy.socket_alive for e in self.engines),
            ),
        ):
            metrics.gauge(name, help_, read)
        return metrics

    def _supply(self) -> Supply | None:
        if self.ensurer is None:
            return None
        return Supply(
            self.ensurer, self.waiting, self.ledger.hold, self.metrics, self._arrived
        )

    def _arrived(self) -> None:
        """Look anew at what is there: a weight file has come."""
        self.stock.forget()
        if self.supply is not None and not self.supply.busy:
            self._mark("weights")
        for engine in self.engines:
            engine.comfy.forget_choices()

    def _expected(self, job: Job) -> Expected:
        return self.service.request.expected(job.request)

    def _lock(self, stack: AsyncExitStack) -> None:
        lock = FileLock(self.data / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataInUse(
                f"another process serves from {self.data}: stop it, or set WAN_DATA"
                " to another folder"
            ) from None
        stack.callback(lock.release)

    def _mark(self, milestone: str) -> None:
        spent = time.monotonic() - self.began
        self.timeline.setdefault(milestone, round(spent, 3))

    async def _note_engine(self) -> None:
        """Write down when the first engine answered."""
        waits = [engine.comfy.wait_until_ready(86400) for engine in self.engines]
        for done in asyncio.as_completed(waits):
            await done
            self._mark("engine")
            return

    @staticmethod
    def _spawn(stack: AsyncExitStack, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)


def database_url(settings: Settings, data: Path) -> str:
    """Return where jobs are kept: a file in the data folder unless set."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{(data / 'jobs.sqlite3').as_posix()}"


def weights_of(settings: Settings) -> tuple[ModelEnsurer | None, Manifest | None]:
    """
    Return what finds and fetches weights, None where that is not ours to do.

    Beside it what is known of them: nothing, where nobody is to fetch them and the
    manifest cannot be read.

    Raises:
        BadSettings: the manifest or the volume's own records cannot be used.
    """
    try:
        if settings.supplies:
            ensurer = ModelEnsurer.from_config(settings)
            if settings.engine_kind == "nunchaku":
                # Brings the engine's own imports along: 20 MB that others do not need.
                from common.engine.editors.weights import variant_of_card

                ensurer.variants |= variant_of_card()
            return ensurer, ensurer.manifest
        return None, Manifest.load(settings.models_manifest)
    except ModelsError as error:
        if settings.supplies:
            raise BadSettings(
                ": ".join(filter(None, (error.message, error.hint)))
            ) from None
        log.warning("weights: %s", error)
        return None, None


def limits(settings: Settings) -> Limits:
    """Return the time limits of a run."""
    return Limits(
        job_s=settings.job_timeout_s,
        load_s=settings.stall_load_s,
        step_s=settings.stall_step_s,
        decode_s=settings.stall_decode_s,
    )
