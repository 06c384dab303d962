"""Samplers: they write down the recipe, and show a picture coming out of the noise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from common.engine.render import Film
from common.engine.run import Node, Run
from common.engine.values import Conditioning, Latent, Model, Recipe

#: How long one step takes at speed 1.
STEP_S = 0.25


def sample(
    run: Run,
    model: Model,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float = 1.0,
) -> tuple[Any, ...]:
    """KSampler."""
    settings = (steps, cfg, sampler_name, scheduler, negative.text, denoise)
    recipe = _recipe(model, seed, settings, positive, latent_image)
    return (_steps(run, recipe, latent_image, 0, steps, steps),)


def sample_part(
    run: Run,
    model: Model,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> tuple[Any, ...]:
    """KSamplerAdvanced: some of the steps, such as those of one of a pair of models."""
    first, last = min(start_at_step, steps), min(end_at_step, steps)
    settings = (steps, cfg, sampler_name, scheduler, negative.text, first, last)
    seed = noise_seed if add_noise == "enable" else 0
    recipe = _recipe(model, seed, settings, positive, latent_image)
    end = last if return_with_leftover_noise == "enable" else steps
    if first >= last:
        return (latent_image,)
    return (_steps(run, recipe, latent_image, first, last, steps, end),)


def _recipe(
    model: Model,
    seed: int,
    settings: tuple[object, ...],
    positive: Conditioning,
    latent: Latent,
) -> Recipe:
    """Write down what the film is made of, on top of what an earlier sampler wrote."""
    before = latent.recipe
    facts = [model.name, model.changes, settings, before.flavour if before else ""]
    flavour = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if before is not None:
        return replace(before, flavour=flavour, seed=before.seed ^ seed)
    guides = latent.guides if latent.guides.start is not None else positive.guides
    size = (latent.width, latent.height, latent.frames)
    return Recipe(*size, positive.text, seed, flavour, guides)


def _steps(
    run: Run,
    recipe: Recipe,
    latent: Latent,
    first: int,
    last: int,
    steps: int,
    end: int | None = None,
) -> Latent:
    """Take the steps from `first` to `last` of `steps`, with a preview after each."""
    film = Film(recipe)
    for step in range(first, last):
        run.pretend(STEP_S)
        jpeg = film.preview(noise=1 - (step + 1) / steps)
        run.report(step - first + 1, last - first, jpeg)
    run.check()
    noise = 1 - (last if end is None else end) / steps
    return replace(latent, recipe=recipe, noise=noise)


NODES: dict[str, Node] = {"KSampler": sample, "KSamplerAdvanced": sample_part}
