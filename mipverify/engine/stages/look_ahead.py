"""Branching by constraint propagation, for networks that encode combinatorial problems."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.features import by_milp, reducible, unstable
from mipverify.engine.problem import Problem
from mipverify.engine.searches import phase_search
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.proof.bounds import prefix
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.search import PhaseSearch


@dataclass(frozen=True, kw_only=True)
class LookAhead(Stage):
    """Splits of phases that propagation chooses, condition by condition, while they close parts of the tree.

    most_coefficients: of a reduced network, units times what they may read. most_entries: of these, not zero, up to
    which propagation is cheap. trial: nodes after which at least one must be closed. batch: nodes that are bounded
    together: few, for deep trees are small ones.
    """

    most_coefficients: int = 2**20
    most_entries: int = 2**16
    trial: int = 256
    batch: int = 16

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where all is linear but the ReLUs, there are few of these, and a condition has several rows."""
        if by_milp(problem) or not problem.inputs.is_box or not reducible(state):
            return None
        units = unstable(state)
        together = any(len(problem.parts[c][1]) > 1 for c in state.open())
        if not together or not units or units * (units + problem.network.input_size) > self.most_coefficients:
            return None
        return "several rows must be met together"

    def run(self, work: Work) -> None:
        """Search the open conditions one after the other, as long as it closes nodes."""
        from mipverify.presolve.layered import Layered
        from mipverify.presolve.propagation import Propagation
        from mipverify.solvers import lp_session
        from mipverify.solvers.branch_and_bound.look_ahead import LookAheadBounder
        from mipverify.solvers.branch_and_bound.programs import NodePrograms

        problem, state, stop = work.problem, work.state, work.deadline.whole.over
        margins, below = state.reduced(stop), reduce(prefix(state.proven, problem.row_node), stop)
        network = margins.bounds.network
        layered = Layered.of(below.bounds.network, np.float64)
        # Of both networks the same units are unstable, but for those of maxima over rows, which come last.
        alike = all(
            a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in zip(below.layers, margins.layers, strict=False)
        )
        rows = unit_rows(network, network.output, np.arange(len(state.lower)), None, problem.box[0])
        programs = NodePrograms.of(network, rows, lp_session)
        if layered is None or not layered.relus or programs is None or not alike:
            return
        output = below.bounds.network.output
        for condition in state.open().tolist():
            _, units = problem.parts[condition]
            parts = unit_rows(below.bounds.network, output, np.array(units), None, problem.box[0])
            ((_, coefficients),) = parts.coefficients.items()
            offset = np.zeros(len(units)) if parts.constant is None else np.asarray(parts.constant)
            propagation = Propagation(layered, coefficients.reshape(len(units), -1), offset)
            if len(propagation.value) > self.most_entries:
                return
            bounder = LookAheadBounder(margins.bounds, propagation, programs)
            search = phase_search(work, bounder, [bounder.start(condition)], batch=self.batch)
            outcome = search.run(partial(self._over, work, search))
            work.tell(Update(facts=(outcome.bound,), nodes=outcome.nodes))
            if state.witness is not None or work.deadline.over():
                return

    def _over(self, work: Work, search: PhaseSearch) -> bool:
        """Whether time is up, or as many leaves are open after the trial as there are."""
        leaves = (search.nodes + 1) // 2
        return work.deadline.over() or (search.nodes >= self.trial and len(search.store) >= leaves)
