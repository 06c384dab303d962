"""
From ComfyUI's events to one number that only grows: progress over the whole graph.

Pure; the clock comes in as `at`. ComfyUI reports steps per node and starts again at
each sampler, so nodes are weighted by class and a run moves through their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.events import Cached, Ended, Event, Executing
from common.events import Progress as Step
from common.job import Progress
from common.workflow import Workflow, title_of

# Shares of a 1280x704x121 FastWan run with warm weights: sampling dominates, then the
# VAE. Only the bar's evenness depends on them, never a decision.
WEIGHTS = {"sampling": 60.0, "decoding": 20.0, "loading": 3.0, "saving": 3.0}
STAGES = {
    "UNETLoader": "loading",
    "CLIPLoader": "loading",
    "VAELoader": "loading",
    "LoraLoaderModelOnly": "loading",
    "CLIPVisionLoader": "loading",
    "AudioEncoderLoader": "loading",
    "ModelPatchLoader": "loading",
    "CLIPTextEncode": "encoding",
    "CLIPVisionEncode": "encoding",
    "AudioEncoderEncode": "encoding",
    "KSampler": "sampling",
    "KSamplerAdvanced": "sampling",
    "SamplerCustomAdvanced": "sampling",
    "QwenImageEdit": "sampling",
    "VAEDecode": "decoding",
    "VAEDecodeTiled": "decoding",
    "CreateVideo": "saving",
    "SaveVideo": "saving",
    "SaveWEBM": "saving",
    "SaveImage": "saving",
}


def stage_of(class_type: str) -> str:
    """Return what a node of this class is busy with, in a word for people."""
    return STAGES.get(class_type, "preparing")


@dataclass(frozen=True)
class Meter:
    """How far a run is; each event makes the next meter."""

    stages: Mapping[str, str]  #: node id → stage
    titles: Mapping[str, str]  #: node id → title
    done: frozenset[str] = frozenset()
    node: str | None = None
    node_since: float = 0.0
    step: int = 0
    steps: int = 0
    first_step_at: float = 0.0
    value: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)  #: by title
    over: bool = False  #: the engine is done; the file is being checked

    @classmethod
    def of(cls, workflow: Workflow) -> Meter:
        """Return the meter of a run that has not begun."""
        return cls(
            stages={i: stage_of(n["class_type"]) for i, n in workflow.nodes.items()},
            titles={i: title_of(n) for i, n in workflow.nodes.items()},
        )

    def after(self, event: Event, at: float) -> Meter:
        """Return the meter after `event`, seen at `at` seconds of a monotonic clock."""
        match event:
            case Cached(nodes=nodes):
                return self._grown(done=self.done | nodes)
            case Executing(node=node):
                return self._left(at)._grown(
                    node=node, node_since=at, step=0, steps=0, first_step_at=0.0
                )
            case Step(node=node, value=value, max=most) if most > 0:
                meter = self
                if node != self.node:  # the frame that named the node was lost
                    meter = self.after(Executing(node), at)
                return meter._grown(
                    step=int(value),
                    steps=int(most),
                    first_step_at=meter.first_step_at or at,
                )
            case Ended():
                return self._left(at)._grown(node=None, over=True)
        return self

    def progress(self, at: float) -> Progress:
        """Return what callers are shown."""
        sampling = self.stage == "sampling" and self.steps > 0
        return Progress(
            value=round(self.value, 4),
            stage=self.stage,
            step=self.step if sampling else None,
            steps=self.steps if sampling else None,
            node=self.titles.get(self.node or ""),
            eta_s=self._eta_s(at),
        )

    @property
    def stage(self) -> str:
        """What the run is busy with."""
        between = "checking" if self.over else "starting"
        return self.stages.get(self.node or "", between)

    @property
    def warm(self) -> bool:
        """Whether the running sampler has made a step, so its weights are loaded."""
        return self.step > 0

    def _weight(self, node: str) -> float:
        return WEIGHTS.get(self.stages.get(node, ""), 1.0)

    def _left(self, at: float) -> Meter:
        """Count the running node as done."""
        if self.node is None:
            return self
        title = self.titles.get(self.node, self.node)
        spent = self.seconds.get(title, 0.0) + at - self.node_since
        return replace(
            self,
            done=self.done | {self.node},
            seconds={**self.seconds, title: round(spent, 3)},
        )

    def _grown(self, **changes: object) -> Meter:
        """Apply changes and move the value, which never goes back."""
        meter = replace(self, **changes)  # type: ignore[arg-type]
        total = sum(map(meter._weight, meter.stages))
        share = sum(meter._weight(id_) for id_ in meter.done if id_ in meter.stages)
        if meter.node is not None and meter.node not in meter.done and meter.steps:
            share += meter._weight(meter.node) * min(1.0, meter.step / meter.steps)
        # 1 is for the published file, not for the last node.
        value = min(0.99, share / total) if total else 0.0
        return replace(meter, value=max(meter.value, value))

    def _eta_s(self, at: float) -> float | None:
        """
        Estimate the rest from the pace of the sampler's own steps.

        The first step also loads the weights, so the pace is that of the later ones.
        """
        if self.stage != "sampling" or self.step < 2:
            return None
        pace = (at - self.first_step_at) / (self.step - 1)
        rest = pace * (self.steps - self.step)
        left = [i for i in self.stages if i not in self.done and i != self.node]
        tail = sum(map(self._weight, left)) / WEIGHTS["sampling"] * pace * self.steps
        return round(rest + tail, 1)
