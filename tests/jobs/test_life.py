"""The life of a job, end to end over real ports, with the engine broken on purpose."""

import asyncio
import contextlib
import json

import pytest

from common.errors import StoreUnavailable
from tests.live import both, engine, wrapper

QUICK = {"poll_s": 0.2, "zombie_s": 0.5, "cancel_s": 1.5, "load_s": 3.0, "step_s": 1.0}


async def test_a_prompt_becomes_a_checked_video(live):
    """From 202 to a file with the asked size, length, pace and hash."""
    job = await live.job(width=320, height=256, frames=9, fps=16)
    done = await live.finished(job["id"])

    assert done["status"] == "succeeded"
    (output,) = done["outputs"]
    assert (output["width"], output["height"]) == (320, 256)
    assert (output["frames"], output["fps"]) == (9, 16.0)
    async with live.http.get(live.url + output["url"]) as answer:
        data = await answer.read()
    assert len(data) == output["size_bytes"]
    assert b"red fox" not in data
    async with live.http.get(live.url + output["poster_url"]) as answer:
        assert answer.content_type == "image/jpeg"


async def test_the_same_request_again_gives_a_file_of_its_own(live):
    """ComfyUI has every node cached, and still each job gets its video."""
    first = await live.finished((await live.job())["id"])
    second = await live.finished((await live.job())["id"])

    assert first["status"] == second["status"] == "succeeded"
    assert first["outputs"][0]["sha256"] == second["outputs"][0]["sha256"]
    assert first["id"] != second["id"]


async def test_a_queued_job_that_is_canceled_never_starts(tmp_path):
    """The engine never hears of it."""
    async with both(tmp_path, speed=2) as live:
        running = await live.job(steps=8)
        queued = await live.job(seed=8)
        assert (await live.get(f"/jobs/{queued['id']}"))[1]["queue_position"] == 0

        status, body = await live.post(f"/jobs/{queued['id']}/cancel")

        assert (status, body["status"]) == (200, "canceled")
        await live.post(f"/jobs/{running['id']}/cancel")
        await live.finished(running["id"])
        assert [p["prompt_id"] for p in await live.prompts()] == [running["id"]]


async def test_a_running_job_that_is_canceled_frees_the_engine(tmp_path):
    """The next job runs although the first would have taken long."""
    async with both(tmp_path, speed=0.5) as live:
        job = await live.job(steps=50)
        await live.until(job["id"], lambda j: j["progress"]["stage"] == "sampling")

        status, body = await live.post(f"/jobs/{job['id']}/cancel")
        assert (status, body["status"]) == (200, "canceling")
        assert (await live.finished(job["id"]))["status"] == "canceled"
        again = await live.post(f"/jobs/{job['id']}/cancel")
        following = await live.finished((await live.job(steps=1, seed=9))["id"])

        assert (again[0], again[1]["status"]) == (200, "canceled")
        assert following["status"] == "succeeded"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"oom_at_node": "KSampler"}, "out_of_memory"),
        ({"half_file": True}, "bad_output"),
        ({"no_file": True}, "no_output"),
        ({"no_outputs": True}, "no_output"),
        ({"node_errors_200": True}, "invalid_workflow"),
    ],
    ids=lambda value: str(value),
)
async def test_each_failure_has_its_code_and_the_next_job_runs(live, fault, code):
    """What breaks one job breaks no other, and no traceback or path is told."""
    await live.fault(**fault)
    failed = await live.finished((await live.job())["id"])
    await live.fault(reset=True)
    following = await live.finished((await live.job(seed=8))["id"])

    assert failed["status"] == "failed"
    assert failed["error"]["code"] == code
    assert failed["error"]["hint"]
    assert "Traceback" not in json.dumps(failed)
    assert following["status"] == "succeeded"


async def test_a_passing_fault_costs_an_attempt_and_not_the_job(live):
    """A file that came out broken once is saved again."""
    await live.fault(half_file=True, times=1)
    done = await live.finished((await live.job())["id"])

    assert (done["status"], done["attempt"]) == ("succeeded", 2)


