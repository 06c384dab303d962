"""
How soon events and answers come through the gateway, beside the service itself.

Runs the real Caddy with our Caddyfile. The first event of a stream is what a watcher
waits for; its bound is 100 ms through the gateway.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests
import rig

ROUNDS = 50
BOUND_MS = 100


@contextlib.contextmanager
def gateway(folder: Path, upstream: str) -> Iterator[str]:
    """Run Caddy in front of a service and return the service's address there."""
    caddy = shutil.which("caddy")
    if caddy is None:
        sys.exit("there is no caddy: apt-get install caddy")
    ports = [rig.free_port() for _ in range(3)]
    environment = {
        "HTTP_PORT": str(ports[0]),
        "HTTPS_PORT": str(ports[1]),
        "CADDY_ADMIN": f"localhost:{ports[2]}",
        "SITE_ADDRESS": "http://localhost",
        "FASTWAN_UPSTREAM": upstream.removeprefix("http://"),
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    command = [caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with rig.process(command, environment):
        url = f"http://localhost:{ports[0]}/fastwan"
        rig.wait_for(f"{url}/health")
        yield url


def first_event_s(http: requests.Session, url: str, job_id: str) -> float:
    """Return the seconds from asking for a stream to the end of its first event."""
    began = time.perf_counter()
    with http.get(f"{url}/jobs/{job_id}/events", stream=True, timeout=30) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if not line:
                break
    return time.perf_counter() - began


def card_s(http: requests.Session, url: str) -> float:
    """Return the seconds that a small answer takes."""
    began = time.perf_counter()
    http.get(f"{url}/health", timeout=30).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Measure both ways in turn, while a job runs that does not end."""
    with (
        rig.folder() as folder,
        rig.engine(folder / "engine", speed=0.01) as engine_url,
        rig.wrapper(folder / "data", engine_url) as (direct, _),
        gateway(folder, direct) as front,
        requests.Session() as http,
    ):
        http.trust_env = False
        long = {**rig.TRIVIAL, "frames": 81, "steps": 50}
        job = http.post(f"{direct}/generate", json=long, timeout=30).json()
        events: dict[str, list[float]] = {direct: [], front: []}
        answers: dict[str, list[float]] = {direct: [], front: []}
        for _ in range(ROUNDS):
            for url in (direct, front):
                events[url].append(first_event_s(http, url, job["id"]))
                answers[url].append(card_s(http, url))
        http.post(f"{direct}/jobs/{job['id']}/cancel", timeout=30)
    worst = rig.ms(max(events[front]))
    rig.report(
        "gateway",
        {
            "first_event_p50_ms": rig.ms(rig.percentile(events[front], 0.5)),
            "first_event_max_ms": worst,
            "first_event_direct_p50_ms": rig.ms(rig.percentile(events[direct], 0.5)),
            "answer_p50_ms": rig.ms(rig.percentile(answers[front], 0.5)),
            "answer_direct_p50_ms": rig.ms(rig.percentile(answers[direct], 0.5)),
            "bound_ms": BOUND_MS,
        },
        worst < BOUND_MS,
    )


if __name__ == "__main__":
    main()
