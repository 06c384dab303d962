"""What Prometheus is told. One registry per service, so that tests do not share one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from common.job import Job
from common.models.bring import Result
from common.models.errors import ModelsError, Stopped

# A trivial graph takes milliseconds, a 14B clip on a small card half an hour.
# A config takes a second, 30 GB over a slow line an hour.
FETCH_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 1800)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs = Counter(
            "wan_jobs_total",
            "Jobs that ended, by status and error code.",
            ["status", "code"],
            registry=self.registry,
        )
        self._run_s = Histogram(
            "wan_job_run_seconds",
            "Seconds from the start of a job's last attempt to its end.",
            ["status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._queue_s = Histogram(
            "wan_job_queue_seconds",
            "Seconds a job waited for a slot.",
            buckets=BUCKETS,
            registry=self.registry,
        )

        self._fetched = Counter(
            "model_downloads_total",
            "Weight files that were fetched, or could not be, by result.",
            ["result"],
            registry=self.registry,
        )
        self._fetch_s = Histogram(
            "model_download_duration_seconds",
            "Seconds that a weight file took to arrive and be verified.",
            buckets=FETCH_BUCKETS,
            registry=self.registry,
        )
        self._model_errors = Counter(
            "model_errors_total",
            "Weight files that could not be had, by the error's code.",
            ["code"],
            registry=self.registry,
        )

    def gauge(self, name: str, help_: str, read: Callable[[], float]) -> None:
        """Add a figure that is read when it is asked for."""
        Gauge(name, help_, registry=self.registry).set_function(read)

    def observe(self, job: Job) -> None:
        """Count a job that has ended."""
        code = job.error.code if job.error else ""
        self._jobs.labels(job.status.value, code).inc()
        if job.started_at and job.completed_at:
            run = (job.completed_at - job.started_at).total_seconds()
            self._run_s.labels(job.status.value).observe(max(0.0, run))
            wait = (job.started_at - job.created_at).total_seconds()
            self._queue_s.observe(max(0.0, wait))

    def fetched(self, result: Result) -> None:
        """Count a weight file that was fetched, or could not be."""
        if isinstance(result.error, Stopped):
            return
        if result.error is not None:
            self._fetched.labels("failed").inc()
            self.not_fetched(result.error)
        elif result.fetched_bytes:
            self._fetched.labels("succeeded").inc()
            self._fetch_s.observe(result.seconds)

    def not_fetched(self, error: ModelsError) -> None:
        """Count what keeps weights from being fetched."""
        if not isinstance(error, Stopped):
            self._model_errors.labels(error.code).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
