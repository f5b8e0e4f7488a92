"""Evidence of another shape, layer or precision, and indices that mean nothing: refused, or bounds that hold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import interval

from mipverify.network import Affine, Input, Network, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense
from mipverify.proof.backward import Evidence, minimum, propagate_backward, row_minimum
from mipverify.proof.bounds import assume
from mipverify.proof.boxes import BoxCases, combined
from mipverify.proof.clipping import Clipped, confine
from mipverify.proof.cuts import IdealLayer
from mipverify.proof.facts import Assumption, Claim
from mipverify.proof.interval import tighten
from mipverify.proof.patches import parallel_patches
from mipverify.proof.restated import restated
from mipverify.proof.rows import unit_rows
from mipverify.proof.semidefinite import SemidefiniteRelaxation, SingleLayer
from mipverify.specification.sets import Box, Product
from tests.soundness.nets import dense

FIRST, ONLY = np.zeros(1, int), np.zeros((1, 1))
CHAIN = dense([([[1.0]], [0.0]), ([[1.0]], [0.0]), ([[1.0]], [0.0])])  # x, z, relu(z), relu(z)
SPLITS = [Assumption(((2, 0, 1),)), Assumption(((2, 0, -1),))]


@pytest.mark.parametrize("weight", [np.inf, 1e308, 1e-320, 0.0, -1.0, np.nan])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_weights_of_any_size_stay_below_the_largest(count: int, dtype: type, weight: float) -> None:
    network = dense([([[0.0]] * count, [1.0] * count)])
    bounds = interval(network, ONLY, ONLY + 1)
    rows = propagate_backward(
        bounds, unit_rows(network, network.output, np.arange(count), np.zeros(count, int), bounds.like)
    )
    with np.errstate(over="ignore"):
        weights = np.full((count, 1), weight).astype(dtype)
    assert minimum(combined(rows, weights)).lower[0] <= 1
    assert minimum(combined(rows, weights)).lower[0] > 1 - 1e-9


def test_cuts_of_another_layer() -> None:
    network = dense(
        [([[1.0], [-1.0]], [0.0, 0.0]), ([[10.0, 10.0], [-10.0, -10.0]], [-5.0, 5.0]), ([[-1.0, -1.0]], [0.0])]
    )
    bounds = interval(network, ONLY - 1, ONLY + 1)
    phases = np.array([[[True], [True], [False], [False]]])
    cuts = IdealLayer.of(bounds, 2).cuts(np.array([[0, 1, 0, 1]]), phases)
    rows = unit_rows(network, 5, FIRST, None, bounds.like)
    with pytest.raises(ValueError, match="cuts of node 2"):
        propagate_backward(bounds, rows, Evidence(cuts={4: cuts}, cut_multipliers={4: np.ones((1, 4))}))


def test_evidence_of_another_precision_is_cast() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        bias = float(rng.integers(2**30, 2**31))
        network = dense([([[1.0]], [bias]), ([[1.0]], [0.0])])
        ends = [np.array([[np.float32(-bias + by)]], np.float64) for by in (4000, 5000)]
        bounds = interval(network, *ends).outward(np.float32)
        rows = unit_rows(network, 3, FIRST, None, bounds.like)
        found = row_minimum(bounds, rows, Evidence(slopes={2: np.ones((1, 1))})).lower[0]
        assert Fraction(float(found)) <= Fraction(ends[0].item()) + Fraction(bias)


def test_rows_of_another_precision() -> None:
    bounds = interval(CHAIN, ONLY - 1, ONLY + 1)
    with pytest.raises(ValueError, match="one precision"):
        propagate_backward(bounds, unit_rows(CHAIN, 3, FIRST, None, np.zeros((1, 1), np.float32)))


@pytest.mark.parametrize("weight", [1e-46, 2e-45, 1e-40])
def test_weights_below_the_range_of_float32(weight: float) -> None:
    network = Network((Input((1,)), Affine((1,), (Term(0, Dense(np.array([[weight]]))),), np.zeros(1))), 1)
    x = np.array([[1e30]], np.float32)
    bounds = interval(network, x, x)
    value = Fraction(weight) * Fraction(float(x.item()))
    output = network.output
    assert Fraction(bounds.lower[output].item()) <= value <= Fraction(bounds.upper[output].item())


@pytest.mark.parametrize("part", range(3))
def test_dual_variables_of_another_shape(part: int) -> None:
    network = dense([(np.ones((4, 20)), np.zeros(4)), (-np.ones((1, 4)), [0.0])])
    relaxation = SemidefiniteRelaxation(SingleLayer.of(interval(network, -np.ones((1, 20)), np.ones((1, 20)))))
    given = [np.zeros((1, 4)), np.ones((1, 20)), np.ones((1, 5))]
    assert np.isfinite(relaxation.prove(FIRST, [Assumption()], *given).lower).all()
    given[part] = given[part][:, :1]
    with pytest.raises(ValueError, match="dual variables"):
        relaxation.prove(FIRST, [Assumption()], *given)


@pytest.mark.parametrize("claim", [Claim(3, FIRST, -np.ones(1)), Claim(3, np.zeros(2, int), np.ones(2))])
def test_boxes_for_other_claims(claim: Claim) -> None:
    with pytest.raises(ValueError, match="largest"):
        BoxCases(interval(CHAIN, ONLY - 1, ONLY + 1), [claim])


def test_entries_are_no_masks() -> None:
    both = assume(interval(CHAIN, ONLY - 1, ONLY + 1), SPLITS, [None, None])
    with pytest.raises(ValueError, match="by index"):
        both.select(np.array([False, True]))


@pytest.mark.parametrize("unit", [-1, 1])
def test_units_that_are_not_there(unit: int) -> None:
    with pytest.raises(ValueError, match="no such units"):
        unit_rows(CHAIN, 3, np.array([unit]), None, ONLY)


def test_planes_of_another_entry() -> None:
    root = interval(CHAIN, ONLY - 1, ONLY + 1)
    both, pair = assume(root, SPLITS, [None, None]), np.zeros(2, int)
    low = propagate_backward(both, unit_rows(CHAIN, 3, pair, None, root.like))
    signed = unit_rows(CHAIN, 1, pair, np.arange(2), root.like).scaled(np.array([-1.0, 1.0]))
    clipped = Clipped.of(*confine(both, low, 100.0, [propagate_backward(both, signed)]))
    row = propagate_backward(root, unit_rows(CHAIN, 1, FIRST, None, root.like))
    with pytest.raises(ValueError, match="ascending"):
        clipped.minimum(row, pair, np.array([1, 0]), np.zeros((2, 2)))


def test_errors_of_a_selected_entry_are_its_own() -> None:
    bounds = interval(CHAIN, np.array([[1e-9], [1e9]]), np.array([[1.0000001e-9], [1e9]]))
    low = propagate_backward(bounds, unit_rows(CHAIN, 3, np.zeros(2, int), np.arange(2), bounds.like))
    selected = confine(bounds, low, 1e300, [])[0].select(np.array([1]))
    assert all((magnitudes >= 1e9).all() for magnitudes in selected.magnitudes)


def test_facts_are_rounded_outward_to_the_precision_of_the_bounds_they_tighten() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=(1, 200))
    network = dense([(np.eye(200), [0.0] * 200)])
    bounds = interval(network, value, value)
    fact = bounds.units(network.output, np.arange(200))
    tight = tighten(bounds.outward(np.float32), [fact], further=False)
    assert tight.like.dtype == np.float32
    low, high = tight.lower[network.output].astype(float), tight.upper[network.output].astype(float)
    assert (low <= fact.lower).all()
    assert (high >= fact.upper).all()


def test_an_input_set_of_another_size() -> None:
    network = dense([(np.ones((1, 2)), [0.0])])
    with pytest.raises(ValueError, match="1 inputs"):
        interval(network, np.zeros((1, 2)), np.ones((1, 2)), Product((Box.from_floats([0.0], [1.0]),)))


def test_partial_rows_of_units_that_are_none() -> None:
    conv = Conv(np.ones((1, 1, 1, 1)), (4, 4))
    network = Network((Input((1, 1, 4, 4)), Affine((1, 1, 4, 4), (Term(0, conv),))), 1)
    bounds = interval(network, np.zeros((2, 1, 1, 4, 4)), np.ones((2, 1, 1, 4, 4)))
    for unit in (-1, 16):
        with pytest.raises(ValueError, match="no such units"):
            list(parallel_patches(bounds, 1, np.ones(1, int), np.array([unit])))


def test_rows_that_differ_by_less_than_the_precision_of_bounds_are_not_the_same() -> None:
    first, more = dense([([[1.0]], [0.0])]), Dense(np.array([[1.0 + 2.0**-40]]))
    other = Network((*first.nodes[:-1], Affine((1,), (Term(first.nodes[-1].terms[0].source, more),))), first.output)
    sides = np.full((1, 1), 1024.0, np.float32), np.full((1, 1), 1024.0, np.float32)
    with pytest.raises(ValueError, match="not the same"):
        restated(interval(first, *sides), FIRST, interval(other, *sides), FIRST)
