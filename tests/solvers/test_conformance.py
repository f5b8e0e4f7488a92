"""What every backend must do, on programs with known answers."""

from __future__ import annotations

import os

import numpy as np
import pytest
from mipverify.solvers import available_solvers, get_solver
from mipverify.solvers.certificate import certified_bound
from mipverify.solvers.highs import HighsLinearProgram
from mipverify.solvers.interface import DualStatus, Feature, Limits, PrimalStatus, Solver, Termination
from mipverify.solvers.trust import what_follows

from mipverify.errors import InputError
from mipverify.formulation import Milp
from tests.solvers.programs import by_enumeration, program, random_relu_program

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
    if case != "free column":  # an unbounded column's reduced cost cannot be proven to be exactly zero
        assert claim.lower == pytest.approx(optimum, abs=1e-4)


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
    milp = random_relu_program(rng)
    session = HighsLinearProgram(milp)
    fresh = get_solver("highs")
    for _ in range(8):
        objective = rng.normal(size=milp.columns)
        solution = session.minimize(objective, 0.5)
        reference = fresh.solve(milp.relaxed().with_objective(objective, 0.5))
        assert solution.objective == pytest.approx(reference.objective, abs=1e-7)
        assert solution.row_duals is not None
        bound = certified_bound(session.milp, solution.row_duals)
        assert bound <= solution.objective + 1e-9
        assert bound == pytest.approx(solution.objective, abs=1e-6)
    row = rng.normal(size=(1, milp.columns))
    session.add_rows(row, np.array([-0.1]), np.array([0.1]))
    solution = session.minimize(objective)
    assert solution.primal is not None
    assert abs((row @ solution.primal).item()) <= 0.1 + 1e-7


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
