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

# A trivial graph takes milliseconds, a 14B clip on a small card half an hour.
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

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
