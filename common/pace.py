"""
The time that a request will take, from runs that succeeded. Pure.

Runs of one card are compared by their work: what the sampler has to compute. The time
to read weights is kept apart, since it does not depend on the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from common.estimate import area_of
from common.job import Job
from common.video import latent_frames

ENOUGH_RUNS = 3  # fewer tell nothing of how runs differ
NEAREST_RUNS = 30
ALIKE = 4  # times as much work, or as little: other runs say little

# Samplers of two evaluations for a step. Source: the second call of `model` in
# k-diffusion's `sample_heun`, `sample_dpm_2` and `sample_dpmpp_sde`.
TWICE = frozenset({"heun", "dpm_2", "dpmpp_sde"})

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One run that succeeded."""

    work: float
    run_s: float  #: without the time to read weights
    load_s: float  #: to read weights; 0 when they were there


def work(accepted: Fields, kind: str) -> float | None:
    """
    Return the work of a request: million pixels x latent frames x model evaluations.

    None where it is not known beforehand, such as a video as long as its speech.
    """
    pixels = area_of(accepted)
    if pixels is None or (kind == "video" and not accepted.get("frames")):
        return None
    # A guidance other than 1 evaluates the model for both prompts.
    cfgs = [value for name, value in accepted.items() if name.startswith("cfg")]
    both = sum(2 if cfg != 1 else 1 for cfg in cfgs) / len(cfgs) if cfgs else 1
    order = 2 if accepted.get("sampler") in TWICE else 1
    latents = latent_frames(accepted.get("frames") or 1)
    return pixels / 1e6 * latents * (accepted.get("steps") or 1) * both * order


def sample(job: Job, kind: str, loads: Callable[[str], bool]) -> Sample | None:
    """
    Return what a job that succeeded tells; None if it tells nothing.

    Args:
        loads: tells whether the node with this title reads weights.
    """
    done = work(job.request, kind)
    if not done or job.started_at is None or job.completed_at is None:
        return None
    took_s = (job.completed_at - job.started_at).total_seconds()
    load_s = sum(spent for title, spent in job.nodes.items() if loads(title))
    if took_s <= load_s:  # a clock was set back
        return None
    return Sample(done, took_s - load_s, load_s)


def seconds(samples: Iterable[Sample], wanted: float) -> tuple[float, float] | None:
    """
    Return the time that nine runs in ten took at least, and at most, for this work.

    The upper figure has the reading of weights in it, as often as that happens.
    None while there are too few runs to tell.
    """

    def apart(one: Sample) -> float:
        return abs(log(one.work / wanted))

    near = sorted(samples, key=apart)[:NEAREST_RUNS]
    if len(near) < ENOUGH_RUNS:
        return None
    # Of a small clip most is overhead: where one is like what is wanted, it counts.
    near = [one for one in near if apart(one) <= log(ALIKE)] or near
    paces = [one.run_s / one.work for one in near]
    load_s = quantile([one.load_s for one in near], 0.9)
    low, high = quantile(paces, 0.1) * wanted, quantile(paces, 0.9) * wanted + load_s
    return round(low, 1), round(high, 1)


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return the value below which this share of the values lies, between two if need be.

    >>> quantile([1.0, 2.0, 3.0], 0.5), quantile([1.0, 2.0], 0.75)
    (2.0, 1.75)
    """
    there = sorted(values)
    at = share * (len(there) - 1)
    below = int(at)
    above = min(below + 1, len(there) - 1)
    return there[below] + (there[above] - there[below]) * (at - below)
