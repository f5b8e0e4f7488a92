"""Which unit to split next: scores from the relaxed minimizer, then a look at the children of the best few."""

from __future__ import annotations

import numpy as np
from mipverify.solvers.branch_and_bound.relaxed import Relaxed

GROWTH = 3  # the size of a tree is taken to grow as this power of its root's distance to zero
CANDIDATES = 8  # units by each of the two scores: estimates of their children cost about as much as one ascent
TOUCHES = 1e-6  # how far above its ReLU a value of a linear program is on it: above the solver's tolerance


class FilteredBranching:
    """Filtered smart branching [De Palma et al. 2021]: candidates by two cheap scores, filtered by quick child bounds.

    The scores of an unstable unit: how far the relaxed minimizer is from its ReLU, weighted by the coefficient that
    meets it; and the offset that the relaxation's upper line costs the bound (BaBSR's intercept [Bunel et al. 2020]).
    """

    def choose(self, relaxed: Relaxed) -> list[tuple[int, int] | None]:
        """(ReLU node, flat unit) for each node; None where no unit is unstable any more."""
        nodes, order = relaxed.nodes, sorted(relaxed.optimum.row.passed)
        gap, intercept = _scores(relaxed, order)
        starts = np.concatenate([[0], np.cumsum([relaxed.size(node) for node in order], dtype=int)])
        wanted: list[list[tuple[int, int]]] = []
        for k, node in enumerate(nodes):
            if node.excess is not None and order:
                # Splitting a unit at which the program's minimizer is on its ReLU leaves that minimizer where it is.
                off = np.concatenate([node.excess[relu].reshape(-1) for relu in order]) > TOUCHES
                if off.any():
                    gap[k], intercept[k] = np.where(off, gap[k], 0), np.where(off, intercept[k], 0)
            best = [
                *np.argsort(-gap[k])[:CANDIDATES][np.sort(-gap[k])[:CANDIDATES] < 0],
                *np.argsort(-intercept[k])[:CANDIDATES][np.sort(-intercept[k])[:CANDIDATES] < 0],
            ]
            if not best:  # no score left: any unit that is still unstable, if there is one
                best = [w for w in [_any_unstable(relaxed, order, starts, k)] if w is not None]
            own = []
            for flat in dict.fromkeys(int(w) for w in best):
                position = int(np.searchsorted(starts, flat, side="right") - 1)
                own.append((order[position], flat - int(starts[position])))
            wanted.append(own)
        children = [child for k, own in enumerate(wanted) if len(own) > 1 for u in own for child in relaxed.pair(k, u)]
        estimates = relaxed.estimate(children) if children else np.zeros(0)
        chosen: list[tuple[int, int] | None] = []
        used = 0
        for node, own in zip(nodes, wanted, strict=True):
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


def _scores(relaxed: Relaxed, order: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Both scores (K, units of all ReLU nodes in this order), 0 where a unit is not unstable."""
    gaps, intercepts, optimum, count = [], [], relaxed.optimum, len(relaxed.nodes)
    if not order:  # the row reached the input without meeting a ReLU
        return np.zeros((count, 0)), np.zeros((count, 0))
    for relu in order:
        x, y = (values[relu].reshape(count, -1) for values in (optimum.preactivations, optimum.values))
        weight, free = relaxed.weight(relu), relaxed.unstable(relu)
        gaps.append(np.where(free, weight * (np.maximum(x, 0) - y), 0))
        intercepts.append(np.where(free, np.maximum(-weight, 0) * relaxed.upper_offset(relu), 0))
    return np.concatenate(gaps, axis=1), np.concatenate(intercepts, axis=1)


def _any_unstable(relaxed: Relaxed, order: list[int], starts: np.ndarray, k: int) -> int | None:
    for position, relu in enumerate(order):
        units = np.flatnonzero(relaxed.unstable(relu)[k])
        if len(units):
            return int(starts[position]) + int(units[0])
    return None
