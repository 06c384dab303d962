"""
/api/jobs: queue and history as one list.

Source: recorded answers of ComfyUI 0.12.1, which gives none of running jobs; their
states are those that it accepts as a filter.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from common.engine.engine import ENGINE, Engine
from common.engine.promptqueue import Entry, Item

#: Our word for how a prompt ended -> the word of /api/jobs.
ENDS = {"success": "completed", "error": "failed", "interrupted": "cancelled"}

STATES = ("pending", "in_progress", *ENDS.values())


def _job(item: Item, status: str, entry: Entry | None = None) -> dict[str, Any]:
    job: dict[str, Any] = {
        "id": item.prompt_id,
        "status": status,
        "priority": item.number,
        "create_time": item.created_ms,
        "outputs_count": 0,
    }
    for node_id, shown in (entry.outputs if entry else {}).items():
        for kind, saved in shown.items():
            files = [file for file in saved if isinstance(file, dict)]
            job["outputs_count"] += len(files)
            if files:
                about = {"nodeId": node_id, "mediaType": kind}
                job.setdefault("preview_output", files[0] | about)
    return job


def _jobs(engine: Engine) -> dict[str, tuple[dict[str, Any], Item, Entry | None]]:
    """Return all jobs, newest first."""
    running, pending = engine.queue.snapshot()
    jobs: dict[str, tuple[dict[str, Any], Item, Entry | None]] = {}
    for status, items in (("pending", pending[::-1]), ("in_progress", running)):
        for item in items:
            jobs.setdefault(item.prompt_id, (_job(item, status), item, None))
    for entry in reversed(engine.queue.history().values()):
        job = _job(entry.item, ENDS[entry.item.state], entry)
        jobs.setdefault(entry.item.prompt_id, (job, entry.item, entry))
    return jobs


async def get_jobs(request: web.Request) -> web.Response:
    """List jobs, newest first; `status` says in which states, with commas between."""
    wanted = request.query.get("status")
    states = wanted.split(",") if wanted else STATES
    if unknown := [state for state in states if state not in STATES]:
        text = f"Invalid status value(s): {', '.join(unknown)}."
        valid = f"Valid values: {', '.join(STATES)}"
        return web.json_response({"error": f"{text} {valid}"}, status=400)
    jobs = [job for job, _, _ in _jobs(request.app[ENGINE]).values()]
    jobs = [job for job in jobs if job["status"] in states]
    whole = {"offset": 0, "limit": None, "total": len(jobs), "has_more": False}
    return web.json_response({"jobs": jobs, "pagination": whole})


async def get_job(request: web.Request) -> web.Response:
    """Return one job with its outputs and graph."""
    found = _jobs(request.app[ENGINE]).get(request.match_info["job_id"])
    if found is None:
        return web.json_response({"error": "Job not found"}, status=404)
    job, item, entry = found
    job["workflow"] = {"prompt": item.graph, "extra_data": item.extra_data}
    if entry is not None:
        shape = entry.as_json()
        job |= {"outputs": shape["outputs"], "execution_status": shape["status"]}
    return web.json_response(job)
