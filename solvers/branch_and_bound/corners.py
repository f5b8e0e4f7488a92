"""Hidden bounds of nodes' own: what units can be in the part of a node that has still to be excluded.

A node is closed once its row is positive everywhere in it. So bounds need to hold only where the row is not above a
small ceiling and the split units have their phases: a corner of the input box (`presolve/clipping.py`). They help where
that corner is small, which is when the node's bound is near zero, or once splits of early layers have tightened what
comes after them. Whether they do shows in the first layer, where clipping costs least: all nodes have the same planes.
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

SHRUNK = 0.02  # of the width of the first layer: what makes the others worth it
MATTERS = 0.05  # of what the most important unit costs a row: others keep their bounds
MOST_SPLITS = 7  # of a node, the latest: planes that bounds are searched with


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
        last, first = max(optimum.row.passed), self.network.relus[0]
        planes = self._planes(nodes, optimum, relaxed)
        cost = {relu: _costs(optimum, relaxed, relu) for relu in optimum.row.passed}
        nothing = {relu: np.zeros((1, 1), bool) for relu in self.network.relus}
        most = np.max([c.max(axis=1) for c in cost.values()], axis=0)[:, None]
        important = {relu: c > MATTERS * most for relu, c in cost.items()}
        del nothing[first]
        bounds = clip(relaxed, planes, {**nothing, **important} if first == last else nothing)
        shrunk = np.broadcast_to(_share_lost(relaxed.bounds, bounds, first) > SHRUNK, len(nodes))
        places = np.flatnonzero(shrunk)
        if not len(places):
            return clipped, shrunk
        bounds = _select(bounds, places)
        if first != last:
            wanted = {relu: own[places] for relu, own in important.items()} | {first: np.zeros((1, 1), bool)}
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


def _share_lost(before: Bounds, after: Bounds, relu: int) -> np.ndarray:
    """The share (K,) of the width of a layer's unstable units that is gone; all of it where there are none."""
    source, unstable = before.network.relu_source(relu), np.asarray(before.unstable(relu))
    widths = []
    for bounds in (before, after):
        width = np.where(unstable, np.maximum(bounds.upper[source] - bounds.lower[source], 0.0), 0.0)
        widths.append(width.reshape(len(width), -1).sum(axis=1))
    return np.asarray(np.where(widths[0] > 0, 1 - widths[1] / np.maximum(widths[0], np.finfo(float).tiny), 1.0))


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