@pytest.mark.parametrize(
    "fault",
    [
        {"drop_frames": "all"},
        {"drop_frames": ["executed", "executing_null", "execution_success"]},
        {"mute_socket": True},
        {"delay_history_s": 0.5},
    ],
    ids=str,
)
async def test_frames_that_never_come_do_not_hold_a_job_up(tmp_path, fault):
    """History is the truth; the socket only makes it quicker."""
    async with both(tmp_path, limits=QUICK) as live:
        await live.fault(**fault)

        assert (await live.finished((await live.job())["id"]))["status"] == "succeeded"


async def test_a_socket_that_drops_in_mid_job_does_no_harm(tmp_path):
    """The job goes on, and the next one has progress again."""
    async with both(tmp_path, speed=2, limits=QUICK) as live:
        job = await live.job(steps=8)
        await live.until(job["id"], lambda j: j["progress"]["step"])
        await live.fault(close_sockets=True)
        done = await live.finished(job["id"])
        following = await live.job(seed=8)
        await live.until(following["id"], lambda j: j["progress"]["step"])

        assert (done["status"], done["attempt"]) == ("succeeded", 1)
        assert (await live.finished(following["id"]))["status"] == "succeeded"


async def test_an_engine_that_forgets_gets_the_job_again(tmp_path):
    """Its queue wiped by somebody, a job runs once more under another prompt id."""
    async with both(tmp_path, speed=1, limits=QUICK) as live:
        await live.fault(zombie=True)
        job = await live.job()
        await live.until(job["id"], lambda j: j["status"] == "running")
        while not await live.prompts():
            await asyncio.sleep(0.01)
        await live.fault(forget_prompt=True)
        await live.fault(reset=True)
        done = await live.finished(job["id"])

        assert (done["status"], done["attempt"]) == ("succeeded", 2)
        ids = [p["prompt_id"] for p in await live.prompts()]
        assert len(ids) == len(set(ids)) == 2


async def test_a_video_that_is_whole_outlives_its_history(tmp_path):
    """The engine told of the end and then forgot: nothing is made twice."""
    async with both(tmp_path, limits={**QUICK, "absent_s": 0.2}) as live:
        await live.fault(delay_history_s=3600)
        done = await live.finished((await live.job())["id"])

        assert (done["status"], done["attempt"]) == ("succeeded", 1)
        assert len(await live.prompts()) == 1


async def test_a_restarted_wrapper_adopts_what_runs(tmp_path):
    """One prompt in the engine, one video, and the queue goes on behind it."""
    async with engine(tmp_path / "engine", speed=1) as engine_url:
        async with wrapper(tmp_path / "data", engine_url, drain_s=0) as live:
            running = await live.job(steps=8)
            waiting = await live.job(seed=8, steps=1)
            await live.until(running["id"], lambda j: j["progress"]["step"])
        async with wrapper(
            tmp_path / "data", engine_url, drain_s=0, limits=QUICK
        ) as live:
            await live.until(running["id"], lambda j: j["progress"]["step"])
            first = await live.finished(running["id"])
            second = await live.finished(waiting["id"])

            assert (first["status"], first["attempt"]) == ("succeeded", 1)
            assert second["status"] == "succeeded"
            prompts = [p["prompt_id"] for p in await live.prompts()]
            assert prompts == [running["id"], waiting["id"]]


async def test_a_restarted_wrapper_collects_what_finished_meanwhile(tmp_path):
    """A video made while nobody looked is not made again."""
    async with engine(tmp_path / "engine", speed=1) as engine_url:
        async with wrapper(tmp_path / "data", engine_url, drain_s=0) as live:
            job = await live.job(steps=4)
            await live.until(job["id"], lambda j: j["progress"]["step"])
        async with contextlib.AsyncExitStack() as stack:
            live = await stack.enter_async_context(
                wrapper(tmp_path / "data", engine_url, limits=QUICK)
            )
            done = await live.finished(job["id"])

            assert (done["status"], done["attempt"]) == ("succeeded", 1)
            assert len(await live.prompts()) == 1


