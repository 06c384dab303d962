"""The worker under the SDK's real loop, against the stand-in of the platform."""

import asyncio
import base64
import hashlib
import json
import signal

import pytest
import requests

from tests.runpod.conftest import small, worker

pytest.importorskip("runpod")
pytest.importorskip("obstore")


def running(job):
    """Tell whether the last that the worker said of a job is that it runs."""
    told = job.posts[-1].get("output") if job.posts else None
    return isinstance(told, dict) and told["status"] == "running"


async def test_a_job_comes_back_with_its_file(runpod, fast):
    """Whole jobs are streamed; the result is the last of them, with the file in it."""
    job = await runpod.finished(runpod.put("happy-u1", small()))

    assert job.status == "COMPLETED", (job.result, fast.text())
    (result,) = job.result["output"]
    (output,) = result["outputs"]
    assert result["status"] == "succeeded"
    assert base64.b64decode(output["data"])[4:8] == b"ftyp"
    assert "url" not in output
    streamed = [chunk["output"] for chunk in job.stream]
    assert [one["status"] for one in (streamed[0], streamed[-1])] == [
        "queued",
        "succeeded",
    ]
    assert "data" not in streamed[-1]["outputs"][0]  # a chunk may have 1 MB
    assert "red fox" not in fast.text()


async def test_no_update_follows_the_result(runpod, fast):
    """Updates are whole jobs, and each has arrived before the next thing is sent."""
    runpod.slow_s = 1.0
    try:
        job = await runpod.finished(runpod.put("progress-u1", small(seed=8)))
    finally:
        runpod.slow_s = 0.0

    *updates, result = job.posts
    assert not job.overtaken
    assert updates
    assert all(one["status"] == "IN_PROGRESS" for one in updates)
    assert all(one["output"]["progress"]["stage"] for one in updates)
    assert "output" in result
    assert "status" not in result
    assert job.status == "COMPLETED"


@pytest.mark.parametrize(
    ("input_", "code", "field"),
    [
        (small(stpes=4), "invalid_input", "stpes"),
        (small(image="http://127.0.0.2/x.png"), "input_unreachable", "image"),
        ("a red fox", "invalid_input", "input"),
    ],
    ids=["unknown field", "forbidden address", "text"],
)
async def test_a_bad_request_is_refused_in_a_line(runpod, fast, input_, code, field):
    """By field, as over HTTP, and without a traceback or the name of the machine."""
    job = await runpod.finished(runpod.put(f"bad-{len(runpod.jobs)}", input_))

    assert job.status == "FAILED"
    said = json.loads(job.result["error"])
    assert (said["code"], said["errors"][0]["field"]) == (code, field)
    assert said["errors"][0]["message"]
    assert len(job.result["error"]) < 500
    assert "Traceback" not in job.result["error"]


async def test_a_request_brings_its_own_bucket(runpod, fast, s3):
    """The file is there under the job's id, and only a link to it comes back."""
    config = {
        "endpointUrl": s3,
        "accessId": "id-of-mine",
        "accessSecret": "canary-secret",
        "bucketName": "clips",
    }
    job = await runpod.finished(runpod.put("s3-u1", small(seed=12), s3Config=config))
    closed = {**config, "endpointUrl": "http://169.254.169.254/"}
    refused = await runpod.finished(runpod.put("s3-u2", small(), s3Config=closed))

    (result,) = job.result["output"]
    (output,) = result["outputs"]
    answer = await asyncio.to_thread(requests.get, output["url"], timeout=10)
    assert hashlib.sha256(answer.content).hexdigest() == output["sha256"]
    assert result["id"] in output["url"]
    assert "data" not in output
    field = json.loads(refused.result["error"])["errors"][0]["field"]
    assert field == "s3Config.endpointUrl"
    assert "canary-secret" not in fast.text() + json.dumps(job.posts)


async def test_a_job_that_is_delivered_twice_is_made_once(runpod, fast):
    """The same id is the same job: its result is handed over again."""
    first = await runpod.finished(runpod.put("twice-u1", small(seed=21)))
    count = len(await fast.prompts())
    second = await runpod.finished(runpod.put("twice-u1", small(seed=21)))

    assert len(await fast.prompts()) == count
    assert second.result == first.result


