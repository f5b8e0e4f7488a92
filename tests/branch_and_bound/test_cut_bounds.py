"""Cuts hold at every point of the box, and bounds made with them lie below what sampling finds."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import scipy.sparse as sp
from mipverify.presolve import Search, crown, interval
from mipverify.presolve.separation import separate_rows
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.root_cuts import root_cuts

from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import IdealLayer, LayerCuts, cuttable, relax_with_cuts
from mipverify.proof.facts import SEAL
from mipverify.proof.rows import unit_rows
from tests.branch_and_bound.test_node_bounds import Splits, lowest_inside, node_of, unstable_units
from tests.presolve import nets
from tests.soundness.nets import lowest_sampled

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (5, 12, 10, 2)),
    "skips": lambda rng: nets.dense(rng, (5, 8, 8, 8, 2), skip=True),
    "convolutional": lambda rng: nets.convolutional(rng, 5),
}


def made(kind: str, rng: np.random.Generator, radius: float = 0.5) -> tuple[Network, np.ndarray, np.ndarray]:
    network = NETWORKS[kind](rng)
    center = rng.normal(size=network.input_shape)
    return network, center - radius, center + radius


def joined(one: LayerCuts, other: LayerCuts) -> LayerCuts:
    """The cuts of both, of one layer."""
    parts = (
        np.concatenate(pair) for pair in ((one.units, other.units), (one.step, other.step), (one.limit, other.limit))
    )
    units, step, limit = parts
    matrix = sp.csr_array(sp.vstack([one.matrix, other.matrix], format="csr"))
    return LayerCuts(one.node, one.source, units, matrix, step, limit, one.scope, seal=SEAL)


def random_cuts(bounds: Bounds, rng: np.random.Generator) -> dict[int, LayerCuts]:
    """Cuts that arbitrary points of the relaxation violate: several a layer."""
    network, layers = bounds.network, {}
    for node, source in cuttable(network).items():
        if not bounds.unstable(node).any():
            continue
        below, above = (side[source].reshape(-1) for side in (bounds.lower, bounds.upper))
        x_above = bounds.upper[network.relu_source(node)].reshape(-1)
        share = rng.random((4, len(x_above)))
        z = below + rng.random((4, len(below))) * (above - below)
        y = share * np.maximum(x_above, 0)
        layer = IdealLayer.of(bounds, node)
        own = separate_rows(layer, z, np.zeros_like(y), y, share, -np.ones_like(y), len(layer.units))
        every = np.arange(len(own))
        layers[node] = reduce(joined, (own.of_row(row, every) for row in range(4)))
    return layers


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_point_of_the_box_violates_a_cut(kind: str) -> None:
    rng = np.random.default_rng(41)
    seen, tight = 0, []
    for _ in range(6):
        network, lower, upper = made(kind, rng)
        points = nets.points(rng, lower[None], upper[None], 400)[:, 0]
        values = network.values(points)
        bounds = crown(interval(network, lower[None], upper[None]))
        for node, cuts in random_cuts(bounds, rng).items():
            x = values[network.relu_source(node)].reshape(len(points), -1)[:, cuts.units]
            z = values[cuts.source].reshape(len(points), -1)
            for phase in (x > 0, x >= 0):
                excess = np.maximum(x, 0) - (cuts.matrix @ z.T).T - cuts.step * phase - cuts.limit
                assert excess.max() <= 1e-12
            tight.append(excess.max())
            seen += len(cuts)
    assert seen > 20
    assert max(tight) > -0.3, "cuts that are far from every point would show no fault"


@pytest.mark.parametrize("kind", NETWORKS)
def test_bounds_with_cuts_lie_below_what_sampling_finds(kind: str) -> None:
    rng = np.random.default_rng(42)
    gained = []
    for _ in range(2):
        network, lower, upper = made(kind, rng, 0.8)
        bounds = crown(interval(network, lower[None], upper[None]))
        row = np.eye(network.output_size)[1]
        low = lowest_sampled(network, lower.reshape(-1), upper.reshape(-1), row)
        (cuts,) = root_cuts(bounds, np.array([1]))
        assert cuts.lower <= low + 1e-9 * (1 + abs(low))
        assert (cuts.minimizer >= lower.reshape(-1)).all()
        assert (cuts.minimizer <= upper.reshape(-1)).all()
        gained.append(sum(map(len, cuts.layers.values())))
    assert max(gained) > 0


@pytest.mark.parametrize("kind", NETWORKS)
def test_nodes_with_cuts_of_any_multipliers_lie_below_what_attacks_inside_find(kind: str) -> None:
    rng = np.random.default_rng(43)
    for _ in range(3):
        network, lower, upper = made(kind, rng)
        bounds = crown(interval(network, lower[None], upper[None]))
        rows = unit_rows(network, network.output, np.arange(network.output_size), None, lower)
        layers = random_cuts(bounds, rng)
        bounder = PhaseBounder(bounds, rows, Search(iterations=15), layers)
        units = unstable_units(bounds)
        starts = rng.uniform(lower, upper, size=(6, *lower.shape))
        values, nodes = network.values(starts), []
        for k in range(len(starts)):
            count = len(units) if k % 2 else int(rng.integers(0, 7))
            chosen = [units[i] for i in rng.permutation(len(units))[:count]]
            splits: Splits = tuple(
                (r, u, 1 if values[network.relu_source(r)][k].reshape(-1)[u] >= 0 else -1) for r, u in chosen
            )
            factors = {
                r: (rng.exponential(size=len(c)) * 10.0 ** rng.uniform(-3, 0.5)).astype(np.float32)
                for r, c in layers.items()
            }
            if k < 2:  # of any sign
                factors = {r: own * rng.choice([-1, 1], len(own)).astype(np.float32) for r, own in factors.items()}
            nodes.append(replace(node_of(0, splits), cut_multipliers=factors))
        for iterations in (0, 15):
            solved, _, _ = bounder.solve(nodes, search=replace(bounder.search, iterations=iterations))
            for k, node in enumerate(solved):
                low = lowest_inside(network, lower, upper, node.splits, starts[k], 0, rng)
                assert node.lower <= low + 1e-9 * (1 + abs(low))


def test_the_lines_through_a_layer_lie_below_rows_and_cuts_together() -> None:
    rng = np.random.default_rng(44)
    size, count, rows = 6, 9, 5
    network = nets.dense(rng, (4, size, 1))
    layer = IdealLayer.of(interval(network, np.full((1, 4), -9.0), np.full((1, 4), 9.0)), 2)
    assert len(layer.units) == size
    gaps, steps = [], []
    for _ in range(200):
        lower, upper = -rng.exponential(size=(1, size)), rng.exponential(size=(1, size))
        lower[0, 0], upper[0, 1] = 0.125, -0.125  # an active and an inactive unit
        upper[0, 0], lower[0, 1] = 2.0, -2.0
        own = layer.cuts(rng.integers(0, size, (1, count)), rng.random((1, count, 4)) < 0.5)
        cuts = own.of_row(0, np.arange(count))
        steps.extend(cuts.step)
        multipliers = rng.exponential(size=(rows, count)) * (rng.random((rows, count)) < 0.5)
        coefficients, slopes = rng.normal(size=(rows, size)), rng.random((rows, size))
        met, constant = relax_with_cuts(cuts, multipliers, coefficients, lower, upper, slopes)
        # The least of coefficients @ y + multipliers @ (y - step a - limit) minus the lines, unit by unit, for both a.
        total = np.zeros(rows)
        for unit in range(size):
            low, high = lower[0, unit], upper[0, unit]
            x = np.concatenate([np.linspace(low, high, 41), [np.clip(0.0, low, high)]])
            mine = multipliers * (cuts.units == unit)
            least = np.full(rows, np.inf)
            for phase in (0, 1):
                some = x[x >= 0] if phase else x[x <= 0]
                y = np.maximum(some, 0)
                value = coefficients[:, [unit]] * y + mine.sum(axis=1, keepdims=True) * y
                value = value - (mine @ cuts.step)[:, None] * phase - met.slope[:, [unit]] * some
                least = np.minimum(least, value.min(axis=1, initial=np.inf))
            total += least
        total -= multipliers @ cuts.limit
        assert (constant <= total + 1e-12).all()
        gaps.extend(total - constant)
    assert np.median(gaps) < 1e-9
    assert min(steps) < 0 < max(steps)
