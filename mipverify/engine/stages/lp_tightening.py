"""Linear programs for the unstable units: a MILP lives on its big-M bounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mipverify.engine.features import by_milp, encodable, small, too_large_a_program
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.stages.optimized_crown import FOLLOW_UP, optimize_conditions
from mipverify.engine.state import State


@dataclass(frozen=True, kw_only=True)
class LpTightening(Stage):
    """Two linear programs for each unstable unit [Tjeng et al. 2019, section 4.2], then the open conditions."""

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where a MILP solver was asked for, and the program has many binaries."""
        if not by_milp(problem) or state.bounds is None or small(state) or not encodable(problem):
            return None
        return "a program lives on its intermediate bounds"

    def obstacle(self, problem: Problem, state: State) -> str:
        """A network that is too large to be encoded."""
        return too_large_a_program(problem) if by_milp(problem) and not small(state) else ""

    def run(self, work: Work) -> None:
        """Tighten the units, then bound the open conditions."""
        from mipverify.presolve.linear import lp_tighten
        from mipverify.solvers import lp_session

        bounds = work.state.proven
        if not bounds.finite()[0]:
            return
        session = partial(lp_session, work.deadline.left)
        work.learn(lp_tighten(bounds, session, work.deadline.over))
        optimize_conditions(work.outlasting(), FOLLOW_UP)
