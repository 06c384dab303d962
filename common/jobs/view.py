"""A job as callers see it: today's JSON, and the first public form. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from common.job import Job, Output, Status
from common.jobs.document import stamp

LEGACY_STATUS = {
    Status.QUEUED: "queued",
    Status.RUNNING: "processing",
    Status.CANCELING: "processing",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "error",
    Status.CANCELED: "error",
    Status.EXPIRED: "error",
}


def view(
    job: Job, position: int | None, retention_s: float, root: str = ""
) -> dict[str, Any]:
    """
    Return the Job of API.md.

    `position` is its place in the queue, from 0; `root` the path that a proxy serves
    us under.
    """
    here = f"{root}/jobs/{job.id}"
    return {
        "id": job.id,
        "job_id": job.id,
        "service": job.service,
        "engine": job.engine,
        "status": job.status.value,
        "queue_position": position if job.status is Status.QUEUED else None,
        "attempt": job.attempt,
        "priority": job.priority,
        "progress": dict(vars(job.progress)),
        "request": job.request,
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at),
        "completed_at": stamp(job.completed_at),
        "expires_at": stamp(expiry(job, retention_s)),
        "outputs": [output_view(output, here) for output in job.outputs],
        "error": None if job.error is None else dict(vars(job.error)),
        "timings": timings(job),
        "urls": {
            "self": here,
            "events": f"{here}/events",
            "cancel": f"{here}/cancel",
        },
    }


def output_view(output: Output, here: str) -> dict[str, Any]:
    """Return one output with its links."""
    body = dict(vars(output))
    poster = body.pop("poster")
    body["url"] = f"{here}/outputs/{output.name}"
    body["poster_url"] = f"{here}/outputs/{poster}" if poster else None
    return body


def expiry(job: Job, retention_s: float) -> datetime | None:
    """Return when the job and its files are removed; None = kept, or not over."""
    if job.completed_at is None or retention_s == 0:
        return None
    return job.completed_at + timedelta(seconds=retention_s)


def timings(job: Job) -> dict[str, Any]:
    """Return seconds spent waiting, running and in all, and by node."""
    start = job.started_at
    end = job.completed_at
    return {
        "queue_s": seconds(job.created_at, start or end),
        "run_s": seconds(start, end),
        "total_s": seconds(job.created_at, end),
        "nodes": job.nodes,
    }


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return the time between; never negative, although clocks are set back."""
    if start is None or end is None:
        return None
    return round(max(0.0, (end - start).total_seconds()), 3)


def legacy_view(job: Job, root: str = "") -> dict[str, Any]:
    """Return the first public form, which `GET /status/{id}` keeps answering."""
    done = job.status is Status.SUCCEEDED and job.outputs
    return {
        "job_id": job.id,
        "status": LEGACY_STATUS[job.status],
        "progress": round(job.progress.value * 100),
        "message": job.progress.stage,
        "error": job.error.message if job.error else None,
        "download_url": f"{root}/download/{job.id}" if done else None,
    }
