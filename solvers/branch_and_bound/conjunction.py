"""Bounds of one output condition over a batch of input boxes, and what a violation leaves of each box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mipverify.presolve import InputRows, Relaxed, Search, minimum_over_box, optimize_rows, pass_back, unit_rows

from mipverify.proof.rounding import gamma

CLEARANCE = 1e-6  # points whose margin is proven to be above this are cut off a box
SLOPES = Search(iterations=5)
STEPS = 24  # of the search for the weights of a conjunction's rows


@dataclass(frozen=True, eq=False)
class ConditionBounds:
    """The condition's margin over K boxes of n inputs, and more about the M boxes on which it stays open.

    lower: proven lower bounds (K,). open: (M,) positions of the open boxes. For these: minimizer (M, n), where the
    bounding row is least; box_lower, box_upper (M, n), the part of the box outside of which the margin is above
    CLEARANCE; row, the bounding row with its coefficients at every ReLU.
    """

    lower: np.ndarray
    open: np.ndarray
    minimizer: np.ndarray
    box_lower: np.ndarray
    box_upper: np.ndarray
    row: InputRows


def bound_condition(relaxed: Relaxed, node: int, units: list[int], boxes: np.ndarray) -> ConditionBounds:
    """Bound the maximum of some `units` of a node over some of the boxes (K,), with slopes optimized where needed.

    A conjunction is violated where all its rows are: the maximum is at least any convex combination of them, and each
    row cuts off the points where it alone is positive.
    """
    like = relaxed.bounds.lower[0]

    def rows_for(some: np.ndarray):  # type: ignore[no-untyped-def]
        return unit_rows(relaxed.network, node, np.repeat(units, len(some)), np.tile(some, len(units)), like)

    lower = np.full(len(boxes), -np.inf)
    found = _conclude(relaxed, pass_back(relaxed, rows_for(boxes), keep=True), len(units), boxes)
    lower = found.lower
    if len(found.open):
        left = boxes[found.open]
        sharper = optimize_rows(relaxed, rows_for(left), SLOPES).row
        again = _conclude(relaxed, sharper, len(units), left)
        lower[found.open] = np.maximum(lower[found.open], again.lower)
        return ConditionBounds(
            lower, found.open[again.open], again.minimizer, again.box_lower, again.box_upper, again.row
        )
    return found


def _conclude(relaxed: Relaxed, rows: InputRows, count: int, boxes: np.ndarray) -> ConditionBounds:
    """What `count` rows for each of the boxes, all of the first row first, say about the maximum of them."""
    size = len(boxes)
    lower, upper = (side[0][boxes].reshape(size, -1) for side in (relaxed.bounds.lower, relaxed.bounds.upper))
    minima = minimum_over_box(relaxed, rows, np.tile(boxes, count)).reshape(count, size)
    cut = _cut if relaxed.bounds.region is None else _uncut
    low, high = cut(rows.coefficients.reshape(count, size, -1), minima, lower, upper)
    value, row = minima.max(axis=0), rows
    if count > 1:
        row = _combine(rows, _weights(rows, count, lower, upper), relaxed, boxes)
        combined = minimum_over_box(relaxed, row, boxes)
        more_low, more_high = cut(row.coefficients.reshape(1, size, -1), combined[None], lower, upper)
        low, high = np.maximum(low, more_low), np.minimum(high, more_high)
        value = np.maximum(value, combined)
    value = np.where((low > high).any(axis=1), np.maximum(value, CLEARANCE), value)
    open_ = np.flatnonzero(~(value > 0))
    row = take(row, open_)
    minimizer = np.where(row.coefficients.reshape(lower[open_].shape) > 0, lower[open_], upper[open_])
    return ConditionBounds(value, open_, minimizer, low[open_], high[open_], row)


def take(row: InputRows, keep: np.ndarray) -> InputRows:
    """Some of the rows, by index."""
    passed = {node: a[keep] for node, a in row.passed.items()}
    return InputRows(row.coefficients[keep], row.constant[keep], np.asarray(row.error)[keep], passed)


def _cut(a: np.ndarray, minima: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of each box (K, n) outside of which some row (rows, K, n), (rows, K) is above CLEARANCE.

    For each coordinate by itself: it moves away from its end, while the others stay at their best.
    """
    room = np.where(np.isfinite(minima), np.maximum(CLEARANCE - minima, 0.0), np.inf)[..., None]
    step = np.divide(room, np.abs(a), out=np.full(a.shape, np.inf), where=np.abs(a) > 1e-300)
    # Rounded outward by more than these few operations can lose.
    step = step * (1 + 1e-13) + 1e-14 * (np.abs(lower) + np.abs(upper))
    high = np.where(a > 0, lower + step, upper).min(axis=0)
    low = np.where(a < 0, upper - step, lower).max(axis=0)
    return np.maximum(low, lower), np.minimum(high, upper)


def _uncut(a: np.ndarray, minima: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole boxes: minima over less than a box say nothing about one coordinate of it."""
    return lower, upper


def _weights(rows: InputRows, count: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Weights (count, K) on the simplex for which the combined row is high at its minimum: multiplicative updates."""
    a = rows.coefficients.reshape(count, len(lower), -1)
    middle, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
    constant = (rows.constant - rows.error).reshape(count, -1) + (a * middle).sum(-1)
    logits = np.zeros(constant.shape)
    best, value = np.full(constant.shape, 1.0 / count), np.full(constant.shape[1], -np.inf)
    for step in range(STEPS):
        weights = np.exp(logits - logits.max(axis=0))
        weights /= weights.sum(axis=0)
        combined = (weights[..., None] * a).sum(axis=0)
        at_minimizer = constant - (a * (np.sign(combined) * radius)).sum(-1)
        now = (weights * at_minimizer).sum(axis=0)
        best, value = np.where(now > value, weights, best), np.maximum(now, value)
        scale = np.abs(at_minimizer).max(axis=0) + 1e-300
        logits = logits + 2.0 * 0.9**step * at_minimizer / scale
    return best


def _combine(rows: InputRows, weights: np.ndarray, relaxed: Relaxed, boxes: np.ndarray) -> InputRows:
    """The weighted sum of each box's rows, with the error of summing them.

    The weights add up to one only to rounding, which changes no sign; the slack of `minimum_over_box` covers the rest.
    """
    count, size = weights.shape

    def weighted(values: np.ndarray) -> np.ndarray:
        values = values.reshape(count, size, *values.shape[1:])
        return (weights.reshape(count, size, *[1] * (values.ndim - 2)) * values).sum(axis=0)

    magnitude = relaxed.magnitudes[0].reshape(len(relaxed.magnitudes[0]), -1)[boxes]
    absolute = weighted(np.abs(rows.coefficients).reshape(count * size, -1))
    error = weighted(np.asarray(rows.error)) * (1 + 1e-12)
    error = error + gamma(2 * count + 8, magnitude) * ((absolute * magnitude).sum(axis=1) * (1 + 1e-12))
    error = error + gamma(2 * count + 8, magnitude) * weighted(np.abs(rows.constant))
    passed = {node: weighted(a) for node, a in rows.passed.items()}
    return InputRows(weighted(rows.coefficients), weighted(rows.constant), error, passed)
