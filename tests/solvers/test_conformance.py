"""What every backend must do, on programs with known answers."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from mipverify.solvers import available_solvers, get_solver, lp_session
from mipverify.solvers.interface import DualStatus, Feature, Limits, PrimalStatus, Solver, Termination
from mipverify.solvers.trust import what_follows

from mipverify.errors import InputError
from mipverify.formulation import Milp
from tests.solvers.programs import by_enumeration, dual_value, program, random_relu_program

INF = np.inf
OPTIMA: dict[str, tuple[Milp, float]] = {
    "one row": (program([2], [[1]], [1], [INF], [-2], [5], offset=3), 5.0),
    "row of two": (program([2, 3], [[2, 3]], [6], [INF], [0, 0], [10, 10]), 6.0),
    "equality": (program([1, -1], [[1, 1]], [1], [1], [0, 0], [1, 1]), -1.0),
    "fixed column": (program([1, 1], [[1, 1]], [0], [INF], [2, -1], [2, 1]), 1.0),
    "no objective": (program([0, 0], [[1, 1]], [1], [1], [0, 0], [1, 1], [True, True]), 0.0),
    "no rows": (program([1, -2], [], [], [], [-1, 0], [1, 3]), -7.0),
    "range": (program([-1], [[2]], [1], [3], [0], [9]), -1.5),
    "integers": (program([-1, -1], [[2, 2]], [-INF], [3], [0, 0], [1, 1], [True, True]), -1.0),
    "column in no row": (program([0, 1], [[0, 1]], [0.5], [INF], [0, 0], [1, 1], [True, False]), 0.5),
    "free column": (program([1], [[1]], [-3], [INF], [-INF], [INF]), -3.0),
}


@pytest.fixture(params=available_solvers())
def solver(request: pytest.FixtureRequest) -> Solver:
    return get_solver(request.param)


@pytest.mark.parametrize("case", OPTIMA)
def test_known_optima(solver: Solver, case: str) -> None:
    milp, optimum = OPTIMA[case]
    solution = solver.solve(milp)
    assert solution.termination is Termination.OPTIMAL
    assert solution.primal_status is PrimalStatus.FEASIBLE
    assert solution.primal is not None
    objective, violation, fraction = milp.evaluate(solution.primal)
    assert objective == pytest.approx(optimum, abs=1e-6)
    assert solution.objective == pytest.approx(optimum, abs=1e-6)
    assert violation < 1e-6
    assert fraction < 1e-6
    claim = what_follows(milp, solution)
    assert claim.lower <= optimum + 1e-9
    if milp.integer.any():
        assert claim.lower == pytest.approx(optimum, abs=1e-4)
    elif solution.row_duals is not None:  # they are evidence, and nobody's word counts
        assert claim.lower == -INF
        assert dual_value(milp, solution.row_duals) == pytest.approx(optimum, abs=1e-6)


def test_infeasible_and_unbounded_programs(solver: Solver) -> None:
    nothing = solver.solve(program([1], [[1]], [3], [INF], [0], [1], [True]))
    assert nothing.termination in (Termination.INFEASIBLE, Termination.UNBOUNDED)
    assert nothing.primal is None
    endless = solver.solve(program([-1, 0], [[1, -1]], [-INF], [0], [0, 0], [INF, INF]))
    assert endless.termination in (Termination.UNBOUNDED, Termination.INFEASIBLE)
    for solution in (nothing, endless):
        assert solution.dual_status is not DualStatus.BOUND


@pytest.mark.parametrize("seed", range(6))
def test_random_relu_programs_agree_with_enumeration(solver: Solver, seed: int) -> None:
    milp = random_relu_program(np.random.default_rng(seed))
    exact = by_enumeration(milp)
    assert exact is not None
    solution = solver.solve(milp)
    assert solution.objective == pytest.approx(exact, abs=1e-6)
    claim = what_follows(milp, solution)
    assert claim.lower <= exact + 1e-9
    assert claim.lower >= exact - 1e-4
    assert solver.name in claim.trusted


def test_limits_leave_bounds_that_hold(solver: Solver) -> None:
    milp = random_relu_program(np.random.default_rng(9), units=9)
    exact = by_enumeration(milp)
    assert exact is not None
    for limits in (Limits(time=0.05), Limits(nodes=1), Limits(objective_cutoff=exact - 1.0)):
        solution = solver.solve(milp, limits=limits)
        assert what_follows(milp, solution).lower <= exact + 1e-9
        if solution.primal is not None:
            assert solution.objective >= exact - 1e-6


def test_a_caller_who_stops_at_once_learns_nothing_wrong(solver: Solver) -> None:
    milp = random_relu_program(np.random.default_rng(10), units=9)
    solution = solver.solve(milp, stop=lambda: True)
    exact = by_enumeration(milp)
    assert exact is not None
    assert what_follows(milp, solution).lower <= exact + 1e-9


def test_every_backend_declares_its_features() -> None:
    for name in available_solvers():
        assert get_solver(name).features <= set(Feature)
    with pytest.raises(InputError, match="gurobi"):
        get_solver("gurobi")


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_linear_program_follows_changes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    milp, basis = random_relu_program(rng).relaxed(), None
    session, fresh = lp_session(), get_solver("highs")
    for turn in range(12):
        if turn % 3 == 2:  # another box and other sides, as nodes of a tree have
            share = rng.random(milp.columns)
            milp = replace(milp, upper=milp.lower + np.where(share < 0.2, 0.5, 1.0) * (milp.upper - milp.lower))
        milp = milp.with_objective(rng.normal(size=milp.columns), 0.5)
        answer, reference = session.solve(milp, basis, INF, 5.0), fresh.solve(milp)
        basis = answer.basis
        assert (answer.point is None) == (reference.primal is None)
        assert answer.multipliers is not None
        assert basis is not None
        assert len(basis) == milp.columns + milp.rows
        if answer.point is not None:
            assert milp.evaluate(answer.point)[0] == pytest.approx(reference.objective, abs=1e-7)
            assert dual_value(milp, answer.multipliers) == pytest.approx(reference.objective, abs=1e-6)


def test_nothing_above_the_cutoff_is_asked_for() -> None:
    milp = random_relu_program(np.random.default_rng(3)).relaxed()
    optimum = get_solver("highs").solve(milp).objective
    for cutoff in (optimum - 1.0, optimum + 1.0):
        answer = lp_session().solve(milp, None, cutoff, 5.0)
        assert answer.multipliers is not None
        shown = dual_value(milp, answer.multipliers)
        assert shown <= optimum + 1e-6
        assert shown >= min(cutoff, optimum) - 1e-6


def test_stress_of_the_pinned_highs() -> None:
    """Solved, changed, solved again: 1.15.0 and 1.15.1 were reported to fail here. MIPVERIFY_STRESS sets the number."""
    solver = get_solver("highs")
    for seed in range(int(os.environ.get("MIPVERIFY_STRESS", "20"))):
        rng = np.random.default_rng([seed, 1])
        milp = random_relu_program(rng, units=4)
        for _ in range(3):
            exact = by_enumeration(milp)
            assert exact is not None
            solution = solver.solve(milp)
            assert solution.termination is Termination.OPTIMAL
            assert solution.objective == pytest.approx(exact, abs=1e-6)
            milp = milp.with_objective(milp.objective * rng.choice([-1.0, 1.0], size=milp.columns), milp.offset)
