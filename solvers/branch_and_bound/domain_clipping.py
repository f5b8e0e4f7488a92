"""Domain clipping: intermediate bounds of nodes, over the part of each that has still to be excluded.

A node is closed once its row is positive everywhere in it. So bounds need to hold only where the row is not above a
small ceiling and the split units have their phases: a corner of the input box (`presolve/clipping.py`). They help where
that corner is small, which is when the node's bound is near zero, or once splits of early layers have tightened what
comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mipverify.presolve import Optimum
from mipverify.presolve.clipping import clip
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.network import Network
from mipverify.proof.backward import propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.clipping import by_contradiction
from mipverify.proof.rows import LinearBounds, unit_rows

MATTERS = 0.2  # of what the most important unit costs a row: others keep their bounds
MOST_SPLITS = 7  # of a node, the latest: planes that bounds are searched with


class DomainClipping:
    """Clips the intermediate bounds of nodes to where their rows are not above a ceiling."""

    def __init__(self, network: Network, ceiling: float):
        self.network, self.ceiling = network, ceiling

    def clip(self, nodes: Sequence[Node], optimum: Optimum, bounds: Bounds) -> list[Node]:
        """What nodes become. optimum, bounds: of the nodes as they are.

        A node in which nothing is left gets the ceiling as its bound.
        """
        claim = optimum.row.claim
        if not optimum.row.passed or claim is None:
            return list(nodes)
        cost = {relu: _costs(optimum, bounds, relu) for relu in optimum.row.passed}
        most = np.max([own.max(axis=1) for own in cost.values()], axis=0)[:, None]
        # Units of the first layer all count: what is known of the others depends on them.
        wanted = {relu: own > MATTERS * most for relu, own in cost.items() if relu != self.network.relus[0]}
        inner = clip(bounds, optimum.row, self.ceiling, self._splits(nodes, bounds), wanted)
        empty, clipped = by_contradiction(inner, claim), []
        for k, node in enumerate(nodes):
            own = replace(node, assumption=inner.scope.assumption(k), entry=inner.entry(k))
            clipped.append(own.learned(empty, k))
        return clipped

    def _splits(self, nodes: Sequence[Node], bounds: Bounds) -> list[LinearBounds]:
        """Linear bounds of the latest splits' units, negated where they are active."""
        found = []
        for relu in self.network.relus:
            splits = [(k, u, s) for k, n in enumerate(nodes) for r, u, s in n.splits[-MOST_SPLITS:] if r == relu]
            if splits:
                entries, units, signs = (np.array(v) for v in zip(*splits, strict=True))
                rows = unit_rows(self.network, self.network.relu_source(relu), units, entries, bounds.like)
                found.append(propagate_backward(bounds, rows.scaled(-signs.astype(float))))
        return found


def _costs(optimum: Optimum, bounds: Bounds, relu: int) -> np.ndarray:
    """What the relaxation of each unit of a layer may cost a row, (K, size); 0 where a unit is not unstable."""
    weight = optimum.row.passed[relu].reshape(len(optimum.lower), -1)
    offset = bounds.lines[relu].upper_offset
    cost = np.maximum(-weight, 0) * offset.reshape(len(offset), -1)
    if relu in optimum.row.relaxed:
        cost = cost + np.maximum(optimum.row.relaxed[relu].phase, 0)
    return np.where(np.asarray(bounds.unstable(relu)).reshape(len(offset), -1), cost, 0.0)
