"""Branch and bound on ReLU phases: a bounder, with its branching rule, and a node store in the common loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from mipverify.solvers.branch_and_bound.loop import Batch, Stop, explore
from mipverify.solvers.branch_and_bound.splits import Node, NodeStore

from mipverify.parallel import SERIAL, Executor, partition
from mipverify.proof.bounds import Bounds
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import Claim, RowBounds

MAX_OPEN_BYTES = 1 << 30  # of slopes and multipliers of open nodes; beyond it, a tree is searched in depth
BATCH = 128  # nodes that are bounded together: arrays large enough that numpy's overhead does not show
UNDECIDED_LEAF = "a leaf could not be decided"


N = TypeVar("N", bound=Node)


class Bounder(Protocol[N]):
    """Bounds nodes, and knows how to split them. root: bounds of the whole input set; claim: what rows stand for."""

    root: Bounds
    claim: Claim

    def raise_bounds(
        self, nodes: Sequence[N], stop: Callable[[], bool] | None = None
    ) -> tuple[Sequence[N], np.ndarray]:
        """Nodes with better bounds, and the inputs (K, *input_shape) that minimize their relaxations."""

    def split(self, nodes: Sequence[N], stop: Callable[[], bool] | None = None) -> Sequence[tuple[N, N] | None]:
        """The two children of each node, not bounded yet; None where no unit is left to split."""


@dataclass(frozen=True)
class Outcome:
    """closed: every node has a positive bound. bound: proven of all rows over the whole tree; conditions: those that
    were searched. nodes: bounded from the start. witness: what `try_points` returned, if it accepted a point. reason:
    why the search is open still; "time" is the only one with which it can go on.
    """

    closed: bool
    bound: RowBounds
    conditions: tuple[int, ...]
    nodes: int
    witness: object | None = None
    reason: str = ""

    @property
    def lower(self) -> dict[int, float]:
        """The proven bound of each condition that was searched."""
        return {condition: float(self.bound.lower[condition]) for condition in self.conditions}


@dataclass(frozen=True, eq=False)
class Expansion:
    """What became of some nodes: their children (bounded), the inputs (K, *input_shape) that minimize these, and the
    nodes in which no unit is left to split. roots: they were nobody's children."""

    children: Sequence[Node]
    points: np.ndarray | None
    leaves: list[Node]
    roots: bool = False


def bound_roots(bounder: Bounder[Any], roots: Sequence[Node], stop: Stop) -> Expansion:
    """Bound nodes that nobody has looked at."""
    return Expansion(*bounder.raise_bounds(roots, stop), [], roots=True)


def expand(bounder: Bounder[Any], parents: Sequence[Node], stop: Stop) -> Expansion:
    """Split nodes and bound their children."""
    pairs = bounder.split(parents, stop)
    leaves = [node for node, pair in zip(parents, pairs, strict=True) if pair is None]
    children = [node for pair in pairs if pair is not None for node in pair]
    if not children:
        return Expansion([], None, leaves)
    return Expansion(*bounder.raise_bounds(children, stop), leaves)


class PhaseSearch:
    """Proves that every condition's row is positive, or finds a point where one is not; can be stopped and go on.

    roots: where to start, for each condition (`root`). try_points: shown the inputs (R, *input_shape) that minimize
    relaxed nodes; if it returns something, that ends the search. solve_leaf: a node in which no unit is left to split,
    where the dual ascent alone did not finish, with a better bound if it finds one. batch: nodes that are bounded
    together; half as many are split. pool: who bounds them.
    progress: shown the search now and then, when all open nodes are in its store: the least of their bounds is proven
    of its conditions.
    """

    def __init__(
        self,
        bounder: Bounder[Any],
        roots: Sequence[Node],
        *,
        try_points: Callable[[np.ndarray], object | None] = lambda points: None,
        solve_leaf: Callable[[Node], Node] = lambda node: node,
        batch: int = BATCH,
        pool: Executor = SERIAL,
        progress: Callable[[PhaseSearch], None] = lambda search: None,
    ):
        self.try_points, self.pool = try_points, pool
        self.tree = _PhaseTree(bounder, roots, solve_leaf, batch, lambda: progress(self))

    @property
    def bounder(self) -> Bounder[Any]:
        """Who bounds and splits its nodes."""
        return self.tree.bounder

    @property
    def nodes(self) -> int:
        """Bounded from the start."""
        return self.tree.nodes

    @property
    def store(self) -> NodeStore:
        """Nodes that are bounded and open."""
        return self.tree.store

    @property
    def cases(self) -> PhaseCases:
        """What is proven so far."""
        return self.tree.cases

    @property
    def conditions(self) -> tuple[int, ...]:
        """Those that are searched."""
        return self.tree.conditions

    def lowest(self) -> dict[int, float]:
        """The proven bound of each condition that is open still."""
        found: dict[int, float] = {}
        for node in self.tree.all_open():
            found[node.condition] = min(found.get(node.condition, float("inf")), node.lower)
        return found

    def forget(self, conditions: Collection[int]) -> None:
        """Drop all nodes of some conditions: nothing is claimed of these any more."""
        self.tree.forget(conditions)

    def run(
        self,
        stop: Stop = lambda: False,
        *,
        split: bool = True,
        most: float = math.inf,
        most_bytes: int = MAX_OPEN_BYTES,
    ) -> Outcome:
        """Go on until all is closed, something is found, or it may not go on; split: beyond the roots.

        most: nodes that are bounded before it counts as out of time. most_bytes: of slopes and multipliers of open
        nodes, from which on those nearest to being closed come first, of which no more stay open than a path is long.
        """
        tree = self.tree
        tree.splitting, tree.most, tree.most_bytes = split, tree.nodes + most, most_bytes
        ending = explore(tree, self.try_points, self.pool, lambda: tree.nodes >= tree.most or stop())
        reason = UNDECIDED_LEAF if tree.stuck else ending.reason
        closed = ending.witness is None and not self.lowest()
        return Outcome(closed, tree.cases.proven(), tree.conditions, tree.nodes, ending.witness, reason)


