"""What all searches on phases share: how they are made, their turns on the clock, and what they tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.attack.pgd import Attack, descend
from mipverify.engine.stage import Work
from mipverify.engine.state import Update
from mipverify.engine.verdict import Witness

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.search import Bounder, PhaseSearch
    from mipverify.solvers.branch_and_bound.splits import Node

WALKS, WALK = 4, Attack(steps=8, step=0.1)  # down from minimizers of nodes: cheap beside bounding these
KEEP_EVERY = 1.1  # times as many nodes as when facts were last told: looking them up costs in proportion to all nodes


def phase_search(work: Work, bounder: Bounder[Any], roots: Sequence[Node], *, batch: int = 128) -> PhaseSearch:
    """A search on the phases of the reduced network, which may go on in stages after that of `work`.

    batch: nodes that are bounded together.
    """
    from mipverify.engine.leaves import leaf_solver
    from mipverify.solvers.branch_and_bound.search import PhaseSearch

    return PhaseSearch(
        bounder,
        roots,
        try_points=partial(_descend, work),
        solve_leaf=leaf_solver(work, bounder.root),
        batch=batch,
        pool=work.pool,
        progress=_Progress(work),
    )


def go_on(work: Work, searches: Sequence[PhaseSearch], most: float = math.inf) -> tuple[PhaseSearch, ...]:
    """Run searches one after the other for this many nodes at most, each within its share of the stage's time.

    All divide the memory. Returns those that want more.
    """
    from mipverify.solvers.branch_and_bound.search import MAX_OPEN_BYTES

    unfinished, most_bytes = [], MAX_OPEN_BYTES // max(1, len(searches))
    for waiting, search in zip(range(len(searches), 0, -1), searches, strict=True):
        if work.state.decided() or work.deadline.whole.over():
            return ()
        before = search.nodes
        turn = work.deadline.within(share=1 / waiting)
        outcome = search.run(turn.over, most=most, most_bytes=most_bytes)
        nodes, reason = outcome.nodes - before, outcome.reason or None
        work.tell(Update(facts=(outcome.bound,), nodes=nodes, reason=reason))
        if outcome.reason == "time":
            unfinished.append(search)
    return tuple(unfinished)


def _descend(work: Work, points: np.ndarray) -> Witness | None:
    """Try the minimizers (R, ...) of relaxed nodes, then a few steps down from those with the least margins."""
    if work.try_points(points) is not None:
        return work.state.witness
    problem, open_ = work.problem, work.state.open()
    low, high = problem.float_box
    x = problem.inputs.nearest_float32(points.reshape(len(points), -1))
    margins = problem.margins.forward(x.reshape(len(x), *problem.network.input_shape)).reshape(len(x), -1)[:, open_]
    best = np.argsort(margins.min(axis=1))[:WALKS]
    rows = np.zeros((len(best), problem.margins.output_size), np.float32)
    rows[np.arange(len(best)), open_[margins[best].argmin(axis=1)]] = 1

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        return work.try_points(points) is not None

    stop, project = work.deadline.over, problem.project
    descend(problem.margins, x[best], low[None], high[None], rows, WALK, accept, stop, project)
    return work.state.witness


class _Progress:
    """Reports how far a search is, and tells what it has proven so far, which an interrupt would lose.

    What is proven is the least over all open goals: it is looked up each time that a tenth more nodes are done, so that
    all this takes together is in proportion to these.
    """

    def __init__(self, work: Work):
        self._work, self._kept = work, 0

    def __call__(self, search: PhaseSearch) -> None:
        if search.nodes >= KEEP_EVERY * self._kept:
            self._work.learn(search.cases.proven())
            self._kept = search.nodes
        open_, bound = len(search.store), search.store.lowest()
        self._work.report("branch", f"{search.nodes} nodes, {open_} open, bound {bound:.4g}")
