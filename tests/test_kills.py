"""Real processes, really killed: nothing that was acknowledged is lost."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from common.models.needs import needs
from tests.live import DONE, SMALL, engine, fastwan
from tests.models.shelf import shelf

ROOT = Path(__file__).parent.parent
WINDOWS = sys.platform == "win32"


class Service:
    """A wrapper in a process of its own."""

    def __init__(self, data, http, **environment):
        self.data = data
        self.http = http
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "WAN_DRAIN_S": "20", **environment}
        self.process = None

    async def start(self):
        with (self.data.parent / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(self.port),
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        await self.answers("/health")

    def command(self, port):
        return [
            *(sys.executable, "-m", "common.cli.main", "serve"),
            *("fastwan2.2-5b-network-storage", "--port", str(port)),
            *("--data", str(self.data)),
        ]

    async def answers(self, path, status=200):
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    async with self.http.get(self.url + path) as answer:
                        if answer.status == status:
                            return await answer.json()
                assert self.process.poll() is None, self.log()
                await asyncio.sleep(0.05)

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        return self.process.wait(60)

    def engine(self):
        """Return the engine, which is the wrapper's child."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    async def submit(self, key=None, **fields):
        headers = {"Idempotency-Key": key} if key else {}
        async with self.http.post(
            f"{self.url}/generate", json={**SMALL, **fields}, headers=headers
        ) as answer:
            assert answer.status == 202, await answer.text()
            return await answer.json()

    async def get(self, job_id):
        async with self.http.get(f"{self.url}/jobs/{job_id}") as answer:
            return await answer.json()

    async def until(self, job_id, condition):
        async with asyncio.timeout(60):
            while not condition(job := await self.get(job_id)):
                await asyncio.sleep(0.05)
        return job

    async def finished(self, job_id):
        return await self.until(job_id, lambda job: job["status"] in DONE)

    def log(self):
        return (self.data.parent / "service.log").read_text()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def start(tmp_path):
    """Return a function that starts a service; whatever is left is ended."""
    started = []
    async with aiohttp.ClientSession() as http:

        async def make(**environment):
            service = Service(tmp_path / "data", http, **environment)
            started.append(service)
            await service.start()
            return service

        yield make
        for service in started:
            if service.process.poll() is None:
                service.kill(signal.SIGTERM if not WINDOWS else signal.SIGKILL)


def own_engine(speed="1"):
    """Return the environment of a service with an engine of its own."""
    return {
        "WAN_ENGINE": "embedded",
        "WAN_ENGINE_PORT": str(free_port()),
        "WAN_ENGINE_SPEED": speed,
    }


async def test_an_engine_that_is_killed_costs_an_attempt(start):
    """kill -9 in mid-job: the engine is started again, and so is the job."""
    service = await start(**own_engine())
    await service.answers("/ready")
    job = await service.submit(steps=8)
    waiting = await service.submit(seed=8)
    await service.until(job["id"], lambda j: j["progress"]["step"])

    service.engine().kill()
    done = await service.finished(job["id"])
    behind = await service.finished(waiting["id"])

    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert (behind["status"], behind["attempt"]) == ("succeeded", 1)


async def test_a_wrapper_that_is_killed_takes_its_job_up_again(start, tmp_path):
    """kill -9 in mid-job over an engine that goes on: one prompt, one video."""
    async with engine(tmp_path / "engine", speed=1) as engine_url:
        service = await start(COMFYUI_URL=engine_url)
        await service.answers("/ready")
        job = await service.submit(steps=12, key="k1")
        waiting = await service.submit(seed=8)
        await service.until(job["id"], lambda j: j["progress"]["step"])

        service.kill()
        await service.start()
        again = await service.submit(steps=12, key="k1")
        done = await service.finished(job["id"])
        behind = await service.finished(waiting["id"])
        async with service.http.get(f"{engine_url}/embedded/log") as answer:
            prompts = [p["prompt_id"] for p in await answer.json()]

    assert again["id"] == job["id"]
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert behind["status"] == "succeeded"
    assert prompts == [job["id"], waiting["id"]]


