"""
What a job costs over the engine driven directly, one at a time and 20 at once.

Direct: open a socket, POST the graph, read events to the end, fetch the bytes. Through
the wrapper: POST /generate and wait, fetch the bytes of the checked and published file.
Both run the same trivial graph; they alternate in one run, so that noise hits both.

The engine is the wrapper's own child, as it is by default and in the images; with
--remote it is somebody else's, so that the wrapper has its files over HTTP.

    python bench/overhead.py [--jobs 200] [--callers 20] [--remote]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig
from common.service import find, load

SEEDS = itertools.count(1)


class Direct:
    """Drives the engine as a careful client without a wrapper would."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url = http, url
        self.service = load(find(rig.SERVICE))

    async def job(self) -> int:
        """Run one job; return the size of its file."""
        request = self.service.request.accept({**rig.TRIVIAL, "seed": next(SEEDS)})
        workflow = request.apply(self.service.workflow)
        prompt_id = str(uuid.uuid4())
        workflow.patch(self.service.output, "filename_prefix", f"direct/{prompt_id}")
        client = uuid.uuid4().hex
        found: dict[str, str] = {}
        async with self.http.ws_connect(f"{self.url}/ws?clientId={client}") as ws:
            body = {
                "prompt": workflow.nodes,
                "prompt_id": prompt_id,
                "client_id": client,
            }
            async with self.http.post(f"{self.url}/prompt", json=body) as answer:
                assert answer.status == 200, await answer.text()
            async for message in ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                frame = json.loads(message.data)
                data = frame["data"]
                if data.get("prompt_id") != prompt_id:
                    continue
                if frame["type"] == "executed":
                    found = data["output"]["images"][0]
                if frame["type"] == "executing" and data["node"] is None:
                    break
        async with self.http.get(f"{self.url}/view", params=found) as answer:
            return len(await answer.read())


class Wrapped:
    """Sends the same through the wrapper."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url = http, url

    async def job(self) -> int:
        """Run one job; return the size of its file."""
        body = {**rig.TRIVIAL, "seed": next(SEEDS)}
        headers = {"Prefer": "wait=60"}
        async with self.http.post(
            f"{self.url}/generate", json=body, headers=headers
        ) as answer:
            job = await answer.json()
        assert job["status"] == "succeeded", job
        async with self.http.get(self.url + job["outputs"][0]["url"]) as answer:
            return len(await answer.read())


async def timed(way: Direct | Wrapped) -> float:
    """Return the seconds of one job."""
    began = time.perf_counter()
    assert await way.job() > 500
    return time.perf_counter() - began


async def rate(way: Direct | Wrapped, jobs: int, callers: int) -> float:
    """Return jobs per second with so many callers at once."""
    left = iter(range(jobs))

    async def caller() -> None:
        for _ in left:
            await way.job()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return jobs / (time.perf_counter() - began)


async def measure(engine_url: str, url: str, jobs: int, callers: int) -> None:
    """Alternate both ways and print the figures."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        direct, wrapped = Direct(http, engine_url), Wrapped(http, url)
        for _ in range(10):
            await direct.job()
            await wrapped.job()
        pairs = [(await timed(direct), await timed(wrapped)) for _ in range(jobs)]
        rates = [
            (await rate(direct, jobs, callers), await rate(wrapped, jobs, callers))
            for _ in range(3)
        ]
    over = [b - a for a, b in pairs]
    shares = sorted(b / a for a, b in rates)
    median, p99 = rig.percentile(over, 0.5), rig.percentile(over, 0.99)
    rig.report(
        "overhead",
        {
            "direct_median_ms": rig.ms(rig.percentile([a for a, _ in pairs], 0.5)),
            "wrapped_median_ms": rig.ms(rig.percentile([b for _, b in pairs], 0.5)),
            "overhead_median_ms": rig.ms(median),
            "overhead_p99_ms": rig.ms(p99),
            "callers": callers,
            "direct_jobs_per_s": [round(a, 1) for a, _ in rates],
            "wrapped_jobs_per_s": [round(b, 1) for _, b in rates],
            "throughput_share": round(shares[1], 3),
        },
        ok=median <= 0.005 and p99 <= 0.025 and shares[1] >= 0.9,
    )


@contextlib.contextmanager
def served(remote: bool) -> Iterator[tuple[str, str]]:
    """Run an engine and a wrapper; return their addresses."""
    with rig.folder() as there:
        if not remote:
            with rig.wrapper_and_engine(there / "data") as (url, engine_url):
                yield engine_url, url
            return
        with (
            rig.engine(there / "engine") as engine_url,
            rig.wrapper(there / "data", engine_url) as (url, _),
        ):
            yield engine_url, url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--remote", action="store_true")
    options = parser.parse_args()
    with served(options.remote) as addresses:
        asyncio.run(measure(*addresses, options.jobs, options.callers))
