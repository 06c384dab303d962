"""
kill -9 the wrapper again and again under load; is anything lost, or made twice?

    python bench/kill_loop.py [--kills 20]

Every client sends with an Idempotency-Key and tries again with the same key until it is
acknowledged. In the end every acknowledged job must have succeeded, once.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig


class Load:
    """Clients that never give up."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: dict[str, str] = {}  #: key → job id
        self.changed = 0  #: answers that named another job for the same key
        self.retries = 0
        self.stop = False

    async def client(self, http: aiohttp.ClientSession) -> None:
        """Send one job after the other."""
        while not self.stop:
            key = str(uuid.uuid4())
            body = {**rig.TRIVIAL, "seed": random.randrange(2**31)}
            job_id = await self.send(http, key, body)
            self.acknowledged[key] = job_id
            if random.random() < 0.3 and await self.send(http, key, body) != job_id:
                self.changed += 1
            await asyncio.sleep(0.05)

    async def send(self, http: aiohttp.ClientSession, key: str, body: object) -> str:
        """Try until acknowledged."""
        while True:
            try:
                async with http.post(
                    f"{self.url}/generate",
                    json=body,
                    headers={"Idempotency-Key": key},
                    timeout=aiohttp.ClientTimeout(5),
                ) as answer:
                    if answer.status == 202:
                        return str((await answer.json())["id"])
                    assert answer.status in (429, 503), await answer.text()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            self.retries += 1
            await asyncio.sleep(0.05)


async def over(url: str, limit_s: float) -> dict[str, int]:
    """Wait until no job is open; return how many have each status."""
    end = time.monotonic() + limit_s
    async with aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{url}/jobs?status=queued,running,canceling") as a:
                still_open = (await a.json())["jobs"]
            if not still_open or time.monotonic() > end:
                return {"open": len(still_open)}
            await asyncio.sleep(0.5)


async def measure(folder: Path, engine_url: str, kills: int) -> None:
    """Load, kill, restart; then read the database."""
    port, data = rig.free_port(), folder / "data"
    url = f"http://127.0.0.1:{port}"
    command = rig.serve_command(data, port, engine_url)
    environment = {"LOG_LEVEL": "error", "WAN_QUEUE_LIMIT": "100000"}

    def start() -> subprocess.Popen[bytes]:
        return rig.spawn(command, environment)

    load, back = Load(url), []
    child = start()
    await asyncio.to_thread(rig.wait_for, f"{url}/health")
    async with aiohttp.ClientSession() as http:
        clients = [asyncio.create_task(load.client(http)) for _ in range(4)]
        for _ in range(kills):
            await asyncio.sleep(random.uniform(0.2, 1.5))
            child.send_signal(signal.SIGKILL)
            child.wait()
            began = time.monotonic()
            child = start()
            await asyncio.to_thread(rig.wait_for, f"{url}/health")
            back.append(time.monotonic() - began)
        load.stop = True
        await asyncio.gather(*clients)
    left = await over(url, 300)
    child.terminate()
    child.wait(30)

    with sqlite3.connect(data / "jobs.sqlite3") as database:
        integrity = database.execute("PRAGMA integrity_check").fetchone()[0]
        rows = dict(database.execute("SELECT id, status FROM jobs"))
        keys = dict(database.execute("SELECT key, job_id FROM idempotency_keys"))
    database.close()
    finished = collections.Counter(
        path.parent.name for path in (data / "jobs").glob("*/video*.mp4")
    )
    lost = [k for k, job in load.acknowledged.items() if rows.get(job) != "succeeded"]
    twice = [job for job, files in finished.items() if files > 1]
    moved = [k for k, job in load.acknowledged.items() if keys.get(k) != job]
    missing = [job for job in load.acknowledged.values() if not finished[job]]
    rig.report(
        "kill_loop",
        {
            "kills": kills,
            "acknowledged": len(load.acknowledged),
            "lost": len(lost),
            "with_two_results": len(twice) + len(rows) - len(set(keys.values())),
            "answers_changed": load.changed + len(moved),
            "files_missing": len(missing),
            "retries": load.retries,
            "integrity": integrity,
            "back_s_median": round(rig.percentile(back, 0.5), 2),
            **left,
        },
        ok=not (lost or twice or moved or missing or load.changed)
        and len(rows) == len(keys)
        and integrity == "ok",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with rig.folder() as there, rig.engine(there / "engine") as engine_address:
        asyncio.run(measure(there, engine_address, options.kills))
