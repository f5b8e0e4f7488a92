"""The one place that decides what a solver's answer is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mipverify.solvers.interface import TIGHT, DualStatus, PrimalStatus, Solution, Termination

from mipverify.formulation.milp import Milp

MARGIN = 1e3  # times the solver's tolerance: what a claimed bound is lowered by, relative to the size of the objective

# Solvers drop smaller coefficients without a word (HiGHS's small_matrix_value), and add up rows in float64 against
# absolute tolerances of 1e-9: of terms as large as the other, nothing is left of these.
SMALLEST, LARGEST = 1e-9, 1e9


@dataclass(frozen=True)
class Word:
    """lower: what may be taken as a lower bound of the minimum, -inf if nothing.

    trusted: whose word that rests on. reason: why nothing follows, if nothing does.
    """

    lower: float
    trusted: str = ""
    reason: str = ""


def margin(tolerance: float) -> float:
    """How far a claim must stand from what it is used for, relative to the size of the objective."""
    return MARGIN * max(tolerance, TIGHT)


def out_of_range(milp: Milp) -> str:
    """Why no solver is to be believed about this program, "" if there is no reason: numbers beyond its tolerances."""
    size = np.maximum(np.abs(milp.lower), np.abs(milp.upper))
    size = np.where(np.isfinite(size), size, 0.0)
    entries, reach = np.abs(milp.matrix.data), size[milp.matrix.indices]
    if ((entries > 0) & (entries < SMALLEST) & (entries * reach > 10 * SMALLEST)).any():
        return f"the program has coefficients below {SMALLEST:g} that matter: solvers drop them"
    if (abs(milp.matrix) @ size).max(initial=0.0) > LARGEST:
        return f"the program adds up numbers above {LARGEST:g}: beyond the tolerances of solvers"
    return ""


def check_infeasibility_claim(capped: Milp, solution: Solution, cap: float, control: Solution) -> Word:
    """What may be used of a claim that no point has an objective of at most `cap`, with `cap` far above tolerances.

    control: the same solver's answer to the same program under a cap that a known point meets. A solver that calls
    that one infeasible as well is not believed.
    """
    if solution.termination is not Termination.INFEASIBLE or solution.primal is not None:
        return Word(float("-inf"), reason="the solver did not find the program infeasible")
    if control.termination is Termination.INFEASIBLE:
        return Word(float("-inf"), reason="the solver calls a program infeasible that has a known point")
    beyond = out_of_range(capped)
    if beyond:
        return Word(float("-inf"), reason=beyond)
    allowance = _allowance(capped, solution, cap)
    return Word(cap - allowance, trusted=f"{solution.solver} infeasibility")


def what_follows(milp: Milp, solution: Solution, known_points: tuple[np.ndarray, ...] = ()) -> Word:
    """What a verdict may use of a solution.

    A MILP's dual bound counts on the solver's word, lowered by `margin`, if it is finite, the run did not fail, and no
    point that is feasible by our own evaluation (the solver's, or `known_points` (n,) each) has a lower objective: a
    solver caught in one contradiction is not believed. A claim of infeasibility is never taken: the programs here have
    points, for the network has values.
    """
    if solution.termination is Termination.FAILED:
        return Word(float("-inf"), reason=solution.message or "the solver failed")
    if solution.termination in (Termination.INFEASIBLE, Termination.UNBOUNDED):
        claimed = solution.termination.name.lower()
        return Word(float("-inf"), reason=f"the solver calls a program {claimed} that has an optimum")
    if solution.dual_status is not DualStatus.BOUND or not np.isfinite(solution.dual_bound):
        return Word(float("-inf"), reason="the solver gave no dual bound")
    beyond = out_of_range(milp)
    if beyond:
        return Word(float("-inf"), reason=beyond)
    allowance = _allowance(milp, solution, solution.dual_bound)
    points = [*known_points]
    if solution.primal_status is PrimalStatus.FEASIBLE and solution.primal is not None:
        points.append(solution.primal)
    for point in points:
        objective, violation, fraction = milp.evaluate(np.asarray(point, np.float64))
        if not np.isfinite(objective):
            return Word(float("-inf"), reason="the solver's point is not finite")
        if max(violation, fraction) <= margin(solution.tolerance) and objective < solution.dual_bound - allowance:
            return Word(float("-inf"), reason="the solver's dual bound lies above a feasible point")
    return Word(solution.dual_bound - allowance, trusted=f"{solution.solver} branch and bound")


def least_decisive(milp: Milp, tolerance: float) -> float:
    """The least claimed bound of which half is left above zero."""
    lowered = 2 * margin(tolerance)
    return lowered * (1 + float(np.abs(milp.objective).max(initial=0.0))) / (1 - lowered)


def _allowance(milp: Milp, solution: Solution, claimed: float) -> float:
    """What is taken off a claimed bound."""
    return margin(solution.tolerance) * (1 + abs(claimed) + float(np.abs(milp.objective).max(initial=0.0)))
