"""What single backends do that the others cannot: licences, solvers behind PuLP, and the registry that names them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mipverify.solvers import available_solvers, get_solver, registry
from mipverify.solvers.interface import Availability, Feature, Limits, Solution, Termination
from mipverify.solvers.trust import what_follows

from mipverify.engine import verify
from mipverify.engine.schedule import CROWN, INTERVAL, MILP, MILP_AS_ASKED
from mipverify.errors import InputError
from mipverify.formulation import Milp
from tests.presolve import nets
from tests.solvers.programs import random_relu_program
from tests.soundness.nets import lowest_sampled, question

PROGRAM = (INTERVAL, CROWN, MILP_AS_ASKED, MILP)
NEEDS_GUROBI = pytest.mark.skipif("gurobi" not in available_solvers(), reason="gurobipy is not installed")


@NEEDS_GUROBI
@pytest.mark.parametrize("name", ["gurobi", "pulp:GUROBI"])
def test_a_program_beyond_the_licence_is_unknown_with_the_reason(name: str) -> None:
    milp = random_relu_program(np.random.default_rng(0), units=1100)  # 2203 columns; the licence allows 2000
    solution = get_solver(name).solve(milp, limits=Limits(time=20.0))
    if solution.termination is not Termination.FAILED:
        pytest.skip("there is a licence for programs of any size")
    assert "size-limited license" in solution.message or "size-limited licence" in solution.message
    assert "\n" not in solution.message
    claim = what_follows(milp, solution)
    assert claim.lower == -np.inf
    assert claim.reason == solution.message


@NEEDS_GUROBI
def test_a_question_beyond_the_licence_says_so() -> None:
    rng = np.random.default_rng(0)
    network = nets.dense(rng, (6, 900, 2))
    lower, upper = np.full(6, -1.0), np.full(6, 1.0)
    asked = question(lower, upper, [[([1.0, 0.0], lowest_sampled(network, lower, upper, [1.0, 0.0]) - 1e-3)]])
    verdict = verify(network, asked, timeout=60.0, solver="gurobi", stages=PROGRAM)
    assert verdict.verdict == "unknown"
    if "licence" not in verdict.reason:
        pytest.skip("there is a licence for programs of any size")
    assert "too large" in verdict.reason


@pytest.mark.parametrize("name", [name for name in available_solvers() if name.startswith("pulp:")])
def test_a_solver_behind_pulp_is_named_in_what_is_trusted(name: str) -> None:
    named = 0
    for seed in range(4):
        network = nets.dense(np.random.default_rng(seed), (4, 10, 10, 2))
        lower, upper = np.full(4, -0.4), np.full(4, 0.4)
        least = lowest_sampled(network, lower, upper, [1.0, 0.0])
        asked = question(lower, upper, [[([1.0, 0.0], least - 0.05 * (1 + abs(least)))]])
        verdict = verify(network, asked, timeout=60.0, solver=name, stages=PROGRAM)
        assert verdict.verdict == "holds"
        named += any(trusted.startswith(name) for trusted in verdict.trusted)
    assert named


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("abacus", ["abacus", "highs", "pulp:NAME"]),
        ("pulp", ["not one of"]),
        ("highs:x", ["not one of"]),
        ("pulp:abacus", ["pulp:abacus", "knows no such solver", "PULP_CBC_CMD"]),
        ("pulp:glpk_cmd", ["pulp:glpk_cmd", "does not find it", "PULP_CBC_CMD"]),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(name: str, words: list[str]) -> None:
    if name == "pulp:glpk_cmd" and "pulp:GLPK_CMD" in available_solvers():
        pytest.skip("GLPK is installed")
    network = nets.dense(np.random.default_rng(0), (2, 4, 2))
    asked = question(np.zeros(2), np.ones(2), [[([1.0, 0.0], 0)]])
    with pytest.raises(InputError) as refused:
        verify(network, asked, solver=name)
    text = str(refused.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


class Liar:
    """Says of every program what HiGHS does, but of those with integers what `lie` makes of it."""

    name, features, tolerance = "liar", frozenset[Feature](), 1e-9

    def available(self) -> Availability:
        """Always."""
        return Availability()

    def solve(self, milp: Milp, **options: object) -> Solution:
        """The lie."""
        honest = get_solver("highs").solve(milp, limits=Limits(20.0))
        return replace(honest, solver="liar 1", dual_bound=1e6, termination=Termination.OPTIMAL)


def test_a_backend_that_lies_about_its_bound_makes_no_verdict_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = registry.Backend("liar", "a liar", __name__, "Liar")
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, liar))
    lied = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 10, 10, 2))
        lower, upper = np.full(4, -0.4), np.full(4, 0.4)
        offset = lowest_sampled(network, lower, upper, [1.0, 0.0]) + 1e-3
        verdict = verify(network, question(lower, upper, [[([1.0, 0.0], offset)]]), solver="liar", stages=PROGRAM)
        assert verdict.verdict != "holds"
        lied += verdict.statistics["binaries"] > 0 or verdict.verdict == "violated"
    assert lied
