"""Descent from very many random points, for few inputs: small regions of counterexamples that no gradient leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.attack.gradient import values_and_gradient
from mipverify.attack.pgd import Project, walks_at_once
from mipverify.network import Network

MOMENTUM, MEMORY = 0.9, 0.99  # decay of the mean of gradients and of their squares [Kingma and Ba 2015]
WIDTHS = 8  # of first steps, in turn from walk to walk
TINY = 1e-8  # added to the root of the mean square


@dataclass(frozen=True)
class ManyStarts:
    """starts: random points in all. steps: of Adam from each. least, largest: the first one, in box widths, of
    different walks; it shrinks to next to nothing. most_work: multiplications, beyond which there are fewer starts.

    No one step serves all: wide steps find what input splitting of ACAS Xu misses in every seed that was tried, steps
    of 0.05 in one of six; in a valley narrower than the last step it is the other way round.
    """

    starts: int = 10_000
    steps: int = 20
    least: float = 0.02
    largest: float = 0.3
    most_work: int = 2**34


def descend_from_many(
    margins: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: np.ndarray,
    settings: ManyStarts,
    rng: np.random.Generator,
    try_points: Callable[[np.ndarray], object | None],
    stop: Callable[[], bool] = lambda: False,
    project: Project | None = None,
) -> object | None:
    """Search the float32 box (n,) for a point where one of the outputs `conditions` is not positive.

    Each walk lowers the condition that is least where it starts. Steps of Adam scale each input by the gradients that
    it has had, which tells long and flat valleys from steep sides; signs do not. Arguments as in `pgd`.
    """
    width = upper - lower
    first = np.geomspace(settings.least, settings.largest, WIDTHS, dtype=np.float32)
    starts = max(1, min(settings.starts, settings.most_work // (2 * (settings.steps + 1) * margins.work[-1])))
    block = min(starts, walks_at_once(margins))
    for begin in range(0, starts, block):
        if begin and stop():
            return None
        count = min(block, starts - begin)
        x = (lower + rng.random((count, len(lower)), dtype=np.float32) * width).clip(lower, upper).astype(np.float32)
        x = x if project is None else project(x)
        rows = _rows_of_the_least(margins, x, conditions)
        mean, square = np.zeros_like(x), np.zeros_like(x)
        for step in range(settings.steps + 1):
            values, gradient = values_and_gradient(margins, x.reshape(count, *margins.input_shape), rows)
            margin = np.einsum("ri,ri->r", values, rows)
            hits = np.flatnonzero(margin <= 0)
            if len(hits):
                found = try_points(x[hits[np.argsort(margin[hits])[:8]]])
                if found is not None:
                    return found
            if step == settings.steps or stop():
                break
            scaled = gradient.reshape(count, -1) * width
            scaled /= np.abs(scaled).max(axis=1, keepdims=True) + np.float32(1e-30)
            mean += np.float32(1 - MOMENTUM) * (scaled - mean)
            square += np.float32(1 - MEMORY) * (scaled * scaled - square)
            ahead = (mean / np.float32(1 - MOMENTUM ** (step + 1))) / (
                np.sqrt(square / np.float32(1 - MEMORY ** (step + 1))) + np.float32(TINY)
            )
            size = np.resize(first, (count, 1)) * np.float32(0.5 * (1 + np.cos(np.pi * step / settings.steps)) + 0.02)
            x = np.clip(x - size * width * ahead, lower, upper).astype(np.float32)
            x = x if project is None else project(x)
    return None


def _rows_of_the_least(margins: Network, x: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """One row (R, k) for each point: the condition whose margin is least there."""
    values = margins.forward(x.reshape(len(x), *margins.input_shape)).reshape(len(x), -1)
    rows = np.zeros((len(x), margins.output_size), np.float32)
    rows[np.arange(len(x)), conditions[values[:, conditions].argmin(axis=1)]] = 1
    return rows
