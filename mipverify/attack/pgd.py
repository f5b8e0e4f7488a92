"""Projected gradient descent on margins, for many restarts and conditions in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.attack.gradient import values_and_gradient
from mipverify.network import Network


@dataclass(frozen=True)
class Attack:
    """restarts: starting points a condition. steps: gradient steps of each. step: first step, in box widths."""

    restarts: int = 4
    steps: int = 20
    step: float = 0.25


def pgd(
    margins: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: np.ndarray,
    attack: Attack,
    rng: np.random.Generator,
    hints: np.ndarray | None = None,
    accept: Callable[[np.ndarray], object | None] = lambda points: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[object | None, np.ndarray]:
    """Search the float32 box (n,) for a point where a margin is not positive [Madry et al. 2018].

    margins: network whose outputs are the margins. conditions: indices of those under attack. hints: points (H, n) to
    start from as well. accept: called with points (R, n) that seem to violate; what it returns other than None ends the
    search. Returns that, and the best point found for each condition (number of conditions, n).

    Half of the restarts follow the sign of the gradient, the others its direction with momentum: margins of narrow and
    of wide boxes give way to different rules.
    """
    width = (upper - lower).astype(np.float32)
    starts = rng.random((attack.restarts, len(lower)), dtype=np.float32) * width + lower
    starts[0] = lower + 0.5 * width
    if hints is not None and len(hints):
        starts = np.concatenate([starts, np.clip(hints, lower, upper).astype(np.float32)])
    count, per = len(conditions), len(starts)
    x = np.clip(np.tile(starts, (count, 1)), lower, upper)
    target = np.repeat(conditions, per)
    by_sign = (np.arange(len(x)) % 2 == 0)[:, None]
    momentum = np.zeros_like(x)
    best, best_margin = x.copy(), np.full(len(x), np.inf, np.float32)
    shape = (len(x), *margins.input_shape)
    for step in range(attack.steps + 1):
        values, gradient = values_and_gradient(margins, x.reshape(shape), target)
        margin = values[np.arange(len(x)), target]
        better = margin < best_margin
        best[better], best_margin[better] = x[better], margin[better]
        hits = np.flatnonzero((values[:, conditions] <= 0).any(axis=1))
        if len(hits):
            found = accept(x[hits[np.argsort(values[hits][:, conditions].min(axis=1))[:8]]])
            if found is not None:
                return found, best
        if step == attack.steps or stop():
            break
        gradient = gradient.reshape(len(x), -1)
        scaled = gradient * width
        scaled /= np.abs(scaled).max(axis=1, keepdims=True) + 1e-30
        momentum = 0.75 * momentum + scaled
        direction = np.where(by_sign, np.sign(gradient), momentum / (np.abs(momentum).max(axis=1, keepdims=True) + 1e-30))
        size = attack.step * 0.5 * (1 + np.cos(np.pi * step / attack.steps)) + 0.01
        x = np.clip(x - size * width * direction, lower, upper).astype(np.float32)
    order = best_margin.reshape(count, per).argmin(axis=1)
    return None, best.reshape(count, per, -1)[np.arange(count), order]
