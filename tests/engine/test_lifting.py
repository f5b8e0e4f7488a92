"""Semidefinite branching inside of whole questions: its leaves, and bounds whose signs hang on a rounding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.engine import lifting, verify
from mipverify.engine.question import Question
from mipverify.engine.stages import CASCADE
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
    asked = []
    make = lifting.leaf_solver

    def counted(*args: object) -> Callable[[Node], float]:
        solve = make(*args)  # type: ignore[arg-type]
        return lambda node: asked.append(node) or solve(node)  # type: ignore[func-returns-value]

    monkeypatch.setattr(lifting, "leaf_solver", counted)
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


def test_units_whose_sign_hangs_on_a_rounding() -> None:
    """A pre-activation whose least value is zero up to a rounding is unstable in one computation and not in another."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        weight = rng.normal(size=(12, 16)).astype(np.float32)
        low, high = np.full(16, -0.5), np.full(16, 0.5)
        bias = rng.normal(size=12).astype(np.float32)
        weight[:4] = np.round(weight[:4] * 8) / 8
        bias[:4] = 0.5 * np.abs(weight[:4]).sum(axis=1)  # exact: the least value is zero
        weight[:2] *= np.float32(1 + 2**-20)  # and a little below
        last = rng.normal(size=(1, 12)).astype(np.float32)
        layers = [(weight, bias), (last, np.zeros(1, np.float32))]
        network = dense(layers)
        points = low + np.round(rng.random((3000, 16))) * (high - low)
        best = points[np.argmin(network.forward(points)[:, 0])]
        (least,) = exact_output(layers, best)
        verdict = verify(network, question(low, high, [[([1.0], float(least) + 0.01)]]), timeout=20.0)
        assert verdict.verdict != "holds"
