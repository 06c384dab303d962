"""Runs that are silent, stuck or over their time are stopped, over real ports."""

from tests.live import both

QUICK = {"poll_s": 0.2, "zombie_s": 0.5, "cancel_s": 1.5, "load_s": 3.0, "step_s": 1.0}


async def test_a_silent_sampler_is_stopped(tmp_path):
    """No progress for longer than the phase allows ends the job as stalled."""
    async with both(tmp_path, limits={**QUICK, "load_s": 1.0}) as live:
        await live.fault(hang_at_node="KSampler", times=1)
        stalled = await live.finished((await live.job())["id"])

        assert stalled["error"]["code"] == "stalled"
        assert stalled["error"]["hint"]


async def test_a_silent_socket_is_no_stuck_run(tmp_path):
    """What the queue says runs is left to run, however long nothing is heard."""
    limits = {**QUICK, "load_s": 0.3}
    async with both(tmp_path, speed=3, limits=limits) as live:
        await live.fault(mute_socket=True)
        done = await live.finished((await live.job(steps=4))["id"])

        assert (done["status"], done["attempt"]) == ("succeeded", 1)


async def test_a_stuck_run_behind_a_silent_socket_has_an_end(tmp_path):
    """Nobody can say that it is stuck, and its time is bounded all the same."""
    async with both(tmp_path, limits={**QUICK, "job_s": 1.0}) as live:
        await live.fault(mute_socket=True, hang_at_node="KSampler")
        stuck = await live.finished((await live.job())["id"])

        assert stuck["error"]["code"] == "timeout"


async def test_a_dead_worker_is_noticed(tmp_path):
    """Prompts taken and none run: said by name after the last attempt."""
    async with both(tmp_path, limits=QUICK, max_attempts=1) as live:
        await live.fault(zombie=True)
        failed = await live.finished((await live.job())["id"])

        assert failed["error"]["code"] == "engine_lost"
        assert "worker" in failed["error"]["message"]


async def test_a_job_over_its_time_is_stopped(tmp_path):
    """However lively it is."""
    limits = {**QUICK, "job_s": 0.5}
    async with both(tmp_path, speed=0.2, limits=limits) as live:
        failed = await live.finished((await live.job(steps=50))["id"])

        assert failed["error"]["code"] == "timeout"
