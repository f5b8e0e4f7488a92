"""Branch and bound on ReLU phases: bounder, brancher and node store put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from mipverify.solvers.branch_and_bound.splits import Node, NodeStore

from mipverify.parallel import ALONE, Hands, dealt
from mipverify.proof.bounds import Bounds
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import Claim, RowBounds

MAX_OPEN_BYTES = 1 << 30  # of slopes and multipliers of open nodes


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
    nodes in which no unit is left to split."""

    children: Sequence[Node]
    points: np.ndarray | None
    leaves: list[Node]


def expand(bounder: Bounder[Any], parents: Sequence[Node], stop: Callable[[], bool]) -> Expansion:
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
    together; half as many are split. most_bytes: of slopes and multipliers of open nodes. hands: who bounds them.
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
        batch: int = 128,
        most_bytes: int = MAX_OPEN_BYTES,
        hands: Hands = ALONE,
        progress: Callable[[PhaseSearch], None] = lambda search: None,
    ):
        self.bounder = bounder
        self.try_points, self.solve_leaf, self.progress = try_points, solve_leaf, progress
        self.batch, self.most_bytes, self.hands = batch, most_bytes, hands
        self.store, self.fresh = NodeStore(), list(roots)
        self.stuck: list[Node] = []  # leaves without an answer
        self.cases = PhaseCases(bounder.root, bounder.claim)
        self.conditions = tuple(dict.fromkeys(node.condition for node in roots))
        for node in roots:
            self._learn(node)
        self.nodes = 0

    def lowest(self) -> dict[int, float]:
        """The proven bound of each condition that is open still."""
        found: dict[int, float] = {}
        for node in [*self.fresh, *self.stuck, *self.store]:
            found[node.condition] = min(found.get(node.condition, float("inf")), node.lower)
        return found

    def forget(self, conditions: Collection[int]) -> None:
        """Drop all nodes of some conditions: nothing is claimed of these any more."""
        kept = [node for node in self.store if node.condition not in conditions]
        self.store = NodeStore()
        for node in kept:
            self.store.push(node)
        self.fresh, self.stuck = (
            [node for node in nodes if node.condition not in conditions] for nodes in (self.fresh, self.stuck)
        )
        self.conditions = tuple(condition for condition in self.conditions if condition not in conditions)
        self.cases.forget(conditions)

    def run(self, stop: Callable[[], bool] = lambda: False, *, split: bool = True) -> Outcome:
        """Go on until all is closed, something is found, or it may not go on; split: beyond the roots."""
        witness = reason = None
        while witness is None and (self.fresh or (split and len(self.store))):
            if stop():
                reason = "time"
            elif self.stuck:
                reason = "a leaf could not be decided"
            elif len(self.store) * self.store.bytes_per_node() > self.most_bytes:
                reason = "memory"
            if reason is not None:
                break
            witness = self._bound_roots(stop) if self.fresh else self._split(stop)
        if self.stuck:
            reason = "a leaf could not be decided"
        closed = witness is None and not self.lowest()
        return Outcome(closed, self.cases.proven(), self.conditions, self.nodes, witness, reason or "")

    def _bound_roots(self, stop: Callable[[], bool]) -> object | None:
        some, self.fresh = self.fresh[: self.batch], self.fresh[self.batch :]
        return self._take(*self.bounder.raise_bounds(some, stop))

    def _split(self, stop: Callable[[], bool]) -> object | None:
        """Split the worst nodes; what a counterexample among their children was taken for."""
        parts = dealt(self.store.pop(max(1, self.batch // 2)), self.hands)
        unanswered = False
        for part, done in zip(parts, self.hands.map(expand, self.bounder, parts, stop), strict=True):
            if done is None:
                unanswered = True
                for node in part:
                    self.store.push(node)
                continue
            for leaf in done.leaves:
                solved = self.solve_leaf(leaf)
                self._learn(solved)
                if solved.lower > 0:
                    self.cases.close(solved.condition, solved.splits)
                else:
                    self.stuck.append(solved)
            for node in done.children[::2]:
                relu, unit, _ = node.splits[-1]
                self.cases.split(node.condition, node.splits[:-1], relu, unit)
            found = None if done.points is None else self._take(done.children, done.points)
            if found is not None:
                return found
        if len(self.store) and not self.stuck and not unanswered:
            self.progress(self)
        return None

    def _learn(self, node: Node) -> None:
        if node.fact is not None:
            self.cases.learn(node.fact, node.place, node.condition)

    def _take(self, nodes: Sequence[Node], points: np.ndarray) -> object | None:
        """Close or keep nodes that were bounded; what `try_points` made of the minimizers of those kept."""
        self.nodes += len(nodes)
        open_ = [k for k, node in enumerate(nodes) if not node.lower > 0]
        for node in nodes:
            self._learn(node)
            if node.lower > 0:
                self.cases.close(node.condition, node.splits)
            else:
                self.store.push(node)
        return self.try_points(points[open_]) if open_ else None
