"""The bounder of phase splitting in shallow networks: semidefinite relaxations, whose signs are fixed one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve.semidefinite import Lifted, Lifting, Shallow, Vectors
from mipverify.solvers.branch_and_bound.splits import Node

ROUNDS = 12, 40  # of a root's search, the later ones where the earlier ones did not suffice,
FEWER = (25,)  # and of its descendants', which go on from their parents' vectors,
STEP = 0.05  # with smaller steps


@dataclass(frozen=True, eq=False)
class LiftedNode(Node):
    """A node with the vectors that its bound was found with, and what each unit without a sign costs it (U,).

    alpha, beta: the dual variables of its bound, if the search keeps them.
    """

    vectors: Vectors | None = None
    gap: np.ndarray | None = None
    alpha: np.ndarray | None = None
    beta: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        if self.vectors is None or self.gap is None:
            return 0
        arrays = (self.gap, self.vectors.lines, self.vectors.signs, self.vectors.one, self.alpha, self.beta)
        return sum(a.nbytes for a in arrays if a is not None)


def lifted_root(condition: int) -> LiftedNode:
    """The whole problem of one condition."""
    return LiftedNode(condition, (), float("-inf"), {}, {})


class LiftedBounder:
    """Bounds subproblems of a shallow network under fixed ReLU phases by its semidefinite relaxation.

    keep: nodes remember the dual variables of their bounds, for a checker of one's own.
    """

    def __init__(self, shallow: Shallow, input_shape: tuple[int, ...], keep: bool = False):
        self.lifting, self.input_shape, self.keep = Lifting(shallow), input_shape, keep
        self.places = {place: index for index, place in enumerate(shallow.units)}

    def raise_bounds(
        self, nodes: Sequence[LiftedNode], stop: Callable[[], bool] | None = None
    ) -> tuple[list[LiftedNode], np.ndarray]:
        """Nodes with better bounds, and inputs (K, *input_shape) that the relaxation holds for the worst."""
        fresh = any(node.vectors is None for node in nodes)
        solved, points = list(nodes), np.zeros((len(nodes), *self.input_shape))
        for again, rounds in enumerate(ROUNDS if fresh else FEWER):
            open_ = [k for k, node in enumerate(solved) if not node.lower > 0]
            # Once in any case, if only for a round: without vectors a node cannot be split.
            if not open_ or (again and stop is not None and stop()):
                break
            found = self._solve([solved[k] for k in open_], rounds, stop)
            points[open_] = found.minimizer.reshape(-1, *self.input_shape)
            for place, k in enumerate(open_):
                solved[k] = self._solved(solved[k], found, place)
        return solved, points

    def _solve(self, nodes: Sequence[LiftedNode], rounds: int, stop: Callable[[], bool] | None) -> Lifted:
        rows = np.array([node.condition for node in nodes])
        fresh = any(node.vectors is None for node in nodes)
        if fresh:
            return self.lifting.solve(rows, self._signs(nodes), rounds=rounds, stop=stop)
        vectors = Vectors.stack([node.vectors for node in nodes if node.vectors is not None])
        return self.lifting.solve(rows, self._signs(nodes), vectors, rounds, STEP, stop)

    def split(
        self, nodes: Sequence[LiftedNode], stop: Callable[[], bool] | None = None
    ) -> list[tuple[LiftedNode, LiftedNode] | None]:
        """The two children of each node, by the unit that costs it most; None where all concave units have signs."""
        signs = self._signs(nodes)
        pairs: list[tuple[LiftedNode, LiftedNode] | None] = []
        for k, node in enumerate(nodes):
            concave = (signs[k] == 0) & (self.lifting.shallow.coefficients[node.condition] < 0)
            if not concave.any() or node.gap is None:
                pairs.append(None)
                continue
            unit = int(np.argmax(np.where(concave, node.gap, -np.inf)))
            pairs.append((self._child(node, unit, 1), self._child(node, unit, -1)))
        return pairs

    def _signs(self, nodes: Sequence[LiftedNode]) -> np.ndarray:
        signs = np.zeros((len(nodes), len(self.places)), np.int8)
        for k, node in enumerate(nodes):
            for relu, unit, sign in node.splits:
                signs[k, self.places[relu, unit]] = sign
        return signs

    def _child(self, node: LiftedNode, unit: int, sign: int) -> LiftedNode:
        assert node.vectors is not None
        lines = node.vectors.lines.copy()
        lines[unit] = 0  # its multiplier now
        splits = (*node.splits, (*self.lifting.shallow.units[unit], sign))
        return replace(node, splits=splits, vectors=replace(node.vectors, lines=lines))

    def _solved(self, node: LiftedNode, found: Lifted, k: int) -> LiftedNode:
        duals = {"alpha": found.alpha[k].copy(), "beta": found.beta[k].copy()} if self.keep else {}
        lower = max(node.lower, float(found.lower[k]))
        return replace(node, lower=lower, vectors=found.vectors.of(k), gap=found.gap[k].copy(), **duals)
