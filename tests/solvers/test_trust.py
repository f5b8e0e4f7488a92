"""A solver that lies: none of its lies may become a claim that the exact answer contradicts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown
from mipverify.presolve.linear import lp_tighten
from mipverify.solvers import get_solver
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.splits import root
from mipverify.solvers.highs import HighsSession
from mipverify.solvers.interface import DualStatus, PrimalStatus, Solution, Termination
from mipverify.solvers.trust import check_infeasibility_claim, what_follows

from mipverify.formulation import Milp
from mipverify.formulation.lp import LpAnswer
from mipverify.formulation.margin import margin_network
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.presolve import nets
from tests.solvers.programs import by_enumeration, random_relu_program
from tests.soundness.exact import Question, random_question

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


def test_multipliers_are_evidence_and_no_claim() -> None:
    milp = random_relu_program(np.random.default_rng(0)).relaxed()
    exact = get_solver("highs").solve(milp)
    assert exact.row_duals is not None
    for duals in (exact.row_duals, 1e6 * exact.row_duals):
        lie = Solution(Termination.OPTIMAL, PrimalStatus.NONE, DualStatus.NONE, "liar 1", row_duals=duals)
        assert what_follows(milp, lie).lower == -INF


def test_emptiness_is_believed_only_of_a_solver_that_passes_the_control() -> None:
    milp, solution, exact = honest(2)
    empty = replace(solution, termination=Termination.INFEASIBLE, primal=None, primal_status=PrimalStatus.NONE)
    claim = check_infeasibility_claim(milp, empty, exact - 0.1, control=solution)
    assert exact - 0.2 < claim.lower <= exact - 0.1
    assert "infeasibility" in claim.trusted
    assert check_infeasibility_claim(milp, empty, exact - 0.1, control=empty).lower == -INF
    assert check_infeasibility_claim(milp, solution, exact - 0.1, control=solution).lower == -INF


class LyingSession(HighsSession):
    """HiGHS, whose multipliers are changed on the way, and who says now and then that there is no point."""

    def __init__(self, lie: str, rng: np.random.Generator):
        super().__init__()
        self.lie, self.rng = lie, rng

    def solve(self, seconds: float, cutoff: float = INF) -> LpAnswer:
        """The answer, and the lie."""
        answer = super().solve(seconds, cutoff)
        multipliers = answer.multipliers
        assert multipliers is not None
        noise = self.rng.normal(size=len(multipliers))
        told = {
            "nothing": multipliers,
            "a little": multipliers + 1e-3 * noise,
            "the other sign": -multipliers,
            "another scale": 10.0 ** self.rng.uniform(-6, 6) * multipliers,
            "anything": 10.0 ** self.rng.uniform(-3, 6) * noise,
            "no numbers": np.where(noise > 0.5, np.nan, multipliers),
            "infinite ones": np.where(noise > 0.5, np.inf, np.where(noise < -0.5, -np.inf, multipliers)),
            "that there is no point": 1e6 * (multipliers + noise),
        }[self.lie]
        return replace(answer, multipliers=told, point=None if "point" in self.lie else answer.point)


LIES_IN_PROGRAMS = [
    "nothing",
    "a little",
    "the other sign",
    "another scale",
    "anything",
    "no numbers",
    "infinite ones",
    "that there is no point",
]


def margins_of(question: Question) -> Bounds:
    case = question.specification().cases[0]
    network = margin_network(question.network(), case.conditions)
    return crown(interval(network, case.box.lower[None], case.box.upper[None]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers that are none
@pytest.mark.parametrize("lie", LIES_IN_PROGRAMS)
def test_a_liar_among_linear_programs_proves_nothing_that_is_wrong(lie: str) -> None:
    rng = np.random.default_rng(31)
    asked, close = 0, 0
    for _ in range(60):
        question = random_question(rng)
        question.conditions = [[question.conditions[0][0]]]
        exact, bounds = question.smallest_margin(), reduce(margins_of(question)).bounds
        rows = unit_rows(bounds.network, bounds.network.output, np.zeros(1, int), None, bounds.like)
        programs = NodePrograms.of(bounds.network, rows, lambda: LyingSession(lie, rng))
        if programs is None:
            continue
        assert exact is not None
        bounder, points = PhaseBounder(bounds, rows), np.zeros((1, 2))
        (node,) = programs.raise_bounds([root(0)], bounder.bounds([root(0)]), points, lambda: False)
        asked += 1
        assert node.lower == -INF or Fraction(node.lower) <= exact
        close += node.lower > float(exact) - 0.05 * (1 + abs(float(exact)))
    assert asked > 20
    assert lie != "nothing" or close > 5, "bounds far below everything would show no fault"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("lie", LIES_IN_PROGRAMS)
def test_bounds_of_hidden_units_by_a_liar_hold_at_sampled_points(lie: str) -> None:
    rng = np.random.default_rng(32)
    narrowed = 0
    for _ in range(4):
        network = nets.dense(rng, (4, 8, 7, 6, 2))
        lower, upper = nets.boxes(rng, network, 1, radius=0.7)
        start = crown(interval(network, lower, upper))
        tight = lp_tighten(start, lambda: LyingSession(lie, rng))
        values = network.values(nets.points(rng, lower, upper, 2000)[:, 0])
        for node in network.preactivations:
            seen = np.asarray(values[node])
            assert (seen >= tight.lower[node] - 1e-9).all()
            assert (seen <= tight.upper[node] + 1e-9).all()
            narrowed += int((tight.upper[node] - tight.lower[node] < start.upper[node] - start.lower[node]).sum())
    assert lie != "nothing" or narrowed > 10
