"""Trees of linear programs, for questions with so few unstable units that these soon end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.engine.features import by_milp, reducible, unstable
from mipverify.engine.leaves import leaf_solver
from mipverify.engine.problem import Problem
from mipverify.engine.searches import go_on
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State
from mipverify.proof.rows import unit_rows


@dataclass(frozen=True, kw_only=True)
class SmallPrograms(Stage):
    """All open conditions in one tree of phases, in which every node gets a linear program.

    most_units: unstable ones, up to which such a tree mostly ends. most_entries: of a program, units times variables.
    most_nodes: about a second. batch: nodes that are bounded together.
    """

    most_units: int = 32
    most_entries: int = 2**12
    most_nodes: int = 1000
    batch: int = 16

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where few units are unstable, and few inputs make the programs small."""
        if by_milp(problem) or not problem.inputs.is_box or not reducible(state):
            return None
        units = unstable(state)
        if not 0 < units <= self.most_units or units * (units + problem.network.input_size) > self.most_entries:
            return None
        return f"only {units} units are unstable"

    def run(self, work: Work) -> None:
        """Until all conditions are decided, or there are enough nodes."""
        from mipverify.solvers import lp_session
        from mipverify.solvers.branch_and_bound.program_bounder import ProgramBounder
        from mipverify.solvers.branch_and_bound.programs import NodePrograms
        from mipverify.solvers.branch_and_bound.search import PhaseSearch
        from mipverify.solvers.branch_and_bound.splits import root

        state, bounds = work.state, work.state.reduced(work.deadline.whole.over).bounds
        network = bounds.network
        rows = unit_rows(network, network.output, np.arange(len(state.lower)), None, work.problem.box[0])
        programs = NodePrograms.of(network, rows, lp_session)
        if programs is None:
            return
        search = PhaseSearch(
            ProgramBounder(bounds, programs),
            [root(int(condition)) for condition in state.open()],
            try_points=work.try_points,
            solve_leaf=leaf_solver(work, bounds),
            batch=self.batch,
        )
        go_on(work, (search,), self.most_nodes)
