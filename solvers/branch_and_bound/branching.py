"""Which unit to split next: scores from the relaxed minimizer, then a look at the children of the best few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from mipverify.presolve import Optimum
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Assumption

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.phases import PhaseBounder

GROWTH = 3  # the size of a tree is taken to grow as this power of its root's distance to zero
CANDIDATES = 8  # units by each of the two scores
TOUCHES = 1e-6  # how far above its ReLU a value is on it


class FilteredBranching:
    """Filtered smart branching [De Palma et al. 2021]: candidates by two cheap scores, filtered by quick child bounds.

    The scores of an unstable unit: how far the relaxed minimizer is from its ReLU, weighted by the coefficient that
    meets it; and the offset that the relaxation's upper line costs the bound (BaBSR's intercept [Bunel et al. 2020]).
    """

    def candidates(self, bounds: Bounds, optimum: Optimum) -> tuple[list[int], np.ndarray, np.ndarray]:
        """ReLU nodes in the order of the scores, and both scores (K, total units), 0 where a unit is not unstable."""
        gaps, intercepts, order = [], [], sorted(optimum.row.passed)
        for node in order:
            c, x, y = optimum.row.passed[node], optimum.preactivations[node], optimum.values[node]
            free = np.asarray(bounds.unstable(node))
            gap = c * (np.maximum(x, 0) - y)
            cost = np.maximum(-c, 0) * bounds.lines[node].upper_offset
            gaps.append(np.where(free, gap, 0).reshape(len(c), -1))
            intercepts.append(np.where(free, cost, 0).reshape(len(c), -1))
        if not order:  # the row reached the input without meeting a ReLU
            return order, np.zeros((len(optimum.lower), 0)), np.zeros((len(optimum.lower), 0))
        return order, np.concatenate(gaps, axis=1), np.concatenate(intercepts, axis=1)

    def split(
        self, bounder: PhaseBounder, nodes: Sequence[Node], optimum: Optimum, bounds: Bounds
    ) -> list[tuple[Node, Node] | None]:
        """The two children of each node; None where no unit is unstable any more."""
        order, gap, intercept = self.candidates(bounds, optimum)
        starts = np.concatenate([[0], np.cumsum([int(np.prod(bounder.shapes[node])) for node in order])])
        lines = {node: _lines(optimum, bounds, node) for node in order}
        pairs: list[list[tuple[Node, Node]]] = []
        for k, node in enumerate(nodes):
            if node.excess is not None and order:
                # Splitting a unit at which the program's minimizer is on its ReLU leaves that minimizer where it is.
                off = np.concatenate([node.excess[relu].reshape(-1) for relu in order]) > TOUCHES
                if off.any():
                    gap[k], intercept[k] = np.where(off, gap[k], 0), np.where(off, intercept[k], 0)
            wanted = [
                *np.argsort(-gap[k])[:CANDIDATES][np.sort(-gap[k])[:CANDIDATES] < 0],
                *np.argsort(-intercept[k])[:CANDIDATES][np.sort(-intercept[k])[:CANDIDATES] < 0],
            ]
            if not wanted:  # no score left: any unit that is still unstable, if there is one
                wanted = [w for w in [self._any_unstable(bounds, order, starts, k)] if w is not None]
            own = []
            for flat in dict.fromkeys(int(w) for w in wanted):
                position = int(np.searchsorted(starts, flat, side="right") - 1)
                relu, unit = order[position], flat - int(starts[position])
                weight, slope = (float(array[k, unit]) for array in lines[relu])
                own.append((child(node, (relu, unit), 1, weight, slope), child(node, (relu, unit), -1, weight, slope)))
            pairs.append(own)
        children = [node for own in pairs if len(own) > 1 for pair in own for node in pair]
        estimates = bounder.estimate(children) if children else np.zeros(0)
        chosen: list[tuple[Node, Node] | None] = []
        used = 0
        for node, own in zip(nodes, pairs, strict=True):
            if len(own) <= 1:
                chosen.append(own[0] if own else None)
                continue
            lower = estimates[used : used + 2 * len(own)].reshape(-1, 2)
            used += 2 * len(own)
            # How far children are from zero; what is left to do below them grows faster than that.
            left = -np.clip(lower.astype(np.float64), node.lower, 0.0)
            with np.errstate(over="ignore"):
                chosen.append(own[int(np.argmin((left**GROWTH).sum(axis=1)))])
        return chosen

    @staticmethod
    def _any_unstable(bounds: Bounds, order: list[int], starts: np.ndarray, k: int) -> int | None:
        for position, node in enumerate(order):
            free = np.asarray(bounds.unstable(node))
            units = np.flatnonzero(free[k if free.shape[0] > 1 else 0])
            if len(units):
                return int(starts[position]) + int(units[0])
        return None


def child(node: Node, unit: tuple[int, int], sign: int, weight: float, slope: float) -> Node:
    """The node with one more unit fixed, carrying its parent's bound, slopes and multipliers.

    weight: the coefficient with which the parent's row meets the unit. slope: that of the line it goes on with. The
    split's multiplier starts where the child keeps this line if it can, so that its bound starts no lower.
    """
    relu, index = unit
    multiplier = max(weight - slope, 0.0) if sign > 0 else min(-slope, 0.0)
    array = node.multipliers[relu].copy() if relu in node.multipliers else np.zeros(node.slopes[relu].shape, np.float32)
    array[index] = multiplier
    assumption = Assumption((*node.splits, (*unit, sign)), node.assumption.ceilings)
    return replace(node, assumption=assumption, multipliers={**node.multipliers, relu: array}, excess=None, fact=None)


def _lines(optimum: Optimum, bounds: Bounds, node: int) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients (K, units) with which rows meet a ReLU node, and the slopes of the lines they go on with."""
    weight = optimum.row.passed[node]
    count = len(weight)
    if node in optimum.row.relaxed:
        return weight.reshape(count, -1), optimum.row.relaxed[node].slope
    line = np.where(weight > 0, optimum.evidence.slopes[node], bounds.lines[node].upper_slope)
    return weight.reshape(count, -1), (weight * line).reshape(count, -1)
