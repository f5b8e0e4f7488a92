"""What all searches on phases share: how they are made, their turns on the clock, and what they tell a question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.attack.pgd import Attack, descend
from mipverify.engine.leaves import leaf_solver
from mipverify.engine.question import Question
from mipverify.engine.verdict import Witness

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.search import Bounder, PhaseSearch
    from mipverify.solvers.branch_and_bound.splits import Node

WALKS, WALK = 4, Attack(steps=8, step=0.1)  # down from minimizers of nodes


def phase_search(
    question: Question, bounder: Bounder[Any], roots: Sequence[Node], *, share: int = 1, batch: int = 128
) -> PhaseSearch:
    """A search on the phases of the reduced network that serves a question.

    share: how many such searches divide the memory. batch: nodes that are bounded together.
    """
    from mipverify.solvers.branch_and_bound.search import MAX_OPEN_BYTES, PhaseSearch

    return PhaseSearch(
        bounder,
        roots,
        try_points=partial(_descend, question),
        solve_leaf=leaf_solver(question, bounder.root),
        batch=batch,
        most_bytes=MAX_OPEN_BYTES // share,
        hands=question.hands,
        progress=_Progress(question),
    )


def go_on(question: Question, searches: list[PhaseSearch], end: float) -> list[PhaseSearch]:
    """Run searches one after the other until the clock shows `end`, each for its share; those that want more time."""
    clock, unfinished = question.clock, []
    for waiting, search in zip(range(len(searches), 0, -1), searches, strict=True):
        if question.decided() or clock.over():
            return []
        before = search.nodes
        outcome = search.run(clock.stop_at(clock.elapsed() + (end - clock.elapsed()) / waiting))
        question.nodes += outcome.nodes - before
        question.reason = outcome.reason or question.reason
        question.learn(outcome.bound)
        if outcome.reason == "time":
            unfinished.append(search)
    return unfinished


def _descend(question: Question, points: np.ndarray) -> Witness | None:
    """Try the minimizers (R, ...) of relaxed nodes, then a few steps down from those with the least margins."""
    if question.try_points(points) is not None:
        return question.witness
    low, high = question.float_box
    x = question.case.inputs.nearest_float32(points.reshape(len(points), -1))
    open_ = question.open()
    margins = question.margins.forward(x.reshape(len(x), *question.network.input_shape)).reshape(len(x), -1)[:, open_]
    best = np.argsort(margins.min(axis=1))[:WALKS]
    rows = np.zeros((len(best), question.margins.output_size), np.float32)
    rows[np.arange(len(best)), open_[margins[best].argmin(axis=1)]] = 1

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        return question.try_points(points) is not None

    descend(question.margins, x[best], low[None], high[None], rows, WALK, accept, question.clock.over, question.project)
    return question.witness


class _Progress:
    """Reports how far a search is, and keeps what it has proven so far, which an interrupt would lose.

    What is proven is the least over all open goals: it is looked up each time that a tenth more nodes are done, so that
    all this takes together is in proportion to these.
    """

    def __init__(self, question: Question):
        self._question, self._kept = question, 0

    def __call__(self, search: PhaseSearch) -> None:
        if 10 * search.nodes >= 11 * self._kept:
            self._question.learn(search.cases.proven())
            self._kept = search.nodes
        tell(self._question, "nodes", search.nodes, len(search.store), search.store.lowest())


def tell(question: Question, what: str, done: int, left: int, bound: float) -> None:
    """Report how far a search is."""
    question.report("boxes" if what == "boxes" else "branch", f"{done} {what}, {left} open, bound {bound:.4g}")
