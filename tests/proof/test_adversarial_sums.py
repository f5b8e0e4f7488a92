"""Sums that rounding ruins, in every method: a tensor read a thousand times, ratios of 2^53, denormals.

A float that is added to a far larger one is lost. A bound that leaves out how often a value is read and added up is
then wrong by as much as all that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown, fast_lin, interval, optimized_crown
from mipverify.presolve.cutting import cut_tighten
from mipverify.presolve.linear import lp_tighten
from mipverify.solvers import lp_session

from mipverify.engine import verify
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Identity, Scale
from mipverify.proof.backward import row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval_over
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.specification import Box, Case, Condition, Specification, robustness
from mipverify.specification.conditions import Row
from mipverify.specification.norms import L1, L2
from mipverify.specification.sets import Ball, BallInBox

MANY = 1000
BIG = 2.0**53


def _one_node(through_relu: bool) -> Network:
    """y = -2^53 r - r - ... - r + 2^53 r + 500 in one node that reads r a thousand times; r = x_0, through a ReLU."""
    nodes: list = [Input((2,)), Affine((1,), (Term(0, Dense(np.array([[1.0, 0.0]]))),))]
    if through_relu:
        nodes.append(Relu((1,), 1))
    source = len(nodes) - 1
    one, big = Identity((1,)), Scale(np.array([-BIG]), (1,))
    minus = Scale(np.array([-1.0]), (1,))
    terms = (Term(source, big), *[Term(source, minus)] * MANY, Term(source, Scale(np.array([BIG]), (1,))))
    nodes.append(Affine((1,), terms, np.array([500.0])))
    return Network((*nodes, Affine((1,), (Term(len(nodes) - 1, one),))), len(nodes))


def _many_nodes(through_relu: bool) -> Network:
    """The same sum, with a node of its own for each time that r is read."""
    nodes: list = [Input((2,)), Affine((1,), (Term(0, Dense(np.array([[1.0, 0.0]]))),))]
    if through_relu:
        nodes.append(Relu((1,), 1))
    source, copies = len(nodes) - 1, []
    for weight in (-BIG, *[-1.0] * MANY, BIG):
        nodes.append(Affine((1,), (Term(source, Scale(np.array([weight]), (1,))),)))
        copies.append(len(nodes) - 1)
    nodes.append(Affine((1,), tuple(Term(copy, Identity((1,))) for copy in copies), np.array([500.0])))
    return Network(tuple(nodes), len(nodes) - 1)


METHODS: dict[str, Callable[[Bounds], Bounds]] = {
    "interval": lambda bounds: bounds,
    "fast-lin": fast_lin,
    "crown": crown,
    "optimized crown": optimized_crown,
    "cuts": cut_tighten,
    "reduced": lambda bounds: reduce(bounds).bounds,
    "lp": lambda bounds: lp_tighten(bounds, lp_session),
}
NETWORKS = {
    f"{name}{' through a ReLU' if relu else ''}": make(relu)
    for name, make in (("one node", _one_node), ("many nodes", _many_nodes))
    for relu in (False, True)
}
# At x_0 = 1 the sum is 500 - 1000: exactly, whatever floating point makes of it.
LOWEST, HIGHEST = -500, 500


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_intervals_hold_the_exact_values(network: str, method: str) -> None:
    bounds = METHODS[method](interval(NETWORKS[network], np.array([[0.0, -1.0]]), np.array([[1.0, 1.0]])))
    output = bounds.network.output
    assert bounds.lower[output].min() <= LOWEST
    assert bounds.upper[output].max() >= HIGHEST


@pytest.mark.parametrize("relu_inside", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_rows_lie_below_the_exact_minimum(network: str, relu_inside: bool) -> None:
    """Also where the ReLU is unstable: its two lines are added up with all their reads."""
    low = -1.0 if relu_inside else 0.0
    bounds = interval(NETWORKS[network], np.array([[low, -1.0]]), np.array([[1.0, 1.0]]))
    net = bounds.network
    rows = unit_rows(net, net.output, np.array([0]), None, bounds.lower[0])
    assert row_minimum(bounds, rows).lower[0] <= LOWEST
    assert -row_minimum(bounds, rows.negated()).lower[0] >= HIGHEST


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_verdict_rests_on_what_was_lost(network: str, solver: str) -> None:
    row = Row({0: Fraction(1)}, {}, Fraction(-100))
    asked = Case(Box.from_floats([0.0, -1.0], [1.0, 1.0]), (Condition.from_rows([row], 2, 1),))
    verdict = verify(NETWORKS[network], Specification((asked,), "vnnlib"), timeout=2, solver=solver)
    assert verdict.verdict != "holds"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_a_lower_precision_rounds_are_counted(dtype: type) -> None:
    """Rows start from weights cast to the precision of the pass: 1 + 2^-30 is no float32, and 2^40 times it shows."""
    weight = np.array([[1.0 + 2.0**-30, -1.0]])
    network = Network((Input((2,)), Affine((1,), (Term(0, Dense(weight)),))), 1)
    box = np.full((1, 2), 2.0**40, dtype)
    bounds = interval(network, box, box)
    exact = Fraction(2) ** 40 * (Fraction(1.0 + 2.0**-30) - 1)
    rows = unit_rows(network, 1, np.array([0]), None, bounds.lower[0])
    assert row_minimum(bounds, rows).lower[0] <= exact
    assert -row_minimum(bounds, rows.negated()).lower[0] >= exact


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("size", [2.0**-540, 2.0**-1060, 2.0**500, 1.0])
@pytest.mark.parametrize("width", [1.0, 2.0**-530])
def test_rows_over_balls_whatever_their_size(norm: str, size: float, width: float) -> None:
    """The exact minimum of a row over a ball: minus its dual norm times the radius, at numbers whose squares vanish."""
    n, radius = 8, 0.25 * width
    ball = Ball.around(np.zeros(n), Fraction(radius), L1() if norm == "l1" else L2())
    inputs = BallInBox(ball, Box.from_floats(np.full(n, -width), np.full(n, width)))
    network = Network((Input((n,)), Affine((1,), (Term(0, Dense(np.full((1, n), size))),))), 1)
    bounds = interval_over(network, inputs)
    found = row_minimum(bounds, unit_rows(network, 1, np.array([0]), None, bounds.lower[0])).lower[0]
    dual = Fraction(size) * Fraction(radius)
    square = dual * dual * (n if norm == "l2" else 1)
    assert found <= 0
    assert Fraction(float(found)) ** 2 >= square


@pytest.mark.parametrize("scale", [1.0, 2.7e-162, 2.0**-1050])
def test_no_wrong_proof_by_an_l2_ball_of_denormal_squares(scale: float) -> None:
    """Two classes whose difference falls below zero at the rim of the ball and stays above it on nine tenths of it."""
    n, eps = 8, Fraction(1, 5)
    weight = np.zeros((2, n))
    weight[1] = scale
    reach = scale * n * 0.5 + scale * np.sqrt(n) * 0.19
    network = Network((Input((n,)), Affine((2,), (Term(0, Dense(weight)),), np.array([reach, 0.0]))), 1)
    asked = robustness(np.full(n, 0.5), 0, eps, num_classes=2, norm="l2")
    assert verify(network, asked, timeout=2).verdict != "holds"
