"""Hidden bounds of nodes' own: what units can be in the part of a node that has still to be excluded.

A node is closed once its row is positive everywhere in it. So bounds need to hold only where the row is not above a
small ceiling and the split units have their phases: a corner of the input box (`presolve/clipping.py`). They help where
that corner is small, which is when the node's bound is near zero, or once splits of early layers have tightened what
comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mipverify.presolve import Optimum, Relaxed, pass_back, unit_rows
from mipverify.presolve.clipping import Planes, clip
from mipverify.solvers.branch_and_bound.splits import Clip, Node

from mipverify.network import Network

MATTERS = 0.2  # of what the most important unit costs a row: others keep their bounds
MOST_SPLITS = 7  # of a node, the latest: planes that bounds are searched with


class Corners:
    """Clips the hidden bounds of nodes to where their rows are not above a ceiling.

    keep: nodes remember how their bounds came about, which takes memory.
    """

    def __init__(self, network: Network, ceiling: float, keep: bool = False):
        self.network, self.ceiling, self.keep = network, ceiling, keep
        self.sources = [network.relu_source(relu) for relu in network.relus]

    def clip(self, nodes: Sequence[Node], optimum: Optimum, relaxed: Relaxed) -> list[Node]:
        """What nodes become. optimum, relaxed: of the nodes as they are.

        A node in which nothing is left gets the ceiling as its bound.
        """
        if not optimum.row.passed:
            return list(nodes)
        cost = {relu: _costs(optimum, relaxed, relu) for relu in optimum.row.passed}
        most = np.max([own.max(axis=1) for own in cost.values()], axis=0)[:, None]
        # Units of the first layer all count: what is known of the others depends on them.
        wanted = {relu: own > MATTERS * most for relu, own in cost.items() if relu != self.network.relus[0]}
        bounds = clip(relaxed, self._planes(nodes, optimum, relaxed), wanted)
        clipped = []
        for k, node in enumerate(nodes):
            own = {i: (_of_box(bounds.lower[i], k), _of_box(bounds.upper[i], k)) for i in self.sources}
            empty = any(bool((low > high).any()) for low, high in own.values())
            clips = node.clips
            if self.keep:
                clips = (*clips, Clip(node.splits, node.slopes, node.multipliers, node.cut_multipliers, own))
            lower = max(node.lower, min(node.ceiling, self.ceiling)) if empty else node.lower
            ceiling = min(node.ceiling, self.ceiling)
            clipped.append(replace(node, bounds=own, lower=lower, ceiling=ceiling, clips=clips))
        return clipped

    def _planes(self, nodes: Sequence[Node], optimum: Optimum, relaxed: Relaxed) -> Planes:
        """What is not positive in the part of each node that has still to be excluded: below its row and its splits."""
        found = Planes.below(optimum.row, np.arange(len(nodes)), self.ceiling)
        for relu in self.network.relus:
            splits = [(k, u, s) for k, n in enumerate(nodes) for r, u, s in n.splits[-MOST_SPLITS:] if r == relu]
            if splits:
                box, units, signs = (np.array(v) for v in zip(*splits, strict=True))
                rows = unit_rows(self.network, self.network.relu_source(relu), units, box, relaxed.bounds.lower[0])
                found = found.join(Planes.below(pass_back(relaxed, rows.scaled(-signs)), box))
        return found


def _of_box(values: np.ndarray, k: int) -> np.ndarray:
    """The values of one box, flat."""
    return np.asarray(values[k if len(values) > 1 else 0]).reshape(-1)


def _costs(optimum: Optimum, relaxed: Relaxed, relu: int) -> np.ndarray:
    """What the relaxation of each unit of a layer may cost a row, (K, size); 0 where a unit is not unstable."""
    weight = optimum.row.passed[relu].reshape(len(optimum.lower), -1)
    offset = relaxed.lines[relu].upper_offset
    cost = np.maximum(-weight, 0) * offset.reshape(len(offset), -1)
    if relu in optimum.row.met:
        cost = cost + np.maximum(optimum.row.met[relu].phase, 0)
    return np.where(np.asarray(relaxed.bounds.unstable(relu)).reshape(len(offset), -1), cost, 0.0)
