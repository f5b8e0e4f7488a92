"""The last stage: a mixed-integer program for each open condition, with tangents of a ball as they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mipverify.engine.leaves import leaf_solver
from mipverify.engine.policy import by_milp, small
from mipverify.engine.question import Question
from mipverify.formulation import Encoding, encode
from mipverify.formulation.scaling import blurred, equilibrated
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import Claim
from mipverify.solvers import get_solver, solver_with
from mipverify.solvers.interface import Feature, Limits, Solver, Termination
from mipverify.solvers.trust import Word, least_decisive, what_emptiness_shows, what_follows

BESIDE_SEARCH = 0.5  # share of the time left, where branch and bound can go on after it
AT_ONCE = 16  # units that become binary together, at least,
GROWTH = 0.5  # and this share of those that are
EXACT = 1e-6  # a unit's distance from its ReLU that is none
CONTROL_SECONDS = 2.0  # for the question whether a solver finds a point that is known
CAP = 1e-3  # relative to a margin's bound: a program asks for points up to there, and must be empty beyond doubt
ENOUGH = 1e-4  # a dual bound above this decides a margin
FOUND = -1e-6  # an incumbent at or below this is a counterexample, if a replay agrees
SLACK = 1e-3  # relative: how far above the value at a known point the control's cap is
# Of the solver that comes in beside branch and bound: it can be told when to stop, and the question's seed.
WANTED = (Feature.OBJECTIVE_CUTOFF, Feature.OBJECTIVE_TARGET, Feature.INTERRUPT, Feature.SEED)


def solve_milp(question: Question) -> None:
    """The exact minimum of each open margin by a MILP solver; its incumbents are tried as counterexamples."""
    assert question.bounds is not None
    if not question.bounds.finite()[0]:
        question.reason = "the values overflow"
        return
    question.note(f"{int(question.bounds.unstable_counts().sum())} unstable ReLUs")
    solver = get_solver(question.solver) if by_milp(question) else solver_with(*WANTED)
    clock, question.programmed = question.clock, True
    end = clock.elapsed() + clock.left() * (1.0 if by_milp(question) else BESIDE_SEARCH)
    for condition, encoding in _programs(question):
        _decide(question, solver, encoding, condition, end)
        if question.witness is not None:
            return
        if clock.over():
            question.reason = "time"
        if clock.elapsed() > end:
            return


def _programs(question: Question) -> Iterator[tuple[int, Encoding]]:
    """The open conditions, each with its program.

    Where few units are unstable, the network is reduced to them, with the cuts of the ideal formulation that hold up
    each condition's bound: solvers find such cuts late or never. Multiplied out, large networks would be dense.
    """
    assert question.bounds is not None
    open_ = question.open()
    if not small(question):
        encoding = encode(question.margins, question.bounds, stop=question.clock.over)
        yield from ((int(c), encoding) for c in sorted(open_, key=lambda c: question.lower[c]))
        return
    from mipverify.solvers.branch_and_bound.root_cuts import root_cuts
    from mipverify.solvers.branch_and_bound.splits import root

    bounds = question.reduced.bounds
    encoding = encode(bounds.network, bounds)
    found, leaf = root_cuts(bounds, open_, stop=question.clock.over), leaf_solver(question, bounds)
    cases = PhaseCases(bounds, Claim(bounds.network.output, open_, np.ones(len(open_))))
    for row, (condition, cuts) in enumerate(zip(open_.tolist(), found, strict=True)):
        question.learn(cuts.fact)
        solved = leaf(root(condition))  # where the linear program decides, or finds a counterexample
        if solved.fact is not None:
            cases.learn(solved.fact, solved.place, row)
            question.learn(cases.proven())
        if question.witness is not None:
            return
    for condition, cuts in sorted(zip(open_, found, strict=True), key=lambda pair: pair[1].lower):
        if not question.lower[condition] > 0:
            yield int(condition), encoding.with_cuts(cuts.layers)


def _decide(question: Question, solver: Solver, encoding: Encoding, condition: int, end: float) -> None:
    """One condition, with binaries and with tangents of a ball as its points ask for them.

    At first all units are relaxed. As long as a point below zero is none of the network's, the units that are furthest
    from their ReLU there become binary: often a few decide, and a program of all takes several times as long.
    """
    chosen = np.zeros(encoding.binaries, bool)
    while True:
        part = encoding.with_binaries(chosen)
        question.binaries = max(question.binaries, part.binaries)
        point = _minimize(question, solver, part, condition, end)
        if question.witness is not None or question.lower[condition] > 0 or question.clock.elapsed() > end:
            return
        if point is None:
            more = ~chosen  # no point to go by
        else:
            gaps = np.where(chosen, 0.0, encoding.gaps(point))
            order = np.argsort(-gaps)[: max(AT_ONCE, int(GROWTH * chosen.sum()))]
            more = np.zeros(len(chosen), bool)
            more[order[gaps[order] > EXACT]] = True
        closer = None if point is None else encoding.with_tangents(point)
        if closer is None and not more.any():
            return
        chosen, encoding = chosen | more, closer or encoding


def _minimize(question: Question, solver: Solver, encoding: Encoding, condition: int, end: float) -> np.ndarray | None:
    """Learn what one program shows of a condition; its point (columns,), if there is one."""

    def left() -> float:
        return max(0.0, end - question.clock.elapsed())

    capped = encoding.binaries > 0
    # Both so high that enough is left of a claim above them.
    least = least_decisive(equilibrated(encoding.minimize(condition))[0], solver.tolerance)
    cap, cutoff = max(CAP * max(1.0, abs(float(question.lower[condition]))), least), max(ENOUGH, least)
    # A linear program is solved for its point; without a cap it is never empty, whatever a solver says.
    program = encoding.minimize_below(condition, cap) if capped else encoding.minimize(condition)
    milp, factors = equilibrated(program)
    # A bound above zero is all that is asked for, and an incumbent below it ends the search as well.
    limits = Limits(left(), objective_cutoff=cutoff, objective_target=FOUND)
    solution = solver.solve(milp, limits=limits, stop=question.clock.stop_at(end), seed=question.seed)
    question.nodes += solution.nodes
    point = None if solution.primal is None else factors * solution.primal
    if point is not None and question.try_points(point[encoding.inputs][None]):
        return point
    claim = what_follows(milp, solution)
    if capped and solution.termination is Termination.INFEASIBLE:
        known = float(question.margins.forward(_known_point(question)).reshape(-1)[condition])
        asked, _ = equilibrated(encoding.minimize_below(condition, known + SLACK * (1 + abs(known))))
        seconds = min(CONTROL_SECONDS, left())
        control = solver.solve(asked, limits=Limits(seconds, objective_target=np.inf), seed=question.seed)
        claim = what_emptiness_shows(milp, solution, cap, control)
    if blurred(milp, solver.tolerance):
        claim = Word(float("-inf"), reason="values cancel beyond the tolerances of solvers")
    if claim.trusted:
        question.trust(condition, claim.lower, claim.trusted)
    if not claim.lower > 0:
        why = solution.termination.value
        if solution.termination is Termination.OPTIMAL and solution.dual_bound > 0:
            why = (
                f"its minimum of {solution.dual_bound:.3g} is too near zero for its tolerance of {solution.tolerance:g}"
            )
        question.reason = claim.reason or f"{solution.solver}: {why}"
    return point


def _known_point(question: Question) -> np.ndarray:
    """A point of the input set (1, *input_shape)."""
    return question.case.inputs.center.reshape(question.box[0].shape)
