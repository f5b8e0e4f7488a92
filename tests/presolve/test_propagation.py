"""Propagation keeps every point at which all rows are not positive, and finds out where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.presolve.layered import Layered
from mipverify.presolve.propagation import Propagation

from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.presolve import nets


def made(seed: int, rng: np.random.Generator):
    """A reduced network of several layers whose outputs are the rows, what propagates them, and its whole box."""
    network = nets.dense(rng, (4, 9, 8, 7, 3))
    lower, upper = nets.boxes(rng, network, 1, radius=0.6)
    bounds = reduce(crown(interval(network, lower, upper))).bounds
    layered = Layered.of(bounds.network, np.float64)
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(3), None, bounds.like)
    ((_, coefficients),) = rows.coefficients.items()
    own = [bounds.network.relu_source(relu) for relu in layered.relus]
    sides = [np.concatenate([side[node].reshape(-1) for node in own]) for side in (bounds.lower, bounds.upper)]
    return bounds, layered, coefficients.reshape(3, -1), rows.constant, sides


def values(bounds, layered, points):
    """Pre-activations (P, N) and outputs (P, 3) at points."""
    found = bounds.network.values(points.reshape(len(points), *bounds.network.input_shape))
    own = [found[bounds.network.relu_source(relu)].reshape(len(points), -1) for relu in layered.relus]
    return np.concatenate(own, axis=1), found[bounds.network.output].reshape(len(points), -1)


@pytest.mark.parametrize("seed", range(12))
def test_no_point_that_meets_the_rows_and_phases_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds, layered, rows, constant, sides = made(seed, rng)
    low, high = bounds.lower[0].reshape(-1), bounds.upper[0].reshape(-1)
    points = rng.uniform(low, high, (4000, len(low)))
    z, outputs = values(bounds, layered, points)
    limit = np.quantile(outputs, 0.2, axis=0)
    propagation = Propagation(layered, rows, constant - limit)
    # With phases that some point has, and without.
    meets = (outputs <= limit).all(axis=1)
    chosen = np.flatnonzero(meets)[:20]
    domains = propagation.start(low, high, *sides).take(np.zeros(len(chosen) + 1, int))
    fixed = rng.random((len(chosen), z.shape[1])) < 0.3
    positive = z[chosen] > 0
    domains.lower[:-1][fixed & positive] = np.maximum(domains.lower[:-1], 0)[fixed & positive]
    domains.upper[:-1][fixed & ~positive] = np.minimum(domains.upper[:-1], 0)[fixed & ~positive]
    asked = domains.take(np.arange(len(chosen) + 1))
    propagation.tighten(domains)
    for k in range(len(domains.empty)):
        inside = meets & ((z >= asked.lower[k]) & (z <= asked.upper[k])).all(axis=1)
        assert not (inside.any() and domains.empty[k])
        for found, least, most in ((points, domains.low, domains.high), (z, domains.lower, domains.upper)):
            assert (found[inside] >= least[k] - 1e-6).all()
            assert (found[inside] <= most[k] + 1e-6).all()


def test_rows_below_all_values_leave_nothing() -> None:
    rng = np.random.default_rng(0)
    bounds, layered, rows, constant, sides = made(0, rng)
    low, high = bounds.lower[0].reshape(-1), bounds.upper[0].reshape(-1)
    least = bounds.lower[bounds.network.output].reshape(-1)
    domains = Propagation(layered, rows, constant - least + 100).start(low, high, *sides)
    Propagation(layered, rows, constant - least + 100).tighten(domains)
    assert domains.empty.all()


def test_clauses_are_followed_through() -> None:
    """x0 fixed at 0 makes x1 one, and that x2 zero: (x0 or x1) and (not x1 or not x2), each as a row by itself."""
    clauses, bias = np.array([[-1.0, -1.0, 0.0], [0.0, 1.0, 1.0]]), np.array([1.0, -1.0])
    layered = Layered((2,), (0, 2), clauses, np.zeros((2, 2)), bias, np.zeros(2), {0: 0})
    propagation = Propagation(layered, np.array([[0.0, 0, 0, 1, 1]]), np.zeros(1))
    domains = propagation.start(np.zeros(3), np.array([0.0, 1, 1]), np.array([-1.0, -1]), np.ones(2))
    propagation.tighten(domains)
    np.testing.assert_allclose(domains.low[0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(domains.high[0], [0, 1, 0], atol=1e-6)