async def test_both_killed_at_once_lose_nothing(start):
    """The engine dies with its wrapper; the next start runs the job anew."""
    service = await start(**own_engine())
    await service.answers("/ready")
    job = await service.submit(steps=8)
    await service.until(job["id"], lambda j: j["progress"]["step"])
    child = service.engine()

    service.kill()
    psutil.wait_procs([child], timeout=20)
    await service.start()
    done = await service.finished(job["id"])

    assert not child.is_running()
    assert (done["status"], done["attempt"]) == ("succeeded", 2)


@pytest.mark.skipif(WINDOWS, reason="Windows has no SIGTERM to catch")
async def test_a_polite_stop_finishes_what_runs(start):
    """SIGTERM: nothing new is taken, the running job ends, exit status 0."""
    service = await start(**own_engine())
    await service.answers("/ready")
    job = await service.submit(steps=4)
    waiting = await service.submit(seed=8)
    await service.until(job["id"], lambda j: j["progress"]["step"])

    service.process.terminate()
    await service.answers("/ready", status=503)
    async with service.http.post(f"{service.url}/generate", json=SMALL) as answer:
        refused = (answer.status, (await answer.json())["code"])
    status = service.process.wait(60)
    await service.start()
    done = await service.get(job["id"])
    behind = await service.finished(waiting["id"])

    assert refused == (503, "shutting_down")
    assert status == 0
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert (behind["status"], behind["attempt"]) == ("succeeded", 1)


@pytest.mark.skipif(WINDOWS, reason="Windows has no SIGTERM to catch")
async def test_an_impatient_stop_gives_the_job_back(start):
    """Without time to finish, the attempt does not count."""
    service = await start(**own_engine(), WAN_DRAIN_S="0")
    await service.answers("/ready")
    job = await service.submit(steps=20)
    await service.until(job["id"], lambda j: j["progress"]["step"])

    assert service.kill(signal.SIGTERM) == 0
    await service.start()
    done = await service.finished(job["id"])

    assert (done["status"], done["attempt"]) == ("succeeded", 1)


async def test_a_second_service_on_the_same_data_is_refused(start, tmp_path):
    """With one clear line, and the first goes on."""
    service = await start(COMFYUI_URL="http://127.0.0.1:9")
    second = subprocess.run(
        service.command(free_port()),
        cwd=ROOT,
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert second.returncode == 2
    assert "another process" in second.stderr
    assert "Traceback" not in second.stderr
    await service.answers("/health")


async def test_weights_that_came_before_a_kill_do_not_come_again(start, tmp_path):
    """kill -9 while a job waits for its weights: the next start goes on from there."""
    with shelf(tmp_path / "shelf", rate=1_000_000) as there:
        for name, where in fastwan_weights():
            there.put(name, 2_000_000, where=where)
        fetches = {
            "WAN_MODELS": str(there.folder / "root"),
            "WAN_MODELS_MANIFEST": str(there.write()),
            "WAN_MODELS_ENSURE": "true",
            "WAN_MODELS_MARGIN_GB": "0",
        }
        service = await start(**own_engine("0"), **fetches)
        job = await service.submit()
        early = await service.until(
            job["id"], lambda j: (j["progress"]["done_bytes"] or 0) > 2_500_000
        )
        engine_left = service.engine()
        service.kill()
        engine_left.kill()
        there.server.rate = None
        await service.start()
        done = await service.finished(job["id"])

    assert early["progress"]["stage"] == "downloading"
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    # The file that was under way may come again, and not those that were there.
    assert there.server.sent < 10_500_000


def fastwan_weights():
    """Return (name, folder) of what FastWan loads."""
    return [(need.name, need.folder) for need in needs(fastwan())]
