"""
Ten thousand jobs: how long do lists and the start take? And what does idling cost?

    python bench/store.py [--jobs 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig
from common.job import Failed, Job, JobError, Started
from common.jobs.store import Accepted, Store
from common.service import find, load


async def fill(data: Path, jobs: int, waiting: int) -> None:
    """Write a history of jobs that ended, and some that still wait."""
    data.mkdir(parents=True)
    at = datetime.now(UTC)
    store = Store(f"sqlite:///{data / 'jobs.sqlite3'}", lambda: at)
    await store.open()
    service = load(find(rig.SERVICE))
    request = service.request.accept({**rig.TRIVIAL, "seed": 1})
    workflow = request.apply(service.workflow)
    fields = request.model_dump(mode="json")
    job = Job("", service.name, "comfyui", fields, at)

    async def one(number: int) -> None:
        here = replace(job, id=str(uuid.uuid4()))
        await store.add(Accepted(here, workflow))
        if number >= waiting:
            over = here.after(Started(at)).after(Failed(JobError("x", "y"), at))
            await store.save(over)

    for start in range(0, jobs, 500):
        await asyncio.gather(*(one(n) for n in range(start, min(jobs, start + 500))))
    await store.aclose()


async def lists(url: str, rounds: int) -> list[float]:
    """Return the seconds that each GET /jobs took, over different pages."""
    found = []
    async with aiohttp.ClientSession() as http:
        cursor = None
        for _ in range(rounds):
            params = {"limit": "50", **({"cursor": cursor} if cursor else {})}
            began = time.perf_counter()
            async with http.get(f"{url}/jobs", params=params) as answer:
                page = await answer.json()
            found.append(time.perf_counter() - began)
            assert len(page["jobs"]) == 50
            cursor = page["next_cursor"]
    return found[10:]


def idle(pid: int, seconds: float) -> tuple[float, float]:
    """Return (RSS in MB, share of one core) of a process that has nothing to do."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    spent = sum(process.cpu_times()[:2]) - before
    return process.memory_info().rss / 2**20, spent / seconds


def help_s() -> float:
    """Return the best of five times of `wan --help`."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        command = [sys.executable, "-m", "common.cli.main", "--help"]
        subprocess.run(command, cwd=rig.ROOT, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def main(jobs: int) -> None:
    """Fill, start, list, idle; then judge."""
    with rig.folder() as there, rig.engine(there / "engine") as engine_url:
        with rig.wrapper(there / "empty", engine_url) as (_, pid):
            time.sleep(3)
            rss_mb, cpu = idle(pid, 10)
        asyncio.run(fill(there / "data", jobs, waiting=50))
        nobody = f"http://127.0.0.1:{rig.free_port()}"
        began = time.perf_counter()
        with rig.wrapper(there / "data", nobody, ready="/health") as (url, _):
            start_s = time.perf_counter() - began
            times = asyncio.run(lists(url, 160))
    p99 = rig.percentile(times, 0.99)
    help_time = help_s()
    rig.report(
        "store",
        {
            "jobs": jobs,
            "list_p50_ms": rig.ms(rig.percentile(times, 0.5)),
            "list_p99_ms": rig.ms(p99),
            "start_with_reconcile_s": round(start_s, 2),
            "idle_rss_mb": round(rss_mb, 1),
            "idle_cpu_percent": round(cpu * 100, 2),
            "help_ms": rig.ms(help_time),
        },
        ok=p99 < 0.05
        and start_s < 3
        and rss_mb < 120
        and cpu < 0.01
        and help_time < 0.4,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    main(parser.parse_args().jobs)