class _PhaseTree:
    """Nodes of ReLU phases for the common loop: roots first, then the worst of the store."""

    def __init__(
        self,
        bounder: Bounder[Any],
        roots: Sequence[Node],
        solve_leaf: Callable[[Node], Node],
        batch: int,
        progress: Callable[[], None],
    ):
        self.bounder, self.solve_leaf, self.progress = bounder, solve_leaf, progress
        self.batch, self.most_bytes, self.splitting = batch, MAX_OPEN_BYTES, True
        self.store, self.fresh = NodeStore(), list(roots)
        self.stuck: list[Node] = []  # leaves without an answer
        self.cases = PhaseCases(bounder.root, bounder.claim)
        self.conditions = tuple(dict.fromkeys(node.condition for node in roots))
        for node in roots:
            self._learn(node)
        self.nodes, self.most, self.splits = 0, math.inf, False

    def all_open(self) -> list[Node]:
        """Also those that cannot be worked on."""
        return [*self.fresh, *self.stuck, *self.store]

    def forget(self, conditions: Collection[int]) -> None:
        """Drop all nodes of some conditions."""
        kept = [node for node in self.store if node.condition not in conditions]
        self.store = NodeStore()
        for node in kept:
            self.store.push(node)
        self.fresh, self.stuck = (
            [node for node in nodes if node.condition not in conditions] for nodes in (self.fresh, self.stuck)
        )
        self.conditions = tuple(condition for condition in self.conditions if condition not in conditions)
        self.cases.forget(conditions)

    def open(self) -> bool:
        """Whether there are roots to bound, or nodes to split."""
        return bool(self.fresh) or (self.splitting and len(self.store) > 0)

    def obstacle(self) -> str:
        """A leaf that cannot be decided."""
        return UNDECIDED_LEAF if self.stuck else ""

    def take(self, pool: Executor) -> Batch:
        """Roots, all here; else the worst nodes, or those nearest to being closed where memory is full, partitioned."""
        self.splits, batch = not self.fresh, int(min(self.batch, max(1, self.most - self.nodes)))
        if self.fresh:
            some, self.fresh = self.fresh[:batch], self.fresh[batch:]
            return Batch(bound_roots, self.bounder, [some], here=True)
        full = len(self.store) * self.store.bytes_per_node() > self.most_bytes
        pop = self.store.pop_nearest if full else self.store.pop
        return Batch(expand, self.bounder, partition(pop(max(1, batch // 2)), pool))

    def put_back(self, part: Sequence[Node]) -> None:
        """Nodes that were not split."""
        for node in part:
            self.store.push(node)

    def absorb(self, part: Sequence[Node], done: Expansion) -> np.ndarray | None:
        """Leaves are solved, children closed or kept; the minimizers of those that were kept."""
        for leaf in done.leaves:
            solved = self.solve_leaf(leaf)
            self._learn(solved)
            if solved.lower > 0:
                self.cases.close(solved.condition, solved.splits)
            else:
                self.stuck.append(solved)
        for node in () if done.roots else done.children[::2]:
            relu, unit, _ = node.splits[-1]
            self.cases.split(node.condition, node.splits[:-1], relu, unit)
        return None if done.points is None else self._keep(done.children, done.points)

    def rest(self, answered: bool) -> None:
        """Tell how far splitting is, when all open nodes are in the store."""
        if self.splits and len(self.store) and not self.stuck and answered:
            self.progress()

    def _learn(self, node: Node) -> None:
        if node.fact is not None:
            self.cases.learn(node.fact, node.place, node.condition)

    def _keep(self, nodes: Sequence[Node], points: np.ndarray) -> np.ndarray | None:
        """Close or keep nodes that were bounded; the minimizers of those kept."""
        self.nodes += len(nodes)
        open_ = [k for k, node in enumerate(nodes) if not node.lower > 0]
        for node in nodes:
            self._learn(node)
            if node.lower > 0:
                self.cases.close(node.condition, node.splits)
            else:
                self.store.push(node)
        return points[open_] if open_ else None
