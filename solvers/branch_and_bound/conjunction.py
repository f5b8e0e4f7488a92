"""Bounds of one output condition over a batch of input boxes, and what a violation leaves of each box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Search, optimize_rows

from mipverify.proof.backward import minimizer, minimum, propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.boxes import Settlement, combined, largest, shrink
from mipverify.proof.facts import Claim
from mipverify.proof.rows import LinearBounds, Rows, unit_rows

SLOPES = Search(iterations=5)  # boxes are halved soon: more would cost as much as the halves
LINES = Search(iterations=0)
STEPS = 24  # of the search for the weights of a conjunction's rows,
FIRST_STEP, DECAY = 2.0, 0.9  # whose steps in the logits begin and shrink so: the last one is below 0.2
TINY = 1e-300  # keeps rows that are zero everywhere from dividing zero by zero


@dataclass(frozen=True, eq=False)
class OpenBoxes:
    """The boxes `at` (M,) on which a condition stays open: minimizer (M, n), where the bounding row is least, and that
    row, with its coefficients at every ReLU."""

    at: np.ndarray
    minimizer: np.ndarray
    row: LinearBounds


def settle_condition(
    settlement: Settlement, position: int, claim: Claim, bounds: Bounds, boxes: np.ndarray
) -> OpenBoxes:
    """Bound the largest of the units of a claim over some of the boxes (K,), with slopes optimized where needed.

    A conjunction is violated where all its rows are: the largest is at least any convex combination of them, and each
    row cuts off the points where it alone is positive. What is found goes to the settlement.
    """
    units = claim.units.reshape(-1)

    def rows(some: np.ndarray) -> Rows:
        every = np.repeat(units, len(some)), np.tile(some, len(units))
        return unit_rows(bounds.network, claim.node, *every, bounds.like)

    if bounds.derivation is None:
        linear = propagate_backward(bounds, rows(boxes), keep=True)
    else:  # the slopes of a recorded pass are written down
        linear = optimize_rows(bounds, rows(boxes), LINES).row
    row = _conclude(settlement, position, linear, units, boxes)
    left = _left(settlement, position, boxes)
    if len(left):
        sharper = optimize_rows(bounds, rows(boxes[left]), SLOPES).row
        row = _conclude(settlement, position, sharper, units, boxes[left])
        boxes, left = boxes[left], _left(settlement, position, boxes[left])
    row = row.take(left)
    lowest = minimizer(bounds, row.coefficients, boxes[left]).reshape(len(left), bounds.network.input_size)
    return OpenBoxes(boxes[left], lowest, row)


def _left(settlement: Settlement, position: int, boxes: np.ndarray) -> np.ndarray:
    """Which of some boxes are open still, by index."""
    return np.flatnonzero(settlement.open()[boxes, position])


def _conclude(
    settlement: Settlement, position: int, linear: LinearBounds, units: np.ndarray, boxes: np.ndarray
) -> LinearBounds:
    """What rows for each of the boxes, all of the first unit first, say about the largest of them."""
    found, count, row = minimum(linear), len(units), linear
    settlement.learn(position, largest(found, count) if count > 1 else found)
    parts = shrink(linear, found, units)
    if count > 1:
        sides = (side[0][boxes].reshape(len(boxes), -1) for side in (linear.bounds.lower, linear.bounds.upper))
        row = combined(linear, _weights(linear, count, *sides))
        more = minimum(row)
        settlement.learn(position, more)
        parts = parts.and_outside(shrink(row, more, units))
    settlement.leave(position, parts)
    return row


def _weights(rows: LinearBounds, count: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Weights (count, K) on the simplex for which the combined row is high at its minimum: multiplicative updates."""
    a = rows.coefficients.reshape(count, len(lower), -1)
    middle, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
    constant = (rows.constant - np.asarray(rows.error)).reshape(count, -1) + (a * middle).sum(-1)
    logits = np.zeros(constant.shape)
    best, value = np.full(constant.shape, 1.0 / count), np.full(constant.shape[1], -np.inf)
    for step in range(STEPS):
        weights = np.exp(logits - logits.max(axis=0))
        weights /= weights.sum(axis=0)
        combined = (weights[..., None] * a).sum(axis=0)
        at_minimizer = constant - (a * (np.sign(combined) * radius)).sum(-1)
        now = (weights * at_minimizer).sum(axis=0)
        best, value = np.where(now > value, weights, best), np.maximum(now, value)
        scale = np.abs(at_minimizer).max(axis=0) + TINY
        logits = logits + FIRST_STEP * DECAY**step * at_minimizer / scale
    return best
