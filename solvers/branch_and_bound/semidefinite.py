"""The bounder of splits where one layer is unstable: semidefinite relaxations, whose signs are fixed one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve.semidefinite import Optimized, SemidefiniteSearch, Vectors
from mipverify.solvers.branch_and_bound.branching.largest_gap import Gaps
from mipverify.solvers.branch_and_bound.branching.rule import SEMIDEFINITE, BranchingRule, rule
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.facts import EVERYWHERE, Claim
from mipverify.proof.semidefinite import SingleLayer

# Searches of a node, each where the ones before did not suffice: rounds, and the first step of lines.
ROOT = ((12, 0.15), (40, 0.05))
CHILD = ((25, 0.05),)  # goes on from its parent's vectors


@dataclass(frozen=True, eq=False, kw_only=True)
class SemidefiniteNode(Node):
    """A node with the vectors that its bound was found with, and what each unit without a sign costs it (U,)."""

    vectors: Vectors
    gap: np.ndarray

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        return sum(a.nbytes for a in (self.gap, self.vectors.lines, self.vectors.signs, self.vectors.one))


class SemidefiniteBounder:
    """Bounds subproblems of one unstable layer under fixed ReLU phases by their semidefinite relaxation."""

    def __init__(self, single_layer: SingleLayer, input_shape: tuple[int, ...], branching: str = "largest gap"):
        self.branching: BranchingRule[Gaps, tuple[int, int] | None] = rule(branching, SEMIDEFINITE)
        self.search, self.input_shape, self.single_layer = SemidefiniteSearch(single_layer), input_shape, single_layer
        outputs = single_layer.bounds.network.output_size
        self.root = single_layer.bounds
        self.claim = Claim(single_layer.bounds.network.output, np.arange(outputs), np.ones(outputs))

    def start(self, condition: int) -> SemidefiniteNode:
        """The whole problem of one condition."""
        vectors = self.search.start(condition)
        gap = np.zeros(len(vectors.lines))
        return SemidefiniteNode(condition, EVERYWHERE, float("-inf"), {}, {}, vectors=vectors, gap=gap)

    def raise_bounds(
        self, nodes: Sequence[SemidefiniteNode], stop: Callable[[], bool] | None = None
    ) -> tuple[list[SemidefiniteNode], np.ndarray]:
        """Nodes with better bounds, and inputs (K, *input_shape) that the relaxation holds for the worst."""
        solved, points = list(nodes), np.zeros((len(nodes), *self.input_shape))
        for turn, (rounds, step) in enumerate(CHILD if nodes[0].splits else ROOT):
            open_ = [k for k, node in enumerate(solved) if not node.lower > 0]
            if not open_ or (turn and stop is not None and stop()):
                break
            some = [solved[k] for k in open_]
            rows, vectors = np.array([node.condition for node in some]), Vectors.stack([node.vectors for node in some])
            found = self.search.solve(rows, [node.assumption for node in some], vectors, rounds, step, stop)
            points[open_] = found.minimizer.reshape(-1, *self.input_shape)
            for place, k in enumerate(open_):
                solved[k] = self._solved(solved[k], found, place)
        return solved, points

    def split(
        self, nodes: Sequence[SemidefiniteNode], stop: Callable[[], bool] | None = None
    ) -> list[tuple[SemidefiniteNode, SemidefiniteNode] | None]:
        """The two children of each node, as the branching rule chooses; None where all concave units have signs."""
        rows = [node.condition for node in nodes]
        concave = (self.signs(nodes) == 0) & (self.single_layer.coefficients[rows] < 0)
        gaps = Gaps(np.stack([node.gap for node in nodes]), concave, self.single_layer.relu, self.single_layer.units)
        chosen = self.branching.choose(gaps)
        return [
            None if split is None else (self._child(node, split[1], 1), self._child(node, split[1], -1))
            for node, split in zip(nodes, chosen, strict=True)
        ]

    def signs(self, nodes: Sequence[SemidefiniteNode]) -> np.ndarray:
        """What nodes know of the signs of units, (K, U)."""
        return self.search.relaxation.signs([node.assumption for node in nodes])

    def _child(self, node: SemidefiniteNode, unit: int, sign: int) -> SemidefiniteNode:
        lines = node.vectors.lines.copy()
        lines[self.single_layer.units == unit] = 0  # its multiplier now
        splits = (*node.splits, (self.single_layer.relu, unit, sign))
        assumption, vectors = replace(node.assumption, splits=splits), replace(node.vectors, lines=lines)
        return replace(node, assumption=assumption, vectors=vectors, fact=None)

    def _solved(self, node: SemidefiniteNode, found: Optimized, k: int) -> SemidefiniteNode:
        solved = replace(node, vectors=found.vectors.of(k), gap=found.gap[k].copy())
        learned = solved.learned(found.bound, k)
        assert isinstance(learned, SemidefiniteNode)
        return learned
