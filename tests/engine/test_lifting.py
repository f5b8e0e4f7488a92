"""Semidefinite branching inside of whole questions: its leaves, and bounds whose signs hang on a rounding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import Bounds
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.engine import searches, verify
from mipverify.engine.question import Question
from mipverify.engine.stages import CASCADE, Stage
from mipverify.proof.reduction import Reduced
from tests.soundness import exact
from tests.soundness.nets import dense, exact_output, question

ONLY = tuple(s for s in CASCADE if s.name in ("interval", "crown", "semidefinite", "semidefinite branching"))


def shallow_question(rng: np.random.Generator, margin: Fraction) -> exact.Question:
    """One hidden layer of six units, one condition, and this smallest margin."""
    while True:
        asked = exact.random_question(rng)
        weight = [[Fraction(int(v), 4) for v in row] for row in rng.integers(-8, 9, (6, 2))]
        bias = [Fraction(int(v), 4) for v in rng.integers(-4, 5, 6)]
        last = exact.Layer([[Fraction(int(v), 4) for v in rng.integers(-8, 9, 6)]], [Fraction(0)])
        asked.layers = [exact.Layer(weight, bias), last]
        asked.conditions = [[([Fraction(1)], Fraction(0))]]
        least = asked.smallest_margin()
        assert least is not None
        asked.conditions = [[([Fraction(1)], least - margin)]]
        if Fraction(float(least - margin)) == least - margin:
            return asked


def test_leaves_are_asked_and_their_answers_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Question, "try_points", lambda self, points: None)  # no counterexample saves a wrong proof
    asked: list[Node] = []
    make = searches.leaf_solver

    def counted(question: Question, reduced: Reduced) -> Callable[[Node], float]:
        solve = make(question, reduced)

        def answer(node: Node) -> float:
            asked.append(node)
            return solve(node)

        return answer

    monkeypatch.setattr(searches, "leaf_solver", counted)
    rng = np.random.default_rng(41)
    proven = 0
    for k in range(40):
        margin = Fraction((-1) ** k, 2**12)
        posed = shallow_question(rng, margin)
        verdict = verify(posed.network(), posed.specification(), timeout=20.0, stages=ONLY)
        assert verdict.verdict != "holds" or margin > 0
        if verdict.margin_lower_bound is not None:
            assert Fraction(verdict.margin_lower_bound) <= margin
        proven += verdict.verdict == "holds"
    assert proven >= 16
    assert len(asked) > 5


def below_by_a_rounding(question: Question) -> None:
    """Bounds that another computation may end up with: units that are just active seem to be unstable."""
    assert question.bounds is not None
    source = question.margins.preactivations[0]
    lower = list(question.bounds.lower)
    just = (lower[source] > 0) & (lower[source] < 1 / 16)
    assert just.sum() == 4
    lower[source] = np.where(just, -1e-15, lower[source])
    question.bounds = Bounds(question.margins, tuple(lower), question.bounds.upper)


def test_units_whose_sign_hangs_on_a_rounding() -> None:
    """Reduced to unstable units, the network has them; its own bounds then show that they are active."""
    rng = np.random.default_rng(5)
    interval, crown, *lift = ONLY
    for _ in range(20):
        weight = np.round(rng.normal(size=(12, 16)) * 8).astype(np.float32) / 8
        low, high = np.full(16, -0.5), np.full(16, 0.5)
        bias = rng.normal(size=12).astype(np.float32)
        bias[:4] = 0.5 * np.abs(weight[:4]).sum(axis=1) + 1 / 32  # exact: the least value of these units
        bias[4:] = np.minimum(bias[4:], 0.4 * np.abs(weight[4:]).sum(axis=1))
        last = rng.normal(size=(1, 12)).astype(np.float32)
        network = dense([(weight, bias), (last, np.zeros(1, np.float32))])
        points = low + np.round(rng.random((3000, 16))) * (high - low)
        best = points[np.argmin(network.forward(points)[:, 0])]
        (least,) = exact_output([(weight, bias), (last, np.zeros(1))], best)
        posed = question(low, high, [[([1.0], float(least) + 0.01)]])
        stages = (interval, crown, Stage("rounding", below_by_a_rounding), *lift)
        assert verify(network, posed, timeout=20.0, stages=stages).verdict != "holds"
