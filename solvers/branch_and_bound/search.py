"""Branch and bound on ReLU phases: bounder, brancher and node store put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mipverify.solvers.branch_and_bound.branching import FilteredBranching
from mipverify.solvers.branch_and_bound.phases import LOOK, PhaseBounder
from mipverify.solvers.branch_and_bound.splits import Node, NodeStore

from mipverify.parallel import ALONE, Hands, dealt

MAX_OPEN_BYTES = 1 << 30  # of slopes and multipliers of open nodes


@dataclass(frozen=True)
class Outcome:
    """closed: every node has a positive bound. lower: proven bound over the whole tree, by condition. nodes: bounded.

    witness: what `try_point` returned, if it accepted a point. reason: why the search ended open.
    """

    closed: bool
    lower: dict[int, float]
    nodes: int
    witness: object | None = None
    reason: str = ""
    open_nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Expansion:
    """What became of some nodes: their children (bounded), the inputs (K, *input_shape) that minimize these, and the
    nodes in which no unit is unstable."""

    children: list[Node]
    points: np.ndarray | None
    leaves: list[Node]


def expand(
    work: tuple[PhaseBounder, FilteredBranching], parents: Sequence[Node], stop: Callable[[], bool]
) -> Expansion:
    """Split nodes and bound their children."""
    bounder, brancher = work
    # The optimum of the parents once more, without iterations: scores need it, and keeping it would cost memory.
    _, optimum, relaxed = bounder.solve(parents, search=LOOK, stop=stop)
    pairs = brancher.split(bounder, parents, optimum, relaxed)
    leaves = [node for node, pair in zip(parents, pairs, strict=True) if pair is None]
    children = [node for pair in pairs if pair is not None for node in pair]
    if not children:
        return Expansion([], None, leaves)
    return Expansion(*bounder.raise_bounds(children, stop), leaves)


def search_phases(
    bounder: PhaseBounder,
    roots: Sequence[Node],
    *,
    brancher: FilteredBranching | None = None,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    solve_leaf: Callable[[Node], float] = lambda node: float("-inf"),
    stop: Callable[[], bool] = lambda: False,
    batch: int = 128,
    hands: Hands = ALONE,
    progress: Callable[[int, int, float], None] | None = None,
    closed: Callable[[Node], None] | None = None,
) -> Outcome:
    """Prove that every condition's row is positive, or find a point where one is not.

    roots: where to start, for each condition (`root`), or what an earlier search left open.
    try_points: shown the inputs (R, *input_shape) that minimize relaxed nodes; if it returns something, that ends it.
    solve_leaf: a sound lower bound of a node in which no unit is unstable, where the dual ascent alone did not finish;
    within the node's own bounds, so that it says no more than that the row is above the node's ceiling.
    batch: nodes that are bounded together; half as many are split. hands: who does that. closed: shown every node that
    is closed, with the slopes and multipliers of its bound; a leaf that `solve_leaf` closed has a bound below zero.
    """
    work = bounder, brancher or FilteredBranching()
    tree = _Tree(roots, closed)
    stuck: list[Node] = []
    left: list[Node] = []  # taken out of the store, but not worked on
    reason = ""
    for begin in range(0, len(roots), batch):
        if stop():
            reason = "time"
            left.extend(roots[begin:])
            break
        found = tree.add(*bounder.raise_bounds(roots[begin : begin + batch], stop), try_points)
        if found is not None:
            return Outcome(False, {}, tree.counted, witness=found)
    while len(tree.store) and not reason:
        if stop():
            reason = "time"
            break
        if len(tree.store) * tree.store.bytes_per_node() > MAX_OPEN_BYTES:
            reason = "memory"
            break
        parents = tree.store.pop(max(1, batch // 2))
        parts = dealt(parents, hands)
        for part, done in zip(parts, hands.map(expand, work, parts, stop), strict=True):
            if done is None:
                left.extend(part)
                continue
            for leaf in done.leaves:
                value = solve_leaf(leaf)
                if value > 0:
                    tree.close(leaf, min(value, leaf.ceiling))
                else:
                    stuck.append(leaf)
            found = None if done.points is None else tree.add(done.children, done.points, try_points)
            if found is not None:
                return Outcome(False, {}, tree.counted, witness=found)
        if stuck:
            reason = "a leaf could not be decided"
        elif progress is not None and len(tree.store) and not left:
            progress(tree.counted, len(tree.store), tree.store.lowest())
    remaining = [*left, *stuck, *tree.store.pop(len(tree.store))]
    lower = dict(tree.closed)
    for node in remaining:
        lower[node.condition] = min(lower[node.condition], node.lower)
    return Outcome(not remaining, lower, tree.counted, reason=reason, open_nodes=remaining)


class _Tree:
    """The open nodes, the lowest bound among the closed ones by condition, and how many were bounded."""

    def __init__(self, roots: Sequence[Node], shown: Callable[[Node], None] | None) -> None:
        self.store, self.shown = NodeStore(), shown
        self.closed = {node.condition: float("inf") for node in roots}
        self.counted = 0

    def close(self, node: Node, lower: float) -> None:
        self.closed[node.condition] = min(self.closed[node.condition], lower)
        if self.shown is not None:
            self.shown(node)

    def add(
        self, nodes: Sequence[Node], points: np.ndarray, try_points: Callable[[np.ndarray], object | None]
    ) -> object | None:
        """Close or keep nodes that were bounded; what `try_points` made of the minimizers of those kept."""
        self.counted += len(nodes)
        open_ = [k for k, node in enumerate(nodes) if not node.lower > 0]
        for node in nodes:
            if node.lower > 0:
                self.close(node, node.lower)
            else:
                self.store.push(node)
        return try_points(points[open_]) if open_ else None
