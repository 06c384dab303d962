"""wan runpod deploy, run and status, against the stand-in of RunPod's APIs."""

import asyncio
import base64
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.runpod import account
from tests.fake_runpod import ENDPOINT, KEY

SERVICE = "fastwan2.2-5b-packed"


@dataclass
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def wan(own_runpod, tmp_path):
    """Run `wan runpod` in a process of its own, with a key, in an empty folder."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "SYSTEMROOT": os.environ.get("SYSTEMROOT", ""),
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_ENDPOINT_BASE_URL": f"{own_runpod.url}/v2",
        "RUNPOD_REST_URL": f"{own_runpod.url}/v1",
    }

    async def run(*words, **more):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "common.cli.main", "runpod", *words),
            env={**env, **more},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        said = Said(process.returncode, out.decode(), err.decode())
        assert KEY not in said.out + said.err
        assert "Traceback" not in said.err, said.err
        return said

    return run


async def test_deploy_makes_an_endpoint_once(own_runpod, wan):
    """The second time it changes template and endpoint, and the id stays."""
    first = await wan("deploy", SERVICE, "--image", "ghcr.io/x/y:1", "--volume", "v1")
    second = await wan(
        *("deploy", SERVICE, "--image", "ghcr.io/x/y:2", "--gpu", "NVIDIA L40S"),
        *("--env", "BUCKET_NAME=clips", "--limit", "3600", "--workers-max", "5"),
    )

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out == second.out
    (template,) = own_runpod.kept["templates"].values()
    (endpoint,) = own_runpod.kept["endpoints"].values()
    assert endpoint["id"] == first.out.strip()
    assert template["imageName"] == "ghcr.io/x/y:2"
    assert template["isServerless"] is True
    assert template["dockerStartCmd"] == ["wan", "container", SERVICE]
    assert template["env"]["RUNPOD_INIT_TIMEOUT"] == "800"
    assert template["env"]["BUCKET_NAME"] == "clips"
    assert endpoint["templateId"] == template["id"]
    assert endpoint["gpuTypeIds"] == ["NVIDIA L40S"]
    assert endpoint["networkVolumeId"] == "v1"
    assert (endpoint["executionTimeoutMs"], endpoint["workersMax"]) == (3_600_000, 5)


async def test_a_dry_run_sends_nothing(own_runpod, wan):
    """It needs no key, and shows both bodies."""
    said = await wan(
        *("deploy", SERVICE, "--image", "ghcr.io/x/y:1", "--dry-run"), RUNPOD_API_KEY=""
    )

    shown = json.loads(said.out)
    assert shown["template"]["imageName"] == "ghcr.io/x/y:1"
    assert shown["endpoint"]["gpuTypeIds"] == ["NVIDIA GeForce RTX 4090"]
    assert own_runpod.kept == {"templates": {}, "endpoints": {}}


@pytest.mark.parametrize(
    ("words", "more", "code", "part"),
    [
        (("status", ENDPOINT), {"RUNPOD_API_KEY": "wrong"}, 2, "401"),
        (("status", "absent"), {}, 2, "404"),
        (("run", ENDPOINT, "--input", "{"), {}, 2, "no JSON"),
        (("run", ENDPOINT, "--input", "[]"), {}, 2, "object"),
        (("run", ENDPOINT, "--input", "@absent"), {}, 2, "No such file"),
        (("deploy", SERVICE, "--image", "x", "--env", "A"), {}, 2, "NAME=VALUE"),
    ],
    ids=["key", "endpoint", "JSON", "list", "file", "variable"],
)
async def test_what_is_wrong_is_said_in_a_line(wan, words, more, code, part):
    """With the exit code of wrong use."""
    said = await wan(*words, **more)

    assert said.code == code
    assert part in said.err


async def test_status_says_how_an_endpoint_fares(own_runpod, wan):
    """Also when RunPod is busy at first; what may be secret is left out."""
    own_runpod.kept["endpoints"][ENDPOINT] = {
        "id": ENDPOINT,
        "workersMax": 3,
        "env": {"BUCKET_SECRET_ACCESS_KEY": "canary"},
    }
    own_runpod.refusals = [503]
    said = await wan("status", ENDPOINT)

    shown = json.loads(said.out)
    assert shown["workersMax"] == 3
    assert shown["jobs"]["inQueue"] == 0
    assert "canary" not in said.out


async def test_run_follows_a_job_and_keeps_its_file(own_runpod, wan, tmp_path):
    """The limit goes along; an inline file is put into the folder."""

    async def work():
        await own_runpod.until(lambda: own_runpod.jobs)
        job = await own_runpod.queue.get()
        data = base64.b64encode(b"film").decode()
        output = {"name": "../video.mp4", "data": data}
        own_runpod.settle(job, {"output": [{"outputs": [output]}]})
        return job

    working = asyncio.create_task(work())
    said = await wan(
        *("run", ENDPOINT, "--input", '{"prompt": "a fox"}'),
        *("--output", "clips", "--limit", "60"),
    )
    job = await working

    assert said.code == 0, said.err
    (path,) = (tmp_path / "clips").iterdir()
    assert path.read_bytes() == b"film"
    assert path.name in said.out
    assert job.body["policy"] == {"executionTimeout": 60_000}


async def test_run_says_why_a_job_failed(own_runpod, wan):
    """With the worker's own words, and exit code 1."""

    async def work():
        await own_runpod.until(lambda: own_runpod.jobs)
        job = await own_runpod.queue.get()
        own_runpod.settle(job, {"error": '{"code": "invalid_input"}'})

    working = asyncio.create_task(work())
    said = await wan("run", ENDPOINT, "--input", "{}")
    await working

    assert said.code == 1
    assert "FAILED" in said.err
    assert "invalid_input" in said.err


def test_a_client_needs_a_key():
    """It says so at once, by the variable's name."""
    with pytest.raises(account.Denied, match="RUNPOD_API_KEY is not set"):
        account.Client(account.Account(api_key=None))
