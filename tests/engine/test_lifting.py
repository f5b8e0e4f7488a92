"""Semidefinite branching inside of whole questions: its leaves, and bounds whose signs hang on a rounding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.engine import leaves, verify
from mipverify.engine.judge import Replaying
from mipverify.engine.schedule import CROWN, INTERVAL, SEMIDEFINITE, SEMIDEFINITE_BRANCHING
from mipverify.engine.stage import Work
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.bounds import Bounds
from tests.engine.calls import calling
from tests.soundness import exact
from tests.soundness.nets import exact_output, question

ONLY = (INTERVAL, CROWN, SEMIDEFINITE, SEMIDEFINITE_BRANCHING)


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
    monkeypatch.setattr(Replaying, "first_violation", lambda *_: None)  # no counterexample saves a wrong proof
    asked: list[Node] = []
    make = leaves.leaf_solver

    def counted(work: Work, bounds: Bounds) -> Callable[[Node], Node]:
        solve = make(work, bounds)

        def answer(node: Node) -> Node:
            asked.append(node)
            return solve(node)

        return answer

    monkeypatch.setattr(leaves, "leaf_solver", counted)
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


def twice(layers: list[tuple[np.ndarray, np.ndarray]], units: int) -> Network:
    """Two dense layers, of which some units read 9/8 of their inputs, less 1/8 of a copy of these.

    Interval arithmetic does not see that the two are the same, and multiplying out does.
    """
    (weight, bias), (last, end) = layers
    count, size = weight.shape
    share = np.where(np.arange(count) < units, 1 / 8, 0.0)[:, None]
    split = np.concatenate([(1 + share) * weight, -share * weight], axis=1)
    nodes = (
        Input((size,)),
        Affine((2 * size,), (Term(0, Dense(np.concatenate([np.eye(size)] * 2))),)),
        Affine((count,), (Term(1, Dense(split)),), bias),
        Relu((count,), 2),
        Affine((len(last),), (Term(3, Dense(last)),), end),
    )
    return Network(nodes, 4)


def seems_unstable(work: Work) -> None:
    """Four units that are always active look as if they were not, until the network is reduced to what is unstable."""
    bounds = work.state.proven
    assert bounds.unstable(work.problem.margins.preactivations[0]).reshape(-1)[:4].all()
    inner = work.state.reduced(work.deadline.over).bounds
    (node,) = inner.network.preactivations
    assert (inner.lower[node][0, :4] > 0).all()


def test_units_whose_sign_shows_only_once_all_is_multiplied_out() -> None:
    """Reduced to unstable units, the network has them; its own bounds then show that they are active."""
    rng = np.random.default_rng(5)
    interval, _, *lift = ONLY
    held = 0
    for _ in range(20):
        weight = np.round(rng.normal(size=(12, 16)) * 8).astype(np.float32) / 8
        low, high = np.full(16, -0.5), np.full(16, 0.5)
        bias = rng.normal(size=12).astype(np.float32)
        bias[:4] = 0.5 * np.abs(weight[:4]).sum(axis=1) + 1 / 32  # exact: the least value of these units
        bias[4:] = np.minimum(bias[4:], 0.4 * np.abs(weight[4:]).sum(axis=1))
        last = rng.normal(size=(1, 12)).astype(np.float32)
        layers = [(weight, bias), (last, np.zeros(1, np.float32))]
        network = twice(layers, 4)
        points = low + np.round(rng.random((3000, 16))) * (high - low)
        best = points[np.argmin(network.forward(points)[:, 0])]
        (least,) = exact_output(layers, best)
        stages = (interval, calling("look", seems_unstable), *lift)
        posed = question(low, high, [[([1.0], float(least) + 0.01)]])
        assert verify(network, posed, timeout=20.0, stages=stages).verdict != "holds"
        posed = question(low, high, [[([1.0], float(least) - 2.0)]])
        held += verify(network, posed, timeout=20.0, stages=stages).verdict == "holds"
    assert held > 10
