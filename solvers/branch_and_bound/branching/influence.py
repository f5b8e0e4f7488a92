"""Where to halve an input box: the coordinate whose halving is estimated to raise the bound most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.solvers.branch_and_bound.conjunction import OpenBoxes

from mipverify.network import Input, Relu
from mipverify.proof.bounds import Bounds
from mipverify.proof.rows import LinearBounds

TINY = 1e-300  # a width below it is none
WIDER = 1e-12  # of a coordinate's width: among coordinates that change nothing, the widest is halved


@dataclass(frozen=True, eq=False)
class RelaxedBoxes:
    """bounds: over boxes lower, upper (K, n). found: what rows show in those that are open. going (G,): which of the
    boxes are; left: lower, upper (G, n) of what is left of these."""

    bounds: Bounds
    lower: np.ndarray
    upper: np.ndarray
    found: Sequence[OpenBoxes]
    going: np.ndarray
    left: tuple[np.ndarray, np.ndarray]


class Influence:
    """The coordinate whose halving is estimated to raise the bound of some row most."""

    def choose(self, relaxed: RelaxedBoxes) -> np.ndarray:
        """The coordinate (G,) of each box, among those between whose ends a number is left."""
        if not len(relaxed.going):
            return np.zeros(0, int)
        bounds, lower, upper = relaxed.bounds, relaxed.lower, relaxed.upper
        reached, weight = reach(bounds, lower, upper), np.zeros(lower.shape)
        for found in relaxed.found:
            own = influence(bounds, found.row, found.at, reached)
            weight[found.at] = np.maximum(weight[found.at], own)
        share = weight[relaxed.going] / np.maximum((upper - lower)[relaxed.going], TINY)
        low, high = relaxed.left
        width, middle = high - low, 0.5 * low + 0.5 * high
        possible = (middle > low) & (middle < high)
        return np.asarray(np.argmax(np.where(possible, share * width + WIDER * width, -1.0), axis=1))


def reach(bounds: Bounds, lower: np.ndarray, upper: np.ndarray) -> dict[int, np.ndarray]:
    """How far each pre-activation moves when one input crosses its box (K, n): {node: (K, n, units)}.

    Through the network with the slopes of the upper lines; an estimate.
    """
    network = bounds.network
    count, inputs = lower.shape
    moves: list[np.ndarray] = []
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            move = np.zeros((count, inputs, inputs))
            move[:, np.arange(inputs), np.arange(inputs)] = upper - lower
        elif isinstance(node, Relu):
            move = moves[node.source] * bounds.lines[index].upper_slope.reshape(count, 1, -1)
        else:
            move = np.zeros((count, inputs, int(np.prod(node.shape))))
            for term in node.terms:
                batch = moves[term.source].reshape(count * inputs, *term.operator.in_shape)
                move = move + term.operator.apply(batch).reshape(count, inputs, -1)
        moves.append(move)
    return {network.relu_source(node): moves[network.relu_source(node)] for node in network.relus}


def influence(bounds: Bounds, row: LinearBounds, boxes: np.ndarray, reached: dict[int, np.ndarray]) -> np.ndarray:
    """How much halving each coordinate of the boxes (M,) of these rows would raise the bound, estimated (M, n).

    The row itself moves by |a| times the width. A ReLU between l and u, of radius r around c, is relaxed by a gap whose
    derivative in r is (1 + c^2 / r^2) / 2, times the coefficient that the row meets it with.
    """
    network = bounds.network
    count = len(boxes)
    width = (bounds.upper[0] - bounds.lower[0])[boxes].reshape(count, -1)
    score = np.abs(row.coefficients.reshape(count, -1)) * width
    for node, coefficients in row.passed.items():
        source = network.relu_source(node)
        low, high = (side[source][boxes].reshape(count, -1) for side in (bounds.lower, bounds.upper))
        unstable = (low < 0) & (high > 0)
        radius = np.where(unstable, 0.5 * (high - low), 1.0)
        rate = np.where(unstable, 0.5 + 0.5 * (0.5 * (high + low) / radius) ** 2, 0.0)
        weight = rate * np.abs(coefficients.reshape(count, -1))
        score += np.einsum("ku,kiu->ki", weight, np.abs(reached[source][boxes]))
    return score
