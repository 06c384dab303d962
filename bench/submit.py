"""
How fast is a job acknowledged, with its row on disk, at a steady rate?

    python bench/submit.py [--rate 50] [--seconds 20]

Open loop: requests leave at fixed times whatever the answers do, and latency counts
from the planned moment. No engine runs, so that only acceptance is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig


async def measure(url: str, rate: float, seconds: float) -> None:
    """Send at the planned moments and judge."""
    latencies: list[float] = []

    async def one(http: aiohttp.ClientSession, planned: float, seed: int) -> None:
        body = {**rig.TRIVIAL, "seed": seed}
        async with http.post(f"{url}/generate", json=body) as answer:
            assert answer.status == 202, await answer.text()
            await answer.read()
        latencies.append(time.perf_counter() - planned)

    async with aiohttp.ClientSession() as http:
        for seed in range(20):
            await one(http, time.perf_counter(), seed)
        latencies.clear()
        began = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            planned = began + number / rate
            await asyncio.sleep(max(0.0, planned - time.perf_counter()))
            tasks.append(asyncio.create_task(one(http, planned, number)))
        await asyncio.gather(*tasks)
    p50, p99 = rig.percentile(latencies, 0.5), rig.percentile(latencies, 0.99)
    rig.report(
        "submit",
        {
            "rate": rate,
            "acknowledged": len(latencies),
            "p50_ms": rig.ms(p50),
            "p99_ms": rig.ms(p99),
        },
        ok=p50 < 0.015 and p99 < 0.060,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    nobody = f"http://127.0.0.1:{rig.free_port()}"
    with (
        rig.folder() as there,
        rig.wrapper(there / "data", nobody, ready="/health") as (address, _),
    ):
        asyncio.run(measure(address, options.rate, options.seconds))