async def test_a_failed_job_is_made_anew_when_it_is_delivered_again(runpod, fast):
    """A caller's retry is another try; a broken node costs no worker."""
    await fast.fault(
        error_at_node={"node": "VAEDecode", "type": "ValueError", "message": "odd"},
        times=1,
    )
    first = await runpod.finished(runpod.put("again-u1", small(seed=22)))
    second = await runpod.finished(runpod.put("again-u1", small(seed=22)))

    said = json.loads(first.result["error"])
    assert (first.status, said["code"], said["retryable"]) == (
        "FAILED",
        "internal",
        False,
    )
    assert said["hint"]
    assert "stopPod" not in first.posts[-1]
    assert second.status == "COMPLETED"


@pytest.mark.parametrize(("status", "seed"), [("CANCELLED", 31), ("TIMED_OUT", 32)])
async def test_a_stop_signal_frees_the_gpu(runpod, fast, status, seed):
    """A cancel and a time-out interrupt ComfyUI; the worker goes on with the next."""
    await fast.fault(hang_at_node="KSampler")
    job = runpod.put(f"stop-{status}", small(seed=seed))
    try:
        await runpod.until(lambda: running(job))
        runpod.stop(job, status)
        await fast.idle()
    finally:
        await fast.fault(reset=True)

    assert job.status == status
    assert running(job)  # nothing was posted once it had been stopped
    retried = await runpod.finished(runpod.put(f"stop-{status}", small(seed=seed)))
    assert retried.status == "COMPLETED"


async def test_sigterm_lets_the_running_job_finish(own_runpod, tmp_path, engine_url):
    """No job more is taken, the one that runs is handed over, and the exit is clean."""
    env = {**own_runpod.env(), "COMFYUI_URL": engine_url}
    async with worker(tmp_path, env) as one:
        await one.fault(delay_history_s=0.6)
        job = own_runpod.put("drained-u1", small())
        await own_runpod.until(lambda: job.posts)
        one.process.send_signal(signal.SIGTERM)
        await own_runpod.finished(job)
        late = own_runpod.put("late-u1", small())
        code = await one.wait()

    assert job.status == "COMPLETED", one.text()
    assert code == 0, one.text()
    late.end("CANCELLED")


async def test_a_spoilt_gpu_costs_the_worker(own_runpod, tmp_path, engine_url):
    """After a sticky CUDA fault the platform is asked for a fresh one."""
    env = {**own_runpod.env(), "COMFYUI_URL": engine_url}
    async with worker(tmp_path, env) as one:
        message = "CUDA error: an illegal memory access was encountered"
        await one.fault(
            error_at_node={
                "node": "KSampler",
                "type": "RuntimeError",
                "message": message,
            }
        )
        job = await own_runpod.finished(own_runpod.put("sticky-u1", small()))
        code = await one.wait()

    assert job.status == "FAILED"
    assert job.posts[-1]["stopPod"] is True
    assert "illegal memory access" in json.loads(job.posts[-1]["error"])["message"]
    assert code == 0


async def test_a_worker_without_comfyui_says_so_and_ends(own_runpod, tmp_path):
    """It never takes a job, and the platform hears which check failed."""
    env = {
        **own_runpod.env(),
        "COMFYUI_URL": "http://127.0.0.1:9",
        "RUNPOD_INIT_TIMEOUT": "1",
    }
    async with worker(tmp_path, env) as one:
        code = await one.wait()

    unhealthy = [ping for ping in own_runpod.pings if ping.get("status") == "unhealthy"]
    assert code == 1
    assert unhealthy[-1]["check"] == "comfyui_answers"
    assert "no ComfyUI answered" in unhealthy[-1]["reason"]


async def test_the_embedded_engine_is_never_taken_for_comfyui(own_runpod, tmp_path):
    """An endpoint that names no ComfyUI does not start, and says what to set."""
    async with worker(tmp_path, own_runpod.env()) as one:
        assert await one.wait() == 2

    assert "COMFYUI_DIR" in one.text()
