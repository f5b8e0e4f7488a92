"""Signs that interval arithmetic would show if it did not round: sums in which every summand has the same sign.

Bounds are rounded outward, so that a value that cannot be negative but may be zero gets a lower bound just below zero.
That decides strict conditions, which exclude zero. Here nothing is added up: only signs are compared, which is exact.
"""

from __future__ import annotations

import numpy as np

from mipverify.network import Affine, Relu
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds

# Entries of operators that are looked at for one question; beyond it a sign counts as not shown.
MOST_ENTRIES = 20_000_000


def nonnegative(bounds: Bounds, node: int, units: np.ndarray) -> UnitBounds:
    """Zero as the lower bound of those of the flat units (R,) of a node of which that is seen (bounds of batch 1)."""
    shown = _Signs(bounds).shown(node, units, 1)
    lower, upper = np.where(shown, 0.0, -np.inf), np.full(len(units), np.inf)
    return UnitBounds(bounds.scope, node, None, units, lower, upper, seal=SEAL)


class _Signs:
    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self._left = MOST_ENTRIES

    def shown(self, node: int, units: np.ndarray, sign: int) -> np.ndarray:
        """Whether `sign` times each of the units is proven to be >= 0."""
        side = self._bounds.lower[node] if sign > 0 else -self._bounds.upper[node]
        found: np.ndarray = side.reshape(-1)[units] >= 0
        what = self._bounds.network.nodes[node]
        if isinstance(what, Relu) and sign > 0:
            found[:] = True
        elif isinstance(what, Affine) and not found.all():
            open_ = np.flatnonzero(~found)
            found[open_] = self._sums(what, units[open_], sign)
        return found

    def _sums(self, node: Affine, units: np.ndarray, sign: int) -> np.ndarray:
        """The same for sums: whether `sign` times every summand is >= 0."""
        if node.inexact:
            return np.zeros(len(units), bool)
        like = np.zeros(0)
        good = np.ones(len(units), bool)
        if node.bias is not None:
            good &= sign * np.asarray(node.bias, np.float64).reshape(-1)[units] >= 0
        summands: list[tuple[int, np.ndarray]] = []
        for term in node.terms:
            self._left -= len(units) * term.operator.in_size
            if self._left < 0 or not good.any():
                return np.zeros(len(units), bool)
            weights = sign * term.operator.rows(units, like).reshape(len(units), -1)
            good &= np.isfinite(weights).all(axis=1)
            summands.append((term.source, weights))
        self._pair(summands)
        for source, weights in summands:
            for direction in (1, -1):
                used = direction * weights > 0
                sources = np.flatnonzero(used[good].any(axis=0))
                wrong = sources[~self.shown(source, sources, direction)]
                good &= ~used[:, wrong].any(axis=1)
        return good

    def _pair(self, summands: list[tuple[int, np.ndarray]]) -> None:
        """Strike out, in place, pairs a relu(s) + b s of one unit with b <= 0 <= a + b: no s makes them negative."""
        for relu, outer in summands:
            what = self._bounds.network.nodes[relu]
            for source, inner in summands:
                if isinstance(what, Relu) and source == what.source:
                    pair = (inner < 0) & (outer >= -inner)
                    inner[pair] = outer[pair] = 0.0
