"""The bounder of small trees: a linear program for each node, which is exact where all its units are split.

A batch of ascents takes as long as hundreds of programs of a few units, and halved boxes creep up to minima along
kinks: where only a few units are unstable, trees of programs end before either has come far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.facts import Assumption


class ProgramBounder:
    """Bounds subproblems of a layered network under fixed phases, and splits the unit that is furthest from its ReLU.

    root: bounds of the whole input set (batch 1). programs: of nodes.
    """

    def __init__(self, root: Bounds, programs: NodePrograms):
        self.root, self.programs = root, programs
        assert programs.rows.claim is not None  # made of units
        self.claim = programs.rows.claim
        network = root.network
        self.unstable = {relu: np.flatnonzero(root.unstable(network.relu_source(relu))[0]) for relu in network.relus}

    def raise_bounds(
        self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], np.ndarray]:
        """Nodes with the bounds of their programs, and the minimizers of these."""
        bounds = assume(self.root, [node.assumption for node in nodes], [None] * len(nodes))
        middle = 0.5 * (self.root.lower[0] + self.root.upper[0])  # where a program has no point
        points = np.repeat(middle, len(nodes), axis=0)
        return self.programs.raise_bounds(nodes, bounds, points, stop or (lambda: False)), points

    def split(self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None) -> list[tuple[Node, Node] | None]:
        """The two children of each node, not bounded yet; None where no unit is left to split."""
        return [self._split(node) for node in nodes]

    def _split(self, node: Node) -> tuple[Node, Node] | None:
        taken, best, furthest = {split[:2] for split in node.splits}, None, -1.0
        for relu, units in self.unstable.items():
            excess = np.zeros(0) if node.excess is None else node.excess[relu]
            for unit in units.tolist():
                gap = float(excess[unit]) if len(excess) else 0.0
                if gap > furthest and (relu, unit) not in taken:
                    best, furthest = (relu, unit), gap
        if best is None:
            return None
        splits = ((*node.splits, (*best, sign)) for sign in (1, -1))
        first, second = (replace(node, assumption=Assumption(own), excess=None, fact=None) for own in splits)
        return first, second
