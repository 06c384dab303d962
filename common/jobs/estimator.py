"""What a request of one service will take: memory, time, and what would fit instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.comfy import EngineInfo
from common.estimate import Advice, oom_hint, smaller
from common.job import Job, Status
from common.jobs.store import Store
from common.pace import sample, seconds, work
from common.progress import stage_of
from common.request import Request
from common.service import Service
from common.workflow import title_of

NEWEST_RUNS = 200  # so that a new driver or a new release soon shows


@dataclass(frozen=True)
class Estimate:
    """What is known of a request before it runs; None = unknown."""

    vram_gb: float | None
    card_gb: float | None  #: the smallest card that the job may come to
    seconds: tuple[float, float] | None
    fits: bool | None
    advice: tuple[Advice, ...] = ()


class Estimator:
    """
    Estimates for one service.

    Args:
        engines: returns what each engine said of itself; None for one that never did.
        engine_kind: "comfyui" or "embedded": runs of the other kind do not count.
    """

    def __init__(
        self,
        service: Service,
        store: Store,
        engines: Callable[[], Iterable[EngineInfo | None]],
        engine_kind: str,
    ) -> None:
        self._memory = service.memory
        self._kind = service.kind
        self._schema = service.request.model_json_schema()
        self._store = store
        self._engines = engines
        self._engine_kind = engine_kind
        self._loaders = {
            title_of(node)
            for node in service.workflow.nodes.values()
            if stage_of(node["class_type"]) == "loading"
        }

    async def estimate(self, request: Request, given: Mapping[str, Any]) -> Estimate:
        """Return the estimate for an accepted request; `given`: the caller's fields."""
        accepted = request.model_dump(mode="json")
        spent = await self._seconds(accepted)
        engines = list(self._engines())
        cards = [card_gb(engine) for engine in engines]
        known = [card for card in cards if card is not None]
        card = min(known) if known and len(known) == len(cards) else None
        vram_gb = None if self._memory is None else self._memory.of(accepted)
        if self._memory is None or vram_gb is None or card is None:
            return Estimate(vram_gb, card, spent, None)
        if vram_gb <= card:
            return Estimate(vram_gb, card, spent, True)
        advice = smaller(self._memory, self._schema, accepted, card, given)
        return Estimate(vram_gb, card, spent, False, tuple(advice))

    def oom_hint(self, job: Job, engine: EngineInfo | None) -> str | None:
        """Return what to do about a job for which this engine's card was too small."""
        if self._memory is None:
            return None
        return oom_hint(self._memory, self._schema, job.request, card_gb(engine))

    async def _seconds(self, accepted: Mapping[str, Any]) -> tuple[float, float] | None:
        wanted = work(accepted, self._kind)
        if not wanted:
            return None
        cards = {device_name(engine) for engine in self._engines()}
        runs = await self._store.newest(Status.SUCCEEDED, NEWEST_RUNS)
        samples = (
            sample(job, self._kind, self._loads)
            for job in runs
            if job.engine == self._engine_kind and job.device in cards
        )
        return seconds(filter(None, samples), wanted)

    def _loads(self, title: str) -> bool:
        # A node that was spliced in is titled by its class.
        return title in self._loaders or stage_of(title) == "loading"


def device_name(engine: EngineInfo | None) -> str | None:
    """Return the name of the device that an engine computes on."""
    return engine.devices[0].name if engine is not None and engine.devices else None


def card_gb(engine: EngineInfo | None) -> float | None:
    """Return the memory of an engine's card in GB; None for a CPU and the embedded."""
    if engine is None or engine.embedded or not engine.devices:
        return None
    card = engine.devices[0]
    return None if card.type == "cpu" else card.vram_total_bytes / 1e9
