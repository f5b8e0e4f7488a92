"""The bounder of phase splitting in shallow networks: semidefinite relaxations, whose signs are fixed one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve.semidefinite import Lifted, Lifting, Shallow, Vectors
from mipverify.solvers.branch_and_bound.splits import Node

# Searches of a node, each where the ones before did not suffice: rounds, and the first step of lines.
ROOT = ((12, 0.15), (40, 0.05))
CHILD = ((25, 0.05),)  # goes on from its parent's vectors


@dataclass(frozen=True, eq=False, kw_only=True)
class LiftedNode(Node):
    """A node with the vectors that its bound was found with, and what each unit without a sign costs it (U,).

    alpha, beta: the dual variables of its bound, if the search keeps them.
    """

    vectors: Vectors
    gap: np.ndarray
    alpha: np.ndarray | None = None
    beta: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        arrays = (self.gap, self.vectors.lines, self.vectors.signs, self.vectors.one, self.alpha, self.beta)
        return sum(a.nbytes for a in arrays if a is not None)


class LiftedBounder:
    """Bounds subproblems of a shallow network under fixed ReLU phases by its semidefinite relaxation.

    keep: nodes remember the dual variables of their bounds, for a checker of one's own (`Lifting.prove`).
    """

    def __init__(self, shallow: Shallow, input_shape: tuple[int, ...], keep: bool = False):
        self.lifting, self.input_shape, self.keep = Lifting(shallow), input_shape, keep

    def root(self, condition: int) -> LiftedNode:
        """The whole problem of one condition."""
        vectors = self.lifting.start(condition)
        return LiftedNode(condition, (), float("-inf"), {}, {}, vectors=vectors, gap=np.zeros(len(vectors.lines)))

    def raise_bounds(
        self, nodes: Sequence[LiftedNode], stop: Callable[[], bool] | None = None
    ) -> tuple[list[LiftedNode], np.ndarray]:
        """Nodes with better bounds, and inputs (K, *input_shape) that the relaxation holds for the worst."""
        solved, points = list(nodes), np.zeros((len(nodes), *self.input_shape))
        for turn, (rounds, step) in enumerate(CHILD if nodes[0].splits else ROOT):
            open_ = [k for k, node in enumerate(solved) if not node.lower > 0]
            if not open_ or (turn and stop is not None and stop()):
                break
            some = [solved[k] for k in open_]
            rows, vectors = np.array([node.condition for node in some]), Vectors.stack([node.vectors for node in some])
            found = self.lifting.solve(rows, self.signs(some), vectors, rounds, step, stop)
            points[open_] = found.minimizer.reshape(-1, *self.input_shape)
            for place, k in enumerate(open_):
                solved[k] = self._solved(solved[k], found, place)
        return solved, points

    def split(
        self, nodes: Sequence[LiftedNode], stop: Callable[[], bool] | None = None
    ) -> list[tuple[LiftedNode, LiftedNode] | None]:
        """The two children of each node, by the unit that costs it most; None where all concave units have signs."""
        rows = [node.condition for node in nodes]
        concave = (self.signs(nodes) == 0) & (self.lifting.shallow.coefficients[rows] < 0)
        worst = np.where(concave, np.stack([node.gap for node in nodes]), -np.inf).argmax(axis=1)
        return [
            (self._child(node, unit, 1), self._child(node, unit, -1)) if some else None
            for node, unit, some in zip(nodes, worst.tolist(), concave.any(axis=1), strict=True)
        ]

    def signs(self, nodes: Sequence[LiftedNode]) -> np.ndarray:
        """What nodes know of the signs of units, (K, U)."""
        known = np.zeros((len(nodes), len(self.lifting.shallow.units)), np.int8)
        splits = [(k, unit, sign) for k, node in enumerate(nodes) for _, unit, sign in node.splits]
        if splits:
            node, unit, sign = np.array(splits).T
            known[node, np.searchsorted(self.lifting.shallow.units, unit)] = sign
        return known

    def _child(self, node: LiftedNode, unit: int, sign: int) -> LiftedNode:
        lines, shallow = node.vectors.lines.copy(), self.lifting.shallow
        lines[unit] = 0  # its multiplier now
        splits = (*node.splits, (shallow.relu, int(shallow.units[unit]), sign))
        return replace(node, splits=splits, vectors=replace(node.vectors, lines=lines))

    def _solved(self, node: LiftedNode, found: Lifted, k: int) -> LiftedNode:
        duals = {"alpha": found.alpha[k].copy(), "beta": found.beta[k].copy()} if self.keep else {}
        lower = max(node.lower, float(found.lower[k]))
        return replace(node, lower=lower, vectors=found.vectors.of(k), gap=found.gap[k].copy(), **duals)
