"""When a run has had its time, and how it is stopped then."""

from __future__ import annotations

import time
from contextlib import suppress

from common.comfy import Absent, EngineUnreachable, Finished
from common.job import JobError
from common.jobs.limits import Limits
from common.jobs.outcome import Broken, Lost, Outcome
from common.jobs.run import Run


async def overdue(run: Run, limits: Limits) -> Outcome | None:
    """Judge a run that goes on: is it over its time, or silent for too long?"""
    at = time.monotonic()
    if run.cancel_asked is not None:
        if at - run.cancel_asked < limits.cancel_s:
            return None
        return Lost(_unstoppable(), restart=True)
    if at - run.began > limits.job_s:
        return await _give_up(run, limits, "timeout", f"{limits.job_s:.0f} s")
    quiet_s = limits.silence_s(run.meter)
    if not run.blind and at - run.heard > quiet_s:
        what = f"{quiet_s:.0f} s without progress while {run.meter.stage}"
        return await _give_up(run, limits, "stalled", what)
    return None


async def _give_up(run: Run, limits: Limits, code: str, after: str) -> Outcome:
    """Stop a run that is overdue; the engine is restarted if it does not obey."""
    stopped = await _stop(run, limits)
    error = JobError(
        code,
        f"stopped after {after}",
        "a smaller size, fewer frames or fewer steps take less time",
        retryable=code == "stalled",
    )
    return Broken(error, restart=not stopped)


async def _stop(run: Run, limits: Limits) -> bool:
    """Interrupt, and wait a little; return whether ComfyUI let go."""
    end = time.monotonic() + limits.cancel_s / 3
    while time.monotonic() < end:
        await run.send_cancel()
        with suppress(EngineUnreachable):
            state = await run.engine.state(run.job.prompt_id)
            if isinstance(state, Absent | Finished):
                return True
        await run.follower.next(min(0.5, limits.poll_s))
    return False


def _unstoppable() -> JobError:
    return JobError(
        "engine_lost",
        "ComfyUI did not stop when asked, and was restarted",
        "send the job again",
        retryable=True,
    )
