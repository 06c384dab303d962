"""Smooth noise, in one and two dimensions, that repeats without a seam."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Numbers on a grid, mostly float32: numpy widens some on the way.
Field = NDArray[Any]


def smooth(edge0: float, edge1: float, x: Field) -> Field:
    """Return 0 below the first edge, 1 above the second, an S between them."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def line(rng: np.random.Generator, x: Field, octaves: int, rough: float) -> Field:
    """Return 1-D noise, about -1 … 1, at positions x (one bump per unit)."""
    total = np.zeros_like(x)
    weight = 1.0
    for octave in range(octaves):
        values = rng.uniform(-1, 1, 64).astype(np.float32)
        at = x * 2**octave + np.float32(rng.uniform(0, 64))
        cell = np.floor(at)
        t = at - cell
        t = t * t * (3 - 2 * t)
        index = cell.astype(np.int64)
        total += weight * (values[index % 64] * (1 - t) + values[(index + 1) % 64] * t)
        weight *= rough
    return total


@cache
def tile(number: int, size: int, octaves: int) -> Field:
    """
    Return a square of fractal noise, 0 … 1, that repeats in both directions.

    One of a few that all films share: they read it at places of their own.
    """
    rng = np.random.default_rng(number)
    total = np.zeros((size, size), np.float32)
    cells, weight = 4, 1.0
    for _ in range(octaves):
        values = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        total += weight * _stretch(_stretch(values, size).T, size).T
        cells, weight = min(cells * 2, size), weight * 0.55
    low, high = total.min(), total.max()
    whole: Field = ((total - low) / (high - low)).astype(np.float32)
    return whole


def _stretch(values: Field, size: int) -> Field:
    """Interpolate the rows of a square smoothly to `size` of them."""
    cells = len(values)
    at = np.arange(size, dtype=np.float32) * (cells / size)
    index = at.astype(np.int64)
    t = (at - index)[:, None]
    t = t * t * (3 - 2 * t)
    stretched: Field = values[index] * (1 - t) + values[(index + 1) % cells] * t
    return stretched
