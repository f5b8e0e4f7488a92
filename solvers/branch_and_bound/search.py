"""Branch and bound on ReLU phases: bounder, brancher and node store put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from mipverify.solvers.branch_and_bound.splits import Node, NodeStore

from mipverify.parallel import ALONE, Hands, dealt

MAX_OPEN_BYTES = 1 << 30  # of slopes and multipliers of open nodes


N = TypeVar("N", bound=Node)


class Bounder(Protocol[N]):
    """Bounds nodes, and knows how to split them."""

    def raise_bounds(
        self, nodes: Sequence[N], stop: Callable[[], bool] | None = None
    ) -> tuple[Sequence[N], np.ndarray]:
        """Nodes with better bounds, and the inputs (K, *input_shape) that minimize their relaxations."""

    def split(self, nodes: Sequence[N], stop: Callable[[], bool] | None = None) -> Sequence[tuple[N, N] | None]:
        """The two children of each node, not bounded yet; None where no unit is left to split."""


@dataclass(frozen=True)
class Outcome:
    """closed: every node has a positive bound. lower: proven bound over the whole tree, by condition. nodes: bounded
    from the start. witness: what `try_points` returned, if it accepted a point. reason: why the search is open still;
    "time" is the only one with which it can go on.
    """

    closed: bool
    lower: dict[int, float]
    nodes: int
    witness: object | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Proof:
    """The closed nodes of a search, for a checker of one's own.

    bounder: the network they are nodes of (reduced to its unstable units), its bounds over the box, the rows, the cuts
    and the ceiling of their bounds; or the shallow network whose signs are lifted. Not everything that proves a verdict
    is here: the bounds over the box and the cuts are taken as they are, however they were found (trees for hidden units
    are searches as well), and so are searches on the input box and programs of a MILP solver. A node with `duals` was
    closed by its linear program (`NodePrograms.proven`), one with a bound that is not positive by that of a leaf.
    """

    bounder: Bounder[Any]
    nodes: list[Node] = field(default_factory=list)


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
    relaxed nodes; if it returns something, that ends the search. solve_leaf: a sound lower bound of a node in which no
    unit is left to split, where the dual ascent alone did not finish; within the node's own bounds, so that it says no
    more than that the row is above the node's ceiling. batch: nodes that are bounded together; half as many are split.
    most_bytes: of slopes and multipliers of open nodes. hands: who bounds them. progress: shown the search now and
    then, when all open nodes are in its store: the least of their bounds is proven of the conditions in `closed`.
    closed: shown every node that is closed, with the slopes and multipliers of its bound; a leaf that `solve_leaf`
    closed has a bound below zero.
    """

    def __init__(
        self,
        bounder: Bounder[Any],
        roots: Sequence[Node],
        *,
        try_points: Callable[[np.ndarray], object | None] = lambda points: None,
        solve_leaf: Callable[[Node], float] = lambda node: float("-inf"),
        batch: int = 128,
        most_bytes: int = MAX_OPEN_BYTES,
        hands: Hands = ALONE,
        progress: Callable[[PhaseSearch], None] = lambda search: None,
        closed: Callable[[Node], None] | None = None,
    ):
        self.bounder = bounder
        self.try_points, self.solve_leaf, self.progress, self.shown = try_points, solve_leaf, progress, closed
        self.batch, self.most_bytes, self.hands = batch, most_bytes, hands
        self.store, self.fresh = NodeStore(), list(roots)
        self.stuck: list[Node] = []  # leaves without an answer
        self.closed = {node.condition: float("inf") for node in roots}  # the lowest bound of closed nodes
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
        self.closed = {condition: lower for condition, lower in self.closed.items() if condition not in conditions}

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
        if witness is not None:
            return Outcome(False, {}, self.nodes, witness=witness)
        remaining = self.lowest()
        lower = {condition: min(bound, remaining.get(condition, bound)) for condition, bound in self.closed.items()}
        if self.stuck:
            reason = "a leaf could not be decided"
        return Outcome(not remaining, lower, self.nodes, reason=reason or "")

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
                value = self.solve_leaf(leaf)
                if value > 0:
                    self._close(leaf, min(value, leaf.ceiling))
                else:
                    self.stuck.append(leaf)
            found = None if done.points is None else self._take(done.children, done.points)
            if found is not None:
                return found
        if len(self.store) and not self.stuck and not unanswered:
            self.progress(self)
        return None

    def _close(self, node: Node, lower: float) -> None:
        self.closed[node.condition] = min(self.closed[node.condition], lower)
        if self.shown is not None:
            self.shown(node)

    def _take(self, nodes: Sequence[Node], points: np.ndarray) -> object | None:
        """Close or keep nodes that were bounded; what `try_points` made of the minimizers of those kept."""
        self.nodes += len(nodes)
        open_ = [k for k, node in enumerate(nodes) if not node.lower > 0]
        for node in nodes:
            if node.lower > 0:
                self._close(node, node.lower)
            else:
                self.store.push(node)
        return self.try_points(points[open_]) if open_ else None
