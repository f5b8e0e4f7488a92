"""What every backend must do, on programs with known answers, and what it must do for each feature that it declares.

A new backend is held to all of it once it is registered. What one cannot do is named in EXCLUDED, with the reason.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from mipverify.solvers import available_solvers, get_solver, solver_with
from mipverify.solvers.interface import DualStatus, Feature, Limits, PrimalStatus, Solver, Termination
from mipverify.solvers.trust import margin, what_follows

from mipverify.errors import InputError
from mipverify.formulation import Milp
from mipverify.formulation.lp import LpSession
from tests.solvers.programs import by_enumeration, dual_value, market_split, program, random_relu_program

INF = np.inf
EXCLUDED: dict[tuple[str, str], str] = {}  # (backend, test): why
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
    reason = EXCLUDED.get((request.param, request.node.originalname))
    if reason:
        pytest.skip(reason)
    return get_solver(request.param)


def require(solver: Solver, *features: Feature) -> None:
    """Skip what a backend does not declare."""
    for feature in features:
        if feature not in solver.features:
            pytest.skip(f"{solver.name} does not declare {feature.name}")


@pytest.mark.parametrize("case", OPTIMA)
def test_known_optima(solver: Solver, case: str) -> None:
    milp, optimum = OPTIMA[case]
    solution = solver.solve(milp)
    assert solution.termination is Termination.OPTIMAL
    assert solution.primal_status is PrimalStatus.FEASIBLE
    assert solution.primal is not None
    objective, violation, fraction = milp.evaluate(solution.primal)
    assert objective == pytest.approx(optimum, abs=1e-5)
    assert solution.objective == pytest.approx(objective, abs=1e-9)
    assert max(violation, fraction) < 10 * solution.tolerance
    claim = what_follows(milp, solution)
    assert claim.lower <= optimum + 1e-9
    if milp.integer.any():
        assert claim.lower >= optimum - 10 * margin(solution.tolerance)
        assert solver.name.partition(":")[0] in claim.trusted
    elif Feature.LP_DUALS in solver.features:  # they are evidence, and nobody's word counts
        assert claim.lower == -INF


LINEAR = [case for case, (milp, _) in OPTIMA.items() if not milp.integer.any() and milp.rows]


@pytest.mark.parametrize("case", LINEAR)
def test_multipliers_show_the_optimum(solver: Solver, case: str) -> None:
    require(solver, Feature.LP_DUALS)
    milp, optimum = OPTIMA[case]
    duals = solver.solve(milp).row_duals
    assert duals is not None
    assert dual_value(milp, duals) == pytest.approx(optimum, abs=1e-6)


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
    assert solution.objective == pytest.approx(exact, abs=10 * margin(solver.tolerance))
    claim = what_follows(milp, solution)
    assert claim.lower <= exact + 1e-9
    assert claim.lower >= exact - 100 * margin(solver.tolerance)
    assert solver.name.partition(":")[0] in claim.trusted


@cache
def nine_units() -> tuple[Milp, float]:
    """A program that takes a few nodes, and its minimum."""
    milp = random_relu_program(np.random.default_rng(9), units=9)
    exact = by_enumeration(milp)
    assert exact is not None
    return milp, exact


def test_limits_leave_bounds_that_hold(solver: Solver) -> None:
    milp, exact = nine_units()
    for limits in (
        Limits(time=0.05),
        Limits(time=0.0),
        Limits(objective_cutoff=exact - 1.0),
        Limits(objective_target=exact + 1.0),
    ):
        solution = solver.solve(milp, limits=limits)
        assert what_follows(milp, solution).lower <= exact + 1e-9
        if solution.primal is not None:
            assert solution.objective >= exact - 1e-5


LONG = market_split(np.random.default_rng(0), rows=5, columns=40)  # its bound stays at zero for hours


def least_found() -> float:
    """The objective of LONG at the best of many points, whose first columns are binary."""
    rng, count = np.random.default_rng(1), int(LONG.integer.sum())
    some = (rng.random((2000, count)) < 0.5).astype(float)
    return float(np.abs(some @ LONG.matrix[:, :count].T - LONG.row_lower).sum(axis=1).min())


def test_a_time_limit_ends_a_long_search(solver: Solver) -> None:
    begin = time.perf_counter()
    solution = solver.solve(LONG, limits=Limits(time=0.5))
    assert time.perf_counter() - begin < 5.0
    assert solution.termination in (Termination.TIME_LIMIT, Termination.STOPPED)
    assert what_follows(LONG, solution).lower <= least_found()
    if Feature.DUAL_BOUND in solver.features:
        assert solution.dual_status is DualStatus.BOUND


def test_a_caller_who_stops_at_once_learns_nothing_wrong(solver: Solver) -> None:
    milp, exact = nine_units()
    solution = solver.solve(milp, stop=lambda: True)
    assert what_follows(milp, solution).lower <= exact + 1e-9


def test_it_stops_when_the_caller_asks_it_to(solver: Solver) -> None:
    require(solver, Feature.INTERRUPT)
    begin = time.perf_counter()
    solution = solver.solve(LONG, limits=Limits(time=60.0), stop=lambda: time.perf_counter() - begin > 0.5)
    assert time.perf_counter() - begin < 10.0
    assert solution.termination is Termination.STOPPED


def test_a_cutoff_that_is_reached_at_the_root_ends_the_search(solver: Solver) -> None:
    require(solver, Feature.OBJECTIVE_CUTOFF)
    solution = solver.solve(LONG, limits=Limits(time=30.0, objective_cutoff=-1.0))  # nothing is below zero
    assert solution.termination is Termination.CUTOFF
    assert -1.0 <= solution.dual_bound <= least_found()


def test_any_point_ends_the_search_for_one_below_a_high_target(solver: Solver) -> None:
    require(solver, Feature.OBJECTIVE_TARGET)
    solution = solver.solve(LONG, limits=Limits(time=30.0, objective_target=1e6))
    assert solution.termination is Termination.TARGET
    assert solution.primal is not None
    assert LONG.evaluate(solution.primal)[1] < 1e-6


def test_a_seed_changes_the_way_and_not_the_answer(solver: Solver) -> None:
    require(solver, Feature.SEED)
    milp = market_split(np.random.default_rng(0), rows=2, columns=14)
    found = [solver.solve(milp, seed=seed) for seed in (0, 0, 1, 2, 3, 4)]
    assert {round(solution.objective, 6) for solution in found} == {round(found[0].objective, 6)}
    points = [None if s.primal is None else np.round(s.primal, 6).tobytes() for s in found]
    ways = list(zip([solution.nodes for solution in found], points, strict=True))
    assert ways[0] == ways[1]
    assert len(set(ways)) > 1, "the seed did not arrive"


def test_what_no_backend_can_do_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"abacus: not one of .*highs"):
        get_solver("abacus")
    assert solver_with(Feature.SEED, Feature.WARM_BASES).features >= {Feature.SEED, Feature.WARM_BASES}


@pytest.fixture(params=[name for name in available_solvers() if Feature.WARM_BASES in get_solver(name).features])
def session(request: pytest.FixtureRequest) -> LpSession:
    return get_solver(request.param).session()


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_linear_program_follows_changes(session: LpSession, seed: int) -> None:
    rng = np.random.default_rng(seed)
    milp, fresh = random_relu_program(rng).relaxed(), get_solver("highs")
    session.open(milp)
    for turn in range(16):
        if turn % 4 == 1:
            share = rng.random(milp.columns)
            milp = replace(milp, upper=milp.lower + np.where(share < 0.2, 0.5, 1.0) * (milp.upper - milp.lower))
            session.set_bounds(milp.lower, milp.upper)
        elif turn % 4 == 2:
            row = rng.normal(size=(1, milp.columns)) * (rng.random(milp.columns) < 0.5)
            milp = milp.with_rows(row, np.array([-5.0]), np.array([INF]))
            session.add_rows(row, np.array([-5.0]), np.array([INF]))
        elif turn % 4 == 3:  # another program, from the basis of this one, as nodes of a tree have
            milp = replace(milp, row_lower=milp.row_lower - 0.1)
            session.open(milp, session.basis())
        milp = milp.with_objective(rng.normal(size=milp.columns), 0.5)
        session.set_costs(milp.objective, milp.offset)
        answer, reference, basis = session.solve(5.0), fresh.solve(milp), session.basis()
        assert (answer.point is None) == (reference.primal is None)
        assert answer.optimal == (reference.termination is Termination.OPTIMAL)
        assert answer.multipliers is not None
        assert basis is not None
        assert len(basis) == milp.columns + milp.rows
        if answer.point is not None:
            assert milp.evaluate(answer.point)[0] == pytest.approx(reference.objective, abs=1e-7)
            assert dual_value(milp, answer.multipliers) == pytest.approx(reference.objective, abs=1e-6)
            assert answer.reduced is not None
            expected = milp.objective - milp.matrix.T @ answer.multipliers
            assert answer.reduced == pytest.approx(expected, abs=1e-7)


def test_nothing_above_the_cutoff_is_asked_for(session: LpSession) -> None:
    milp = random_relu_program(np.random.default_rng(3)).relaxed()
    optimum = get_solver("highs").solve(milp).objective
    for cutoff in (optimum - 1.0, optimum + 1.0):
        session.open(milp)
        answer = session.solve(5.0, cutoff)
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
