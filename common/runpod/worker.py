"""
A worker's life: open the runtime, see that it is fit, and take jobs until told to stop.

ComfyUI starts before the SDK does, and the SDK takes the first job only when the checks
have passed, so no caller pays for a start. On SIGTERM the SDK takes no more jobs, waits
for the one that runs, and returns.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from anyio.from_thread import start_blocking_portal

from common.api.server import loop_factory
from common.runpod import fitness, progress
from common.runpod.handler import Handler
from common.runpod.settings import RunPod
from common.runtime import Runtime


def work(runtime: Runtime, env: RunPod, arguments: Sequence[str] = ()) -> None:
    """
    Serve RunPod's queue, or the SDK's local API when `arguments` ask for it.

    Args:
        arguments: the SDK's own, such as --rp_serve_api.

    Raises:
        DataInUse, Unusable: with what to do about it.
    """
    import runpod.serverless
    from runpod.serverless.modules.rp_logger import RunPodLogger

    RunPodLogger().set_level(env.log_level)
    signal.signal(signal.SIGTERM, _end)  # until the SDK has a better answer
    options = {"loop_factory": loop_factory()}
    with (
        start_blocking_portal("asyncio", options, name="runtime") as portal,
        portal.wrap_async_context_manager(runtime.running()),
    ):
        report = progress.to_platform if env.on_platform else progress.to_nobody
        handler = Handler(runtime, portal, env, report)
        for check in fitness.checks(runtime, portal, env):
            runpod.serverless.register_fitness_check(check)
        sys.argv = [sys.argv[0], *arguments]  # where the SDK looks
        runpod.serverless.start(handler.config)


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
