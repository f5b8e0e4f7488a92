"""Hidden bounds of nodes' own: what units can be in the part of a node that has still to be excluded.

A node is closed once its row is positive everywhere in it. So bounds need to hold only where the row is not above a
small ceiling and the split units have their phases: a corner of the input box (`presolve/clipping.py`). They help where
that corner is small, which is when the node's bound is near zero, or once splits of early layers have tightened what
comes after them. Whether they do is tried on a few units first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mipverify.presolve import Bounds, Optimum, Relaxed, pass_back, unit_rows
from mipverify.presolve.clipping import Planes, clip
from mipverify.presolve.crown import scaled
from mipverify.solvers.branch_and_bound.splits import Clip, Node

from mipverify.network import Network

TRIED = 12  # units of the last layer
SHRUNK = 0.02  # of their width: what makes the others worth it
MATTERS = 0.01  # of what the most important unit costs a row: others of the last layer keep their bounds
MOST_SPLITS = 31  # of a node, the latest: planes that bounds are searched with


class Corners:
    """Clips the hidden bounds of nodes to where their rows are not above a ceiling.

    keep: nodes remember how their bounds came about, which takes memory.
    """

    def __init__(self, network: Network, ceiling: float, keep: bool = False):
        self.network, self.ceiling, self.keep = network, ceiling, keep
        self.sources = [network.relu_source(relu) for relu in network.relus]

    def clip(self, nodes: Sequence[Node], optimum: Optimum, relaxed: Relaxed) -> tuple[list[Node], np.ndarray]:
        """What nodes become, and whose bounds shrink noticeably (K,).

        optimum, relaxed: of the nodes as they are. A node in which nothing is left gets the ceiling as its bound.
        """
        clipped = list(nodes)
        if not optimum.row.passed:
            return clipped, np.zeros(len(nodes), bool)
        last = max(optimum.row.passed)
        cost = _costs(optimum, relaxed, last)
        planes = self._planes(nodes, optimum, relaxed)
        shrunk = self._shrunk(relaxed, planes, last, cost) > SHRUNK
        places = np.flatnonzero(shrunk)
        if not len(places):
            return clipped, shrunk
        bounds, cost = _select(relaxed.bounds, places), cost[places]
        wanted = {last: cost > MATTERS * cost.max(axis=1, keepdims=True)}
        bounds = clip(Relaxed(bounds, relaxed), planes.of_boxes(places), wanted)
        for k, place in enumerate(places.tolist()):
            own = {i: (_of_box(bounds.lower[i], k), _of_box(bounds.upper[i], k)) for i in self.sources}
            empty = any(bool((low > high).any()) for low, high in own.values())
            node = nodes[place]
            clips = node.clips
            if self.keep:
                clips = (*clips, Clip(node.splits, node.slopes, node.multipliers, node.cut_multipliers, own))
            lower = max(node.lower, min(node.ceiling, self.ceiling)) if empty else node.lower
            ceiling = min(node.ceiling, self.ceiling)
            clipped[place] = replace(node, bounds=own, lower=lower, ceiling=ceiling, clips=clips)
        return clipped, shrunk

    def _shrunk(self, relaxed: Relaxed, planes: Planes, last: int, cost: np.ndarray) -> np.ndarray:
        """The share (K,) of the width that the units which cost most lose."""
        trial = np.zeros(cost.shape, bool)
        np.put_along_axis(trial, np.argsort(-cost, axis=1)[:, :TRIED], True, axis=1)
        nothing = {relu: np.zeros((1, 1), bool) for relu in self.network.relus}
        tried = clip(relaxed, planes, {**nothing, last: trial})
        source, widths = self.network.relu_source(last), []
        for bounds in (relaxed.bounds, tried):
            width = (bounds.upper[source] - bounds.lower[source]).reshape(-1, cost.shape[1])
            widths.append(np.where(trial, np.maximum(width, 0.0), 0.0).sum(axis=1))
        return np.asarray(1 - widths[1] / np.maximum(widths[0], np.finfo(float).tiny))

    def _planes(self, nodes: Sequence[Node], optimum: Optimum, relaxed: Relaxed) -> Planes:
        """What is not positive in the part of each node that has still to be excluded: below its row and its splits."""
        found = Planes.below(optimum.row, np.arange(len(nodes)), self.ceiling)
        for relu in self.network.relus:
            splits = [(k, u, s) for k, n in enumerate(nodes) for r, u, s in n.splits[-MOST_SPLITS:] if r == relu]
            if splits:
                box, units, signs = (np.array(v) for v in zip(*splits, strict=True))
                rows = unit_rows(self.network, self.network.relu_source(relu), units, box, relaxed.bounds.lower[0])
                found = found.join(Planes.below(pass_back(relaxed, scaled(rows, -signs)), box))
        return found


def _select(bounds: Bounds, places: np.ndarray) -> Bounds:
    """The bounds of some boxes; arrays that all boxes share stay as they are."""
    lower, upper = (tuple(x if len(x) == 1 else x[places] for x in side) for side in (bounds.lower, bounds.upper))
    return replace(bounds, lower=lower, upper=upper)


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