async def test_a_job_is_canceled_though_its_engine_is_gone(tmp_path):
    """Nobody waits for a dead machine to come back, only to be told "canceled"."""
    limits = {**QUICK, "load_s": 600.0}
    async with contextlib.AsyncExitStack() as running:
        engine_url = await running.enter_async_context(
            engine(tmp_path / "engine", speed=0.5)
        )
        async with wrapper(tmp_path / "data", engine_url, limits=limits) as live:
            job = await live.job(steps=50)
            await live.until(job["id"], lambda j: j["progress"]["step"])
            await running.aclose()
            status, body = await live.post(f"/jobs/{job['id']}/cancel")

            assert (status, body["status"]) == (200, "canceling")
            assert (await live.finished(job["id"]))["status"] == "canceled"


async def test_a_job_that_started_unsaid_is_adopted_all_the_same(tmp_path):
    """Killed between POST /prompt and the commit: one prompt, and a video."""
    async with engine(tmp_path / "engine", speed=1) as engine_url:
        async with wrapper(
            tmp_path / "data", "http://127.0.0.1:9", reach=False
        ) as live:
            job = await live.job(steps=4)
            workflow, _ = await live.runtime.ledger.work_of(job["id"])
            workflow.patch("Save video", "filename_prefix", f"wan/{job['id']}/output")
            prompt = {"prompt": workflow.nodes, "prompt_id": job["id"]}
            async with live.http.post(f"{engine_url}/prompt", json=prompt) as answer:
                assert answer.status == 200
        async with wrapper(tmp_path / "data", engine_url, limits=QUICK) as live:
            done = await live.finished(job["id"])

            assert (done["status"], done["attempt"]) == ("succeeded", 1)
            assert len(await live.prompts()) == 1


async def test_jobs_wait_while_no_engine_answers(tmp_path):
    """Nothing fails because a GPU machine is still starting."""
    async with wrapper(tmp_path / "data", "http://127.0.0.1:9", reach=False) as live:
        job = await live.job()
        await asyncio.sleep(0.3)
        status, ready = await live.get("/ready")

        assert (await live.get(f"/jobs/{job['id']}"))[1]["status"] == "queued"
        assert status == 503
        assert ready["missing"][0]["what"] == "engine"


async def test_priorities_go_before_the_order_of_arrival(tmp_path):
    """1 goes first, 5 last."""
    async with both(tmp_path, speed=3) as live:
        first = await live.job(steps=3)
        await live.until(first["id"], lambda j: j["status"] == "running")
        late = await live.job(seed=1, priority=5)
        early = await live.job(seed=2, priority=1)
        for job in (first, late, early):
            await live.finished(job["id"])

        order = [p["prompt_id"] for p in await live.prompts()]
        assert order == [first["id"], early["id"], late["id"]]


async def test_a_service_can_keep_its_jobs_on_a_server(tmp_path, new_database):
    """PostgreSQL instead of a file: run, listed, and there after a restart."""
    url = await new_database()
    async with engine(tmp_path / "engine") as engine_url:
        async with wrapper(tmp_path / "data", engine_url, database_url=url) as live:
            headers = {"Idempotency-Key": "k1"}
            _, job = await live.submit(headers=headers)
            done = await live.finished(job["id"])
        async with wrapper(tmp_path / "data", engine_url, database_url=url) as live:
            _, page = await live.get("/jobs")
            _, again = await live.submit(headers=headers)

        assert done["status"] == "succeeded"
        assert [j["id"] for j in page["jobs"]] == [job["id"]]
        assert again["id"] == job["id"]


async def test_a_stop_does_not_wait_for_a_store_that_is_away(tmp_path):
    """A start that cannot be committed is given up with the slot that made it."""
    asked = asyncio.Event()

    async def away(_job):
        asked.set()
        raise StoreUnavailable("the job store does not answer")

    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        live = await stack.enter_async_context(both(tmp_path, speed=1))
        live.runtime.store.save = away
        await live.job(steps=20)
        await asked.wait()
        await asyncio.wait_for(stack.aclose(), 30)
