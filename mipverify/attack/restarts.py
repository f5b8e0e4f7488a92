"""Random restarts around a known counterexample, led back down: other activation regions, some of them closer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mipverify.attack.gradient import values_and_gradient
from mipverify.network import Network

STEPS = 24
FIRST_STEP, LAST_STEP = 0.1, 0.005  # in widths of the box
LEAST_RESTART, LARGEST_RESTART = 0.05, 1.0


def random_restarts(
    margins: Network,
    point: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: np.ndarray,
    rng: np.random.Generator,
    project: Callable[[np.ndarray], np.ndarray] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray]:
    """Walks from `point` (n,) in the float32 box lower, upper (n,), restarted at random: later ones farther away.

    conditions: for each walk (R,), the output of the margin network that it lowers. project: moves points of the box
    into the set. Returns the best point of each walk (R, n) and its margin (R,).
    """
    width, count = upper - lower, len(conditions)
    far = rng.permutation(np.linspace(LEAST_RESTART, LARGEST_RESTART, count)).astype(np.float32)[:, None]
    x = np.clip(point + far * width * rng.uniform(-1, 1, (count, len(point))).astype(np.float32), lower, upper)
    x = x if project is None else project(x)
    rows = np.zeros((count, margins.output_size), np.float32)
    rows[np.arange(count), conditions] = 1
    by_sign = (np.arange(count) % 2 == 0)[:, None] | (project is None)
    best, place = np.full(count, np.inf), x.copy()
    for step in range(STEPS + 1):
        values, gradient = values_and_gradient(margins, x.reshape(count, *margins.input_shape), rows)
        margin = np.einsum("ri,ri->r", values, rows.astype(values.dtype, copy=False))
        better = margin < best
        best[better], place[better] = margin[better], x[better]
        if step == STEPS or stop():
            break
        gradient = gradient.reshape(count, -1)
        scaled = gradient * width
        scaled /= np.abs(scaled).max(axis=1, keepdims=True) + 1e-30
        size = np.float32(FIRST_STEP * 0.5 * (1 + np.cos(np.pi * step / STEPS)) + LAST_STEP)
        x = np.clip(x - size * width * np.where(by_sign, np.sign(gradient), scaled), lower, upper).astype(np.float32)
        x = x if project is None else project(x)
    return place, best
