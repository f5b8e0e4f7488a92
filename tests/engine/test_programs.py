"""Programs in which few units are binary decide what programs of all would."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.solvers import available_solvers, get_solver
from mipverify.solvers.highs import Highs
from mipverify.solvers.interface import NO_LIMITS, DualStatus, Limits, PrimalStatus, Solution, Termination

from mipverify.engine import verify
from mipverify.engine.schedule import CROWN, INTERVAL, MILP, MILP_AS_ASKED
from mipverify.engine.stages import milp
from mipverify.formulation import Milp, encode
from tests.presolve import nets
from tests.soundness.nets import question

PROGRAM = (INTERVAL, CROWN, MILP_AS_ASKED, MILP)


@pytest.mark.parametrize("solver", available_solvers())
def test_verdicts_change_at_the_exact_minimum(solver: str) -> None:
    some = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 10, 10, 2))
        center = rng.normal(size=4)
        lower, upper = center - 0.4, center + 0.4
        encoding = encode(network, crown(interval(network, lower[None], upper[None])))
        least = get_solver("highs").solve(encoding.minimize(0), limits=Limits(60)).objective
        for step, word in ((-0.01, "holds"), (0.01, "violated")):
            offset = Fraction(least + step * (1 + abs(least)))
            asked = question(lower, upper, [[([1.0, 0.0], offset)]])
            verdict = verify(network, asked, timeout=60.0, solver=solver, stages=PROGRAM)
            assert verdict.verdict == word
            some += 0 < verdict.statistics["binaries"] < encoding.binaries
    assert some, "all or nothing was binary each time"


class CallsLinearProgramsEmpty(Highs):
    """Tells the truth of programs with binaries and of those with a cap, for which it is asked again."""

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        found = super().solve(milp, limits=limits, stop=stop, seed=seed)
        if milp.integer.any() or limits.objective_target == np.inf:
            return found
        return Solution(Termination.INFEASIBLE, PrimalStatus.NONE, DualStatus.NONE, "liar")


def test_a_linear_program_that_is_called_empty_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.dense(np.random.default_rng(1), (4, 10, 10, 2))
    low, high = np.full(4, -0.4), np.full(4, 0.4)
    least = network.forward(nets.points(np.random.default_rng(2), low[None], high[None], 4000)[:, 0])[:, 0].min()
    asked = question(low, high, [[([1.0, 0.0], Fraction(float(least) + 0.01))]])
    monkeypatch.setattr(milp, "get_solver", lambda name: CallsLinearProgramsEmpty())
    verdict = verify(network, asked, timeout=60.0, solver="highs", stages=PROGRAM)
    assert verdict.verdict == "violated"
    assert not verdict.trusted


class Recording(Highs):
    """Notes the seeds that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        self.seeds.append(seed)
        return super().solve(milp, limits=limits, stop=stop, seed=seed)


@pytest.mark.parametrize(("seed", "given"), [(0, 0), (11, 11), (2**31 + 4, 5)])
def test_the_seed_reaches_the_solver(seed: int, given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.dense(np.random.default_rng(1), (4, 10, 10, 2))
    low, high = np.full(4, -2.0), np.full(4, 2.0)
    encoding = encode(network, crown(interval(network, low[None], high[None])))
    least = get_solver("highs").solve(encoding.minimize(0), limits=Limits(60)).objective
    asked = question(low, high, [[([1.0, 0.0], Fraction(least - 1e-3))]])
    solver = Recording()
    monkeypatch.setattr(milp, "get_solver", lambda name: solver)
    verify(network, asked, timeout=60.0, solver="highs", seed=seed, stages=(INTERVAL, MILP_AS_ASKED))
    assert solver.seeds
    assert set(solver.seeds) == {given}
