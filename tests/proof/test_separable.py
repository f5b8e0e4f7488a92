"""Exact minima of functions of single units are never above a value that is taken, and equal it for one unit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Identity, Scale
from mipverify.proof.interval import interval
from mipverify.proof.separable import lowest
from mipverify.proof.signs import nonnegative


def chain(rng: np.random.Generator, length: int) -> Network:
    """Three inputs, each through its own random chain of scales, shifts, ReLUs and skips, added up in the end."""
    nodes: list = [Input((3,))]
    source = 0
    for _ in range(length):
        kind = rng.integers(3)
        if kind == 0:
            nodes.append(Relu((3,), source))
        else:
            terms = [Term(source, Scale(rng.integers(-3, 4, 3) / 2.0, (3,)))]
            if kind == 2:
                terms.append(Term(int(rng.integers(len(nodes))), Identity((3,))))
            nodes.append(Affine((3,), tuple(terms), rng.integers(-4, 5, 3) / 4.0))
        source = len(nodes) - 1
    nodes.append(Affine((2,), (Term(source, Dense(rng.integers(-2, 3, (2, 3)) / 2.0)),), rng.integers(-4, 5, 2) / 4.0))
    return Network(tuple(nodes), len(nodes) - 1)


@pytest.mark.parametrize("seed", range(40))
def test_never_above_a_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = chain(rng, int(rng.integers(1, 9)))
    lower = rng.integers(-8, 1, (1, 3)) / 4.0
    upper = lower + rng.integers(0, 9, (1, 3)) / 4.0
    bounds = interval(net, lower, upper)
    found = lowest(bounds, net.output, np.arange(2))
    grid = lower + (upper - lower) * rng.integers(0, 65, (4000, 3)) / 64.0
    values = net.forward(grid)  # dyadic numbers of few bits: exact in float64
    signs = nonnegative(bounds, net.output, np.arange(2)).lower >= 0
    for unit in range(2):
        if found[unit] is not None:
            assert found[unit] <= Fraction(float(values[:, unit].min()))
        assert not (signs[unit] and values[:, unit].min() < 0)
    assert found[0] is not None or found[1] is not None or len(net.nodes) > 4


def one(*nodes: object) -> Network:
    return Network((Input((1,)), *nodes), len(nodes))  # type: ignore[arg-type]


def shifted(source: int, by: float, factor: float = 1.0) -> Affine:
    return Affine((1,), (Term(source, Scale(np.array([factor]), (1,))),), np.array([by]))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # 1 - clip(x, 0, 1), |x|, x - |x|, relu(2 - relu(x)) - 3/4
        (
            one(
                Relu((1,), 0), shifted(0, -1.0), Relu((1,), 2),
                Affine((1,), (Term(1, Scale(np.array([-1.0]), (1,))), Term(3, Identity((1,)))), np.array([1.0])),
            ),
            Fraction(0),
        ),
        (
            one(
                Relu((1,), 0),
                Affine((1,), (Term(1, Scale(np.array([2.0]), (1,))), Term(0, Scale(np.array([-1.0]), (1,))))),
            ),
            Fraction(0),
        ),
        (
            one(
                Relu((1,), 0),
                Affine((1,), (Term(1, Scale(np.array([-2.0]), (1,))), Term(0, Scale(np.array([2.0]), (1,))))),
            ),
            Fraction(-6),
        ),
        (one(Relu((1,), 0), shifted(1, 2.0, -1.0), Relu((1,), 2), shifted(3, -0.75)), Fraction(-3, 4)),
    ],
)  # fmt: skip
def test_one_unit_is_exact(network: Network, expected: Fraction) -> None:
    bounds = interval(network, np.array([[-3.0]]), np.array([[5.0]]))
    assert lowest(bounds, network.output, np.array([0])) == [expected]


def test_long_chains_and_wide_layers_end_without_an_answer() -> None:
    nodes: list = [Input((1,))]
    for _ in range(400):
        nodes += [shifted(len(nodes) - 1, 0.25), Relu((1,), len(nodes))]
    long = Network(tuple(nodes), len(nodes) - 1)
    assert lowest(interval(long, np.array([[-3.0]]), np.array([[5.0]])), long.output, np.array([0])) == [None]
    wide = Network(
        (Input((2000,)), Affine((2000,), (Term(0, Dense(np.ones((2000, 2000)))),)), Relu((2000,), 1),
         Affine((1,), (Term(2, Dense(np.ones((1, 2000)))),))), 3,
    )  # fmt: skip
    bounds = interval(wide, np.zeros((1, 2000)), np.ones((1, 2000)))
    assert lowest(bounds, 3, np.array([0])) == [None]
    assert nonnegative(bounds, 3, np.array([0])).lower.tolist() == [0]
