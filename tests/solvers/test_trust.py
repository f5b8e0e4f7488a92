"""A solver that lies: none of its lies may become a claim that the exact answer contradicts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mipverify.solvers import get_solver
from mipverify.solvers.certificate import certified_bound, certified_infeasible
from mipverify.solvers.interface import DualStatus, PrimalStatus, Solution, Termination
from mipverify.solvers.trust import what_emptiness_shows, what_follows

from mipverify.formulation import Milp
from tests.solvers.programs import by_enumeration, program, random_relu_program

INF = np.inf


def honest(seed: int) -> tuple[Milp, Solution, float]:
    milp = random_relu_program(np.random.default_rng(seed))
    exact = by_enumeration(milp)
    assert exact is not None
    return milp, get_solver("highs").solve(milp), exact


LIES = {
    "infeasible": lambda s: replace(s, termination=Termination.INFEASIBLE),
    "objective and bound off by 1e-3": lambda s: replace(
        s, dual_bound=s.dual_bound + 1e-3, objective=s.objective + 1e-3
    ),
    "bound of NaN": lambda s: replace(s, dual_bound=float("nan")),
    "infinite bound": lambda s: replace(s, dual_bound=float("inf")),
    "a point of NaN": lambda s: replace(s, primal=np.full_like(s.primal, np.nan), dual_bound=s.dual_bound + 1.0),
    "failed, but with a bound": lambda s: replace(s, termination=Termination.FAILED, dual_bound=1e9),
    "unbounded": lambda s: replace(s, termination=Termination.UNBOUNDED),
    "a bound without its status": lambda s: replace(s, dual_status=DualStatus.NONE, dual_bound=1e9),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", range(3))
def test_no_lie_becomes_a_wrong_claim(lie: str, seed: int) -> None:
    milp, solution, exact = honest(seed)
    claim = what_follows(milp, LIES[lie](solution))
    assert not claim.lower > exact
    assert not np.isnan(claim.lower)


def test_a_known_point_exposes_a_liar_that_hides_its_own() -> None:
    milp, solution, exact = honest(4)
    assert solution.primal is not None
    lie = replace(solution, primal=None, primal_status=PrimalStatus.NONE, dual_bound=exact + 0.5)
    assert what_follows(milp, lie, (solution.primal,)).lower == -INF


@pytest.mark.parametrize("seed", range(10))
def test_bad_duals_give_weak_bounds_but_never_wrong_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    milp = random_relu_program(rng).relaxed()
    exact = get_solver("highs").solve(milp).objective
    for scale in (1e-6, 1.0, 1e6):
        lie = Solution(
            Termination.OPTIMAL,
            PrimalStatus.NONE,
            DualStatus.MULTIPLIERS,
            "liar 1",
            row_duals=scale * rng.normal(size=milp.rows),
        )
        assert what_follows(milp, lie).lower <= exact + 1e-9
    assert certified_bound(milp, np.full(milp.rows, np.nan)) <= exact


def test_emptiness_is_believed_only_of_a_solver_that_passes_the_control() -> None:
    milp, solution, exact = honest(2)
    empty = replace(solution, termination=Termination.INFEASIBLE, primal=None, primal_status=PrimalStatus.NONE)
    claim = what_emptiness_shows(milp, empty, exact - 0.1, control=solution)
    assert exact - 0.2 < claim.lower <= exact - 0.1
    assert "infeasibility" in claim.trusted
    assert what_emptiness_shows(milp, empty, exact - 0.1, control=empty).lower == -INF
    assert what_emptiness_shows(milp, solution, exact - 0.1, control=solution).lower == -INF


def test_published_facts() -> None:
    milp = program([2], [[1]], [1], [INF], [-2], [5], offset=3)
    assert certified_bound(milp, np.array([1.9])) == pytest.approx(4.7)
    assert certified_bound(milp, np.array([2.1])) == pytest.approx(4.6)
    pair = program([2, 3], [[2, 3]], [6], [INF], [0, 0], [10, 10])
    assert certified_bound(pair, np.array([1.0])) == pytest.approx(6)
    below = program([-2], [[1]], [-INF], [1], [-2], [5], offset=-3)
    assert -certified_bound(below, np.array([-1.9])) == pytest.approx(5.4)
    assert -certified_bound(below, np.array([-2.1])) == pytest.approx(5.3)


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: float(np.float32(v)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_bound_is_never_above_its_exact_value(data: st.DataObject) -> None:
    m, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))

    def many(count: int) -> list[float]:
        return data.draw(st.lists(numbers, min_size=count, max_size=count))

    rows = [many(n) for _ in range(m)]
    row_lower, cost, mu, offset = many(m), many(n), many(m), many(1)[0]
    bounds = [sorted(many(2)) for _ in range(n)]
    milp = program(
        cost,
        rows,
        row_lower,
        [v + 1.0 for v in row_lower],
        [b[0] for b in bounds],
        [b[1] for b in bounds],
        offset=offset,
    )
    exact = Fraction(offset)
    for i in range(m):
        side = milp.row_lower[i] if mu[i] > 0 else milp.row_upper[i]
        exact += Fraction(mu[i]) * Fraction(float(side))
    size = abs(exact)
    for j in range(n):
        reduced = Fraction(cost[j]) - sum(Fraction(mu[i]) * Fraction(rows[i][j]) for i in range(m))
        exact += min(reduced * Fraction(b) for b in bounds[j])
        size += max(abs(Fraction(mu[i]) * Fraction(rows[i][j]) * Fraction(b)) for i in range(m) for b in bounds[j])
    found = certified_bound(milp, np.array(mu))
    assert Fraction(found) <= exact
    assert float(exact - Fraction(found)) <= 1e-9 * (
        1 + float(size) + sum(abs(c) * max(map(abs, b)) for c, b in zip(cost, bounds, strict=True))
    )


def test_infinite_bounds_give_no_bound_rather_than_nan() -> None:
    free = program([1.0], [[1.0]], [0.0], [INF], [-INF], [INF])
    assert certified_bound(free, np.array([0.5])) == -INF
    assert certified_bound(free, np.array([-1.0])) == -INF


def test_farkas() -> None:
    nothing = program([0.0], [[1.0], [1.0]], [2.0, -INF], [INF, 1.0], [-9], [9])
    assert certified_infeasible(nothing, np.array([1.0, -1.0]))
    assert not certified_infeasible(nothing, np.array([1.0, 1.0]))
    something = program([0.0], [[1.0], [1.0]], [1.0, -INF], [INF, 1.0], [-9], [9])
    assert not certified_infeasible(something, np.array([1.0, -1.0]))
