"""A mixed-integer program for each open condition, with tangents of a ball as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mipverify.engine.features import (
    FEW_BINARIES,
    FEW_DENSE_BINARIES,
    by_milp,
    dense,
    encodable,
    small,
    too_large_a_program,
    unstable,
)
from mipverify.engine.leaves import leaf_solver
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Trusted, Update
from mipverify.formulation import Encoding, encode
from mipverify.formulation.scaling import equilibrated, ill_scaled
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import Claim
from mipverify.solvers import get_solver, solver_with
from mipverify.solvers.interface import Feature, Limits, Solver, Termination
from mipverify.solvers.trust import Word, check_infeasibility_claim, least_decisive, what_follows

CAP = 1e-3  # relative to a margin's bound: a program asks for points up to there, and must be empty beyond doubt
ENOUGH = 1e-4  # a dual bound above this decides a margin
FOUND = -1e-6  # an incumbent at or below this is a counterexample, if a replay agrees
SLACK = 1e-3  # relative: how far above the value at a known point the control's cap is
# Of the solver that comes in beside branch and bound: it can be told when to stop, and the question's seed.
WANTED = (Feature.OBJECTIVE_CUTOFF, Feature.OBJECTIVE_TARGET, Feature.INTERRUPT, Feature.SEED)
SEEDS = 2**31 - 1  # that all solvers take
EXACT = 1e-6  # a unit's distance from its ReLU that is none


@dataclass(frozen=True, kw_only=True)
class Milp(Stage):
    """The exact minimum of each open margin by a MILP solver; its incumbents are tried as counterexamples.

    asked: where the user named the solver; else beside branching, where few units are unstable. at_once, growth: units
    that become binary together, at least, and as a share of those that are. control_seconds: for the question whether a
    solver that calls a program empty finds a point that is known.
    """

    asked: bool
    at_once: int = 16
    growth: float = 0.5
    control_seconds: float = 2.0

    def applies(self, problem: Problem, state: State) -> str | None:
        """As `asked` says; beside branching once, with few binaries."""
        if state.bounds is None or by_milp(problem) != self.asked:
            return None
        if not self.asked:
            most = FEW_DENSE_BINARIES if dense(state) else FEW_BINARIES
            if problem.solver != "auto" or state.programmed or unstable(state) > most:
                return None
        elif not small(state) and not encodable(problem):
            return None
        return f"{unstable(state)} unstable ReLUs"

    def obstacle(self, problem: Problem, state: State) -> str:
        """A network that is too large to be encoded."""
        return too_large_a_program(problem) if self.asked and by_milp(problem) and not small(state) else ""

    def run(self, work: Work) -> None:
        """One condition after the other, the one with the least bound first."""
        if not work.state.proven.finite()[0]:
            work.tell(Update(reason="the values overflow"))
            return
        solver = get_solver(work.problem.solver) if self.asked else solver_with(*WANTED)
        work.tell(Update(programmed=True))
        for condition, encoding in _programs(work):
            self._decide(work, solver, encoding, condition)
            if work.state.witness is not None:
                return
            if work.deadline.whole.over():
                work.tell(Update(reason="time"))
            if work.deadline.over():
                return

    def _decide(self, work: Work, solver: Solver, encoding: Encoding, condition: int) -> None:
        """One condition, with binaries and with tangents of a ball as its points ask for them.

        At first all units are relaxed. As long as a point below zero is none of the network's, the units that are
        furthest from their ReLU there become binary: often a few decide, and a program of all takes several times as
        long.
        """
        chosen, state = np.zeros(encoding.binaries, bool), work.state
        while True:
            part = encoding.with_binaries(chosen)
            work.tell(Update(binaries=part.binaries))
            point = self._minimize(work, solver, part, condition)
            if state.witness is not None or state.lower[condition] > 0 or work.deadline.over():
                return
            if point is None:
                more = ~chosen  # no point to go by
            else:
                gaps = np.where(chosen, 0.0, encoding.gaps(point))
                order = np.argsort(-gaps)[: max(self.at_once, int(self.growth * chosen.sum()))]
                more = np.zeros(len(chosen), bool)
                more[order[gaps[order] > EXACT]] = True
            closer = None if point is None else encoding.with_tangents(point)
            if closer is None and not more.any():
                return
            chosen, encoding = chosen | more, closer or encoding

    def _minimize(self, work: Work, solver: Solver, encoding: Encoding, condition: int) -> np.ndarray | None:
        """Tell what one program shows of a condition; its point (columns,), if there is one."""
        deadline, seed = work.deadline, work.problem.seed % SEEDS
        capped = encoding.binaries > 0
        # Both so high that enough is left of a claim above them.
        least = least_decisive(equilibrated(encoding.minimize(condition))[0], solver.tolerance)
        cap, cutoff = max(CAP * max(1.0, abs(float(work.state.lower[condition]))), least), max(ENOUGH, least)
        # A linear program is solved for its point; without a cap it is never empty, whatever a solver says.
        program = encoding.minimize_below(condition, cap) if capped else encoding.minimize(condition)
        milp, factors = equilibrated(program)
        limits = Limits(deadline.left(), objective_cutoff=cutoff, objective_target=FOUND)
        solution = solver.solve(milp, limits=limits, stop=deadline.over, seed=seed)
        work.tell(Update(nodes=solution.nodes))
        point: np.ndarray | None = None if solution.primal is None else factors * solution.primal
        if point is not None and work.try_points(point[encoding.inputs][None]):
            return point
        claim = what_follows(milp, solution)
        if capped and solution.termination is Termination.INFEASIBLE:
            known = float(work.problem.margins.forward(work.problem.middle).reshape(-1)[condition])
            asked, _ = equilibrated(encoding.minimize_below(condition, known + SLACK * (1 + abs(known))))
            seconds = min(self.control_seconds, deadline.left())
            control = solver.solve(asked, limits=Limits(seconds, objective_target=np.inf), seed=seed)
            claim = check_infeasibility_claim(milp, solution, cap, control)
        if ill_scaled(milp, solver.tolerance):
            claim = Word(float("-inf"), reason="values cancel beyond the tolerances of solvers")
        if claim.trusted:
            work.tell(Update(trusted=Trusted(condition, claim.lower, claim.trusted)))
        if not claim.lower > 0:
            why, bound = solution.termination.value, solution.dual_bound
            if solution.termination is Termination.OPTIMAL and bound > 0:
                why = f"its minimum of {bound:.3g} is too near zero for its tolerance of {solution.tolerance:g}"
            work.tell(Update(reason=claim.reason or f"{solution.solver}: {why}"))
        return point


def _programs(work: Work) -> Iterator[tuple[int, Encoding]]:
    """The open conditions, each with its program.

    Where few units are unstable, the network is reduced to them, with the cuts of the ideal formulation that hold up
    each condition's bound: solvers find such cuts late or never. Multiplied out, large networks would be dense.
    """
    state, whole = work.state, work.deadline.whole
    open_ = state.open()
    if not small(state):
        encoding = encode(work.problem.margins, state.proven, stop=whole.over)
        yield from ((int(c), encoding) for c in sorted(open_, key=lambda c: state.lower[c]))
        return
    from mipverify.solvers.branch_and_bound.root_cuts import root_cuts
    from mipverify.solvers.branch_and_bound.splits import root

    bounds = state.reduced(whole.over).bounds
    encoding = encode(bounds.network, bounds)
    found, leaf = root_cuts(bounds, open_, stop=whole.over), leaf_solver(work.outlasting(), bounds)
    cases = PhaseCases(bounds, Claim(bounds.network.output, open_, np.ones(len(open_))))
    for row, (condition, cuts) in enumerate(zip(open_.tolist(), found, strict=True)):
        work.learn(cuts.fact)
        solved = leaf(root(condition))  # where the linear program decides, or finds a counterexample
        if solved.fact is not None:
            cases.learn(solved.fact, solved.place, row)
            work.learn(cases.proven())
        if state.witness is not None:
            return
    for condition, cuts in sorted(zip(open_, found, strict=True), key=lambda pair: pair[1].lower):
        if not state.lower[condition] > 0:
            yield int(condition), encoding.with_cuts(cuts.layers)
