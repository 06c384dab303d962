"""
What must hold before a worker takes jobs; a job on a broken worker costs money.

RunPod's SDK runs these on the platform only, reports the first that fails by its
function's name, and ends the worker. Its own checks (CUDA, disk, memory) come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anyio.from_thread import BlockingPortal

from common.comfy import EngineUnreachable
from common.models.ensurer import ModelEnsurer
from common.models.layers import State
from common.readiness import look
from common.runpod.settings import RunPod
from common.runtime import Runtime

MARGIN_S = 15.0  #: to say why, before the platform gives up


class Unfit(Exception):
    """The worker cannot do its work; the message says what to do."""


def checks(
    runtime: Runtime, portal: BlockingPortal, env: RunPod
) -> list[Callable[[], None]]:
    """Return the checks, most basic first."""
    limit_s = max(1.0, env.init_timeout_s - MARGIN_S)

    def comfyui_answers() -> None:
        portal.call(engine, runtime, limit_s)

    def gpu_is_visible() -> None:
        if not env.skip_gpu_check:
            gpu(runtime)

    def weights_are_there() -> None:
        portal.call(weights, runtime)

    return [comfyui_answers, gpu_is_visible, weights_are_there]


async def engine(runtime: Runtime, limit_s: float) -> None:
    """Wait until each engine answers."""
    for one in runtime.engines:
        try:
            await one.comfy.wait_until_ready(limit_s)
        except EngineUnreachable as error:
            raise Unfit(f"{error}; its log says why") from None


def gpu(runtime: Runtime) -> None:
    """Check that ComfyUI computes on a card; the embedded engine needs none."""
    for one in runtime.engines:
        info = one.comfy.info
        if info is None or info.embedded:
            continue
        if all(device.type == "cpu" for device in info.devices):
            raise Unfit("ComfyUI sees no GPU: choose a GPU endpoint")


async def weights(runtime: Runtime) -> None:
    """
    Check that ComfyUI lists each file it will load, and that each is whole.

    A worker that fetches what it lacks is fit without: its jobs say how far that is.
    """
    fetches = runtime.settings.supplies
    found = [
        one
        for one in (await look(runtime)).missing
        if not (fetches and one.what == "weights")
    ]
    if found:
        raise Unfit("; ".join(_said(one.message, one.hint) for one in found))
    if not fetches and (names := await asyncio.to_thread(broken, runtime)):
        raise Unfit(f"not whole: {', '.join(names)} (fetch them again)")


def broken(runtime: Runtime) -> list[str]:
    """Return the weights on the volume that are of another size than published."""
    settings = runtime.settings
    if settings.models is None and settings.comfyui_dir is None:
        return []  # we do not know where ComfyUI looks
    ensurer = ModelEnsurer.from_config(settings)
    needed = ensurer.file_status(ensurer.needed_by(runtime.service))
    return [one.file.name for one in needed if one.state is State.CORRUPT]


def _said(message: str, hint: str | None) -> str:
    return f"{message} ({hint})" if hint else message
