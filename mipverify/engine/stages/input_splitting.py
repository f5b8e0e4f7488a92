"""Branch and bound on the input box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.engine.features import by_milp, few_inputs, free_inputs
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.proof.boxes import BoxCases
from mipverify.proof.facts import Claim


@dataclass(frozen=True, kw_only=True)
class InputSplitting(Stage):
    """Halves the box of few inputs until CROWN decides every part."""

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

        def progress(cases: BoxCases, done: int, left: int, bound: float) -> None:
            work.learn(*cases.proven())  # an interrupt would lose it
            work.report("boxes", f"{done} boxes, {left} open, bound {bound:.4g}")

        outcome = search_boxes(
            work.state.proven,
            [Claim(node, np.array([units]), np.ones(1)) for node, units in parts],
            try_points=work.try_points,
            stop=work.deadline.over,
            hands=work.pool,
            progress=progress,
        )
        work.tell(Update(facts=tuple(outcome.bounds), nodes=outcome.boxes, reason=outcome.reason))
