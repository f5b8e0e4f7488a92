"""Which unit to split next: scores from the relaxed minimizer, then a look at the children of the best few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve import Optimum, Relaxed
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.splits import Node


@dataclass(frozen=True)
class FilteredBranching:
    """Filtered smart branching [De Palma et al. 2021]: candidates by two cheap scores, filtered by quick child bounds.

    The scores of an unstable unit: how far the relaxed minimizer is from its ReLU, weighted by the coefficient that
    meets it; and the offset that the relaxation's upper line costs the bound (BaBSR's intercept [Bunel et al. 2020]).
    """

    by_gap: int = 4
    by_intercept: int = 3

    def candidates(self, relaxed: Relaxed, optimum: Optimum) -> tuple[list[int], np.ndarray, np.ndarray]:
        """ReLU nodes in the order of the scores, and both scores (K, total units), 0 where a unit is not unstable."""
        gaps, intercepts, order = [], [], sorted(optimum.row.passed)
        for node in order:
            c, x, y = optimum.row.passed[node], optimum.preactivations[node], optimum.values[node]
            free = np.asarray(relaxed.bounds.unstable(node))
            gap = c * (np.maximum(x, 0) - y)
            cost = np.maximum(-c, 0) * relaxed.lines[node].upper_offset
            gaps.append(np.where(free, gap, 0).reshape(len(c), -1))
            intercepts.append(np.where(free, cost, 0).reshape(len(c), -1))
        if not order:  # the row reached the input without meeting a ReLU
            return order, np.zeros((len(optimum.lower), 0)), np.zeros((len(optimum.lower), 0))
        return order, np.concatenate(gaps, axis=1), np.concatenate(intercepts, axis=1)

    def choose(
        self, bounder: PhaseBounder, nodes: Sequence[Node], optimum: Optimum, relaxed: Relaxed
    ) -> list[tuple[int, int] | None]:
        """(ReLU node, flat unit) to split for each node; None where no unit is unstable any more."""
        order, gap, intercept = self.candidates(relaxed, optimum)
        sizes = [int(np.prod(bounder.shapes[node])) for node in order]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        picks: list[list[tuple[int, int]]] = []
        children: list[Node] = []
        for k, node in enumerate(nodes):
            wanted = [
                *np.argsort(-gap[k])[: self.by_gap][np.sort(-gap[k])[: self.by_gap] < 0],
                *np.argsort(-intercept[k])[: self.by_intercept][np.sort(-intercept[k])[: self.by_intercept] < 0],
            ]
            if not wanted:  # no score left: any unit that is still unstable, if there is one
                wanted = [w for w in [self._any_unstable(relaxed, order, starts, k)] if w is not None]
            units = []
            for flat in dict.fromkeys(int(w) for w in wanted):
                position = int(np.searchsorted(starts, flat, side="right") - 1)
                units.append((order[position], flat - int(starts[position])))
            picks.append(units)
            if len(units) > 1:
                children.extend(child(node, unit, sign) for unit in units for sign in (1, -1))
        estimates = bounder.estimate(children) if children else np.zeros(0)
        chosen: list[tuple[int, int] | None] = []
        used = 0
        for node, units in zip(nodes, picks, strict=True):
            if len(units) <= 1:
                chosen.append(units[0] if units else None)
                continue
            pairs = estimates[used : used + 2 * len(units)].reshape(-1, 2)
            pairs = np.minimum(pairs, 1e-3)  # beyond closed is no better
            used += 2 * len(units)
            gain = np.maximum(pairs - node.lower, 1e-6)
            chosen.append(units[int(np.argmax(gain[:, 0] * gain[:, 1]))])
        return chosen

    @staticmethod
    def _any_unstable(relaxed: Relaxed, order: list[int], starts: np.ndarray, k: int) -> int | None:
        for position, node in enumerate(order):
            free = np.asarray(relaxed.bounds.unstable(node))
            units = np.flatnonzero(free[k if free.shape[0] > 1 else 0])
            if len(units):
                return int(starts[position]) + int(units[0])
        return None


def child(node: Node, unit: tuple[int, int], sign: int) -> Node:
    """The node with one more unit fixed, carrying its parent's bound, slopes and multipliers."""
    return replace(node, splits=(*node.splits, (*unit, sign)))
