"""Branch and bound on ReLU phases: bounder, brancher and node store put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mipverify.presolve import Search
from mipverify.solvers.branch_and_bound.branching import FilteredBranching
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.splits import Node, NodeStore

MAX_OPEN_BYTES = 1 << 30  # of slopes and multipliers of open nodes
_LOOK = Search(iterations=0)


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


def search_phases(
    bounder: PhaseBounder,
    roots: Sequence[Node],
    *,
    brancher: FilteredBranching | None = None,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    solve_leaf: Callable[[Node], float] = lambda node: float("-inf"),
    stop: Callable[[], bool] = lambda: False,
    batch: int = 128,
    progress: Callable[[int, int, float], None] | None = None,
) -> Outcome:
    """Prove that every condition's row is positive, or find a point where one is not.

    roots: where to start, for each condition (`root`), or what an earlier search left open.
    try_points: shown the inputs (R, *input_shape) that minimize relaxed nodes; if it returns something, that ends it.
    solve_leaf: a sound lower bound of a node in which no unit is unstable, where the dual ascent alone did not finish.
    """
    brancher = brancher or FilteredBranching()
    store = NodeStore()
    counted = 0
    closed_lower = {node.condition: float("inf") for node in roots}  # lowest bound among closed nodes, by condition
    stuck: list[Node] = []
    fresh = list(roots)
    reason = ""
    while fresh or len(store):
        if stop():
            reason = "time"
            break
        for begin in range(0, len(fresh), batch):
            part = fresh[begin : begin + batch]
            solved, points = bounder.raise_bounds(part, stop)
            counted += len(part)
            open_ = [k for k, node in enumerate(solved) if not node.lower > 0]
            for k in set(range(len(solved))) - set(open_):
                condition = solved[k].condition
                closed_lower[condition] = min(closed_lower[condition], solved[k].lower)
            if not open_:
                continue
            found = try_points(points[open_])
            if found is not None:
                return Outcome(False, {}, counted, witness=found)
            for k in open_:
                store.push(solved[k])
        fresh = []
        if not len(store):
            break
        if len(store) * store.bytes_per_node() > MAX_OPEN_BYTES:
            reason = "memory"
            break
        parents = store.pop(max(1, batch // 2))
        # The optimum of the parents once more, without iterations: scores need it, and keeping it would cost memory.
        _, optimum, relaxed = bounder.solve(parents, search=_LOOK, stop=stop)
        for node, children in zip(parents, brancher.split(bounder, parents, optimum, relaxed), strict=True):
            if children is None:
                leaf = solve_leaf(node)
                if leaf > 0:
                    closed_lower[node.condition] = min(closed_lower[node.condition], leaf)
                else:
                    stuck.append(node)
                continue
            fresh.extend(children)
        if stuck:
            reason = "a leaf could not be decided"
            break
        if progress is not None:
            lowest = min(store.lowest(), min((n.lower for n in fresh), default=np.inf))
            progress(counted, len(store) + len(fresh), lowest)
    remaining = [*fresh, *stuck, *store.pop(len(store))]
    lower = dict(closed_lower)
    for node in remaining:
        lower[node.condition] = min(lower[node.condition], node.lower)
    return Outcome(not remaining, lower, counted, reason=reason, open_nodes=remaining)
