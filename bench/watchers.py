"""
One job, a thousand watchers: does each see its end, and how late?

    python bench/watchers.py [--watchers 1000]

Lag is the time from the job's `completed_at`, stamped before the commit, to the arrival
of the last event at a watcher; all in one process on the same machine, so the readers'
own work counts too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig


async def watch(port: int, job_id: str, ready: asyncio.Event) -> tuple[str, float]:
    """Read one stream to its end; return the last status and its arrival."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    path = f"/jobs/{job_id}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    last, arrived = "", 0.0
    try:
        async for line in reader:
            if line.startswith(b"data: ") and b'"status"' in line:
                ready.set()
                arrived = time.time()
                last = line[6:].decode()
            if line.startswith(b"0\r\n"):
                break
    finally:
        writer.close()
    return last, arrived


async def measure(url: str, pid: int, engine_url: str, watchers: int) -> None:
    """Submit, watch, judge."""
    port = int(url.rpartition(":")[2])
    body = json.dumps({**rig.TRIVIAL, "steps": 12}).encode()
    request = urllib.request.Request(
        f"{url}/generate", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        job = json.load(answer)
    ready = [asyncio.Event() for _ in range(watchers)]
    tasks = [
        asyncio.create_task(watch(port, job["id"], ready[n])) for n in range(watchers)
    ]
    await asyncio.wait_for(asyncio.gather(*(r.wait() for r in ready)), 60)
    upstream = sockets(pid, int(engine_url.rpartition(":")[2]))
    rss = psutil.Process(pid).memory_info().rss
    ends = await asyncio.wait_for(asyncio.gather(*tasks), 120)
    states = [json.loads(last) for last, _ in ends]
    succeeded = sum(state["status"] == "succeeded" for state in states)
    done = datetime.fromisoformat(states[0]["completed_at"]).timestamp()
    lags = [arrived - done for _, arrived in ends]
    p99 = rig.percentile(lags, 0.99)
    rig.report(
        "watchers",
        {
            "watchers": watchers,
            "saw_the_end": succeeded,
            "lag_median_ms": rig.ms(rig.percentile(lags, 0.5)),
            "lag_p99_ms": rig.ms(p99),
            "connections_to_engine": upstream,
            "rss_mb": round(rss / 2**20),
        },
        ok=succeeded == watchers and p99 < 0.25 and upstream <= 2,
    )


def sockets(pid: int, port: int) -> int:
    """Return how many connections the wrapper has to its engine."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(c.status == "ESTABLISHED" and c.raddr.port == port for c in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1000)
    options = parser.parse_args()
    with (
        rig.folder() as there,
        rig.engine(there / "engine", speed=0.5) as engine_address,
        rig.wrapper(there / "data", engine_address) as (address, wrapper_pid),
    ):
        asyncio.run(measure(address, wrapper_pid, engine_address, options.watchers))
