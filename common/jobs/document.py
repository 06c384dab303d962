"""
A job as JSON: the document that the store keeps.

Pure. Fields that an older release did not write get their defaults, and fields that a
newer one wrote are ignored, so rows survive upgrades and a step back.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

from common.job import Job, JobError, Output, Progress, Status

TIMES = ("created_at", "started_at", "completed_at")


def dump(job: Job) -> str:
    """Return the job as JSON text."""
    body = dict(vars(job))
    for name in TIMES:
        body[name] = stamp(body[name])
    body["progress"] = vars(job.progress)
    body["outputs"] = [vars(output) for output in job.outputs]
    body["error"] = job.error and vars(job.error)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Job:
    """Return the job that `dump` wrote."""
    body = known(Job, json.loads(text))
    for name in TIMES:
        if body.get(name):
            body[name] = datetime.fromisoformat(body[name])
    body["status"] = Status(body["status"])
    body["progress"] = Progress(**known(Progress, body.get("progress") or {}))
    body["outputs"] = tuple(Output(**known(Output, o)) for o in body["outputs"])
    if body.get("error"):
        body["error"] = JobError(**known(JobError, body["error"]))
    return Job(**body)


def stamp(time: datetime | None) -> str | None:
    """Return an instant as RFC 3339 in UTC, to the millisecond."""
    if time is None:
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known(cls: type[Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that `cls` has fields for."""
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in body.items() if name in names}
