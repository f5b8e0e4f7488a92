"""Questions on the edge, which no splitting decides: the search ends by itself, without a proof."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval
from mipverify.solvers.branch_and_bound.boxes import search_boxes
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.network import Network
from mipverify.proof.facts import Claim
from mipverify.proof.rows import unit_rows
from tests.soundness.nets import dense

KINK = dense([([[1.0, 0.0]], [0.0]), ([[1.0]], [0.0])])  # relu(x), zero on half of the box
POINT = dense([([[1.0, 0.0], [-1.0, 0.0]], [0.5, -0.5]), ([[1.0, 1.0]], [0.0])])  # |x + 1/2|, zero at one point
ZERO = np.zeros((1, 1), int)
LINEAR = dense([([[1.0, -1.0]], [0.0])])


@pytest.mark.parametrize(
    ("network", "lower", "upper"),
    [
        (KINK, [-1.0, -1.0], [1.0, 1.0]),
        (POINT, [-1.0, 0.0], [2.0**-40, 0.0]),
        (LINEAR, [0.25, 0.25], [0.25, 0.25]),
        (LINEAR, [1.0, 0.0], [1.0 + 2**-52, 1.0]),
        (KINK, [-5e-324, 0.0], [5e-324, 0.0]),
        (LINEAR, [-1e38, 0.0], [1e38, 0.0]),
    ],
)
def test_halving_ends_where_floats_do(network: Network, lower: list[float], upper: list[float]) -> None:
    polls = iter(range(1500))
    bounds, claim = interval(network, np.array([lower]), np.array([upper])), Claim(network.output, ZERO, np.ones(1))
    outcome = search_boxes(bounds, [claim], stop=lambda: next(polls, None) is None)
    assert not outcome.closed
    assert "floating-point" in outcome.reason
    assert outcome.bounds[0].lower[0] <= 0


def test_a_condition_that_meets_no_relu_is_a_leaf_at_once() -> None:
    bounds = crown(interval(LINEAR, np.zeros((1, 2)), np.ones((1, 2))))
    bounder = PhaseBounder(bounds, unit_rows(LINEAR, 1, np.arange(1), None, np.zeros(2)), Search())
    outcome = PhaseSearch(bounder, [root(0)]).run()
    assert (outcome.closed, outcome.nodes, outcome.reason) == (False, 1, "a leaf could not be decided")
    assert -1.001 < outcome.lower[0] <= -1
