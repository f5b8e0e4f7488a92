"""Branch and bound on the input box."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mipverify.attack.many_starts import ManyStarts, descend_from_many
from mipverify.engine.features import by_milp, few_inputs, free_inputs
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.proof.facts import Claim

if TYPE_CHECKING:
    from mipverify.proof.boxes import BoxCases


@dataclass(frozen=True, kw_only=True)
class InputSplitting(Stage):
    """Halves the box of few inputs until CROWN decides every part.

    many: a search from many random points, which finds small regions of counterexamples, once `patience` boxes were not
    enough, and again each time that there are `growth` times as many: most properties are decided before.
    """

    many: ManyStarts = field(default_factory=ManyStarts)
    patience: int = 1000
    growth: int = 4

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where few inputs are free."""
        if by_milp(problem) or not few_inputs(problem, state):
            return None
        return f"{free_inputs(problem)} inputs are free"

    def run(self, work: Work) -> None:
        """Search until all parts are decided or time is up."""
        from mipverify.solvers.branch_and_bound.boxes import search_boxes

        problem, open_ = work.problem, work.state.open().tolist()
        parts = [problem.parts[c] for c in open_]
        if problem.record:  # where a conjunction is one output, whose maxima are ReLUs like others
            parts = [(problem.margins.output, [c]) for c in open_]

        patience = self.patience

        def progress(cases: BoxCases, done: int, left: int, bound: float) -> None:
            nonlocal patience
            work.learn(*cases.proven())  # an interrupt would lose it
            work.report("boxes", f"{done} boxes, {left} open, bound {bound:.4g}")
            if left and done >= patience:
                patience = done * self.growth
                self._descend(work)

        outcome = search_boxes(
            work.state.proven,
            [Claim(node, np.array([units]), np.ones(1)) for node, units in parts],
            try_points=work.try_points,
            stop=lambda: work.state.decided() or work.deadline.over(),
            pool=work.pool,
            progress=progress,
        )
        work.tell(Update(facts=tuple(outcome.bounds), nodes=outcome.boxes, reason=outcome.reason))

    def _descend(self, work: Work) -> None:
        """From many points; what is found is told, and ends the search."""
        descend_from_many(
            work.problem.margins,
            *work.problem.float_box,
            work.state.open(),
            self.many,
            work.rng,
            work.try_points,
            stop=work.deadline.over,
            project=work.problem.project,
        )
