"""Bounds with cuts hold at sampled points, are tighter than without, and each row's own cuts act like shared ones."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval, optimized_crown
from mipverify.presolve.cutting import SAMPLE, Cutting, cut_tighten
from mipverify.presolve.separation import separate_rows

from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import IdealLayer, OwnCuts, cuttable, relax_with_cuts
from mipverify.proof.reduction import reduce
from tests.presolve import nets

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (5, 12, 10, 8, 2)),
    "skips": lambda rng: nets.dense(rng, (5, 8, 8, 8, 2), skip=True),
    "convolutional": lambda rng: nets.convolutional(rng, 5),
}


def made(kind: str, rng: np.random.Generator, radius: float = 0.7) -> tuple[Network, np.ndarray, np.ndarray]:
    network = NETWORKS[kind](rng)
    center = rng.normal(size=network.input_shape)
    return network, (center - radius)[None], (center + radius)[None]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("reduced", [False, True])
def test_sampled_values_lie_inside(kind: str, reduced: bool) -> None:
    rng = np.random.default_rng(51)
    narrower = []
    for _ in range(4):
        network, lower, upper = made(kind, rng)
        wide = optimized_crown(interval(network, lower, upper))
        start = reduce(wide).bounds if reduced else wide
        own = start.network
        tight = cut_tighten(start, cutting=Cutting(Search(iterations=15), 2, 6))
        values = own.values(nodes_points(rng, lower, upper))
        for node in own.preactivations:
            low, high, seen = (
                side.reshape(len(side), -1) for side in (tight.lower[node], tight.upper[node], values[node])
            )
            slack = 1e-9 * (1 + np.abs(seen))
            assert (seen >= low - slack).all()
            assert (seen <= high + slack).all()
            before = start.upper[node].reshape(-1) - start.lower[node].reshape(-1)
            narrower.append((before - (high - low)[0]).max())
            assert narrower[-1] >= 0
    assert max(narrower) > 1e-3


def nodes_points(rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return nets.points(rng, lower, upper, 400)[:, 0]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("searched", [True, False])
def test_no_point_of_the_box_violates_a_cut_of_any_row(kind: str, searched: bool) -> None:
    """Neither of those that were separated nor of any others: all sets of inputs make a cut."""
    rng = np.random.default_rng(52)
    tight = []
    for _ in range(4):
        network, lower, upper = made(kind, rng)
        bounds = crown(interval(network, lower, upper))
        points = nodes_points(rng, lower, upper)
        values = network.values(points)
        for node in cuttable(network):
            if not bounds.unstable(node).any():
                continue
            layer = IdealLayer.of(bounds, node)
            if searched:
                cuts = random_cuts(layer, bounds.lower[node].size, rng, rows=5)
            else:
                inside = rng.random((5, 6, len(layer.lower))) < rng.random((5, 6, 1))
                cuts = layer.cuts(rng.integers(len(layer.units), size=(5, 6)), inside)
            x, z = (values[k].reshape(len(points), -1) for k in (layer.before, layer.source))
            for row in range(5):
                own = cuts.of_row(row, np.arange(len(cuts)))
                for phase in (x > 0, x >= 0):
                    excess = own.of_units(np.maximum(x, 0)) - own.at(z) - own.step * own.of_units(phase) - own.limit
                    assert excess.max() <= 1e-12
                tight.append(excess.max())
    assert max(tight) > -0.3, "cuts that are far from every point would show no fault"


def test_cuts_are_of_one_layer_and_one_input_set() -> None:
    rng = np.random.default_rng(54)
    network, lower, upper = made("dense", rng)
    here, there = (crown(interval(network, lower - more, upper + more)) for more in (0.0, 0.1))
    first, second, *_ = (node for node in cuttable(network) if here.unstable(node).any())
    cuts = [
        random_cuts(IdealLayer.of(bounds, node), bounds.lower[node].size, rng, rows=2)
        for bounds, node in ((here, first), (here, second), (there, first), (here, first))
    ]
    assert len(cuts[0].join(cuts[3])) == len(cuts[0]) + len(cuts[3])
    for other in cuts[1:3]:
        with pytest.raises(ValueError, match="different layers or input sets"):
            cuts[0].join(other)
    cuts[0].require(here)
    with pytest.raises(ValueError, match="outside of the input set"):
        cuts[0].require(there)
    with pytest.raises(ValueError, match="outside of the input set"):  # rounded ones hold nowhere
        cuts[0].dense(np.float32).require(here)


def random_cuts(layer: IdealLayer, size: int, rng: np.random.Generator, rows: int) -> OwnCuts:
    """Cuts separated at random points, some of them outside of the relaxation."""
    z = layer.lower + rng.random((rows, len(layer.lower))) * (layer.upper - layer.lower)
    x, y, a = rng.normal(size=(rows, size)), rng.exponential(size=(rows, size)), rng.random((rows, size))
    return separate_rows(layer, z, x, y, a, rng.normal(size=(rows, size)), 4)


def test_own_cuts_act_like_shared_ones() -> None:
    rng = np.random.default_rng(53)
    network, lower, upper = made("dense", rng)
    bounds = crown(interval(network, lower, upper))
    node = next(node for node in cuttable(network) if bounds.unstable(node).any())
    layer, size = IdealLayer.of(bounds, node), bounds.lower[node].size
    cuts = random_cuts(layer, size, rng, rows=3)
    cuts = cuts.join(random_cuts(layer, size, rng, rows=3))
    factors = rng.exponential(size=(3, len(cuts)))
    coefficients, slopes = rng.normal(size=(3, size)), rng.random((3, size))
    below, above = (side[layer.before].reshape(1, -1) for side in (bounds.lower, bounds.upper))
    z, y = rng.normal(size=(3, len(layer.lower))), rng.normal(size=(3, size))
    met, gain = relax_with_cuts(cuts, factors, coefficients, below, above, slopes)
    for row in range(3):
        one = slice(row, row + 1)
        shared = cuts.of_row(row, np.arange(len(cuts)))
        other, same = relax_with_cuts(shared, factors[one], coefficients[one], below, above, slopes[one])
        np.testing.assert_allclose(gain[one], same)
        np.testing.assert_allclose(met.slope[one], other.slope)
        np.testing.assert_allclose(cuts.over_source(factors)[one], shared.over_source(factors[one]))
        for magnitude in (False, True):
            np.testing.assert_allclose(cuts.at(z, magnitude=magnitude)[one], shared.at(z[one], magnitude=magnitude))
        np.testing.assert_allclose(cuts.of_units(y)[one], shared.of_units(y[one]))
    held, kept = cuts.held(factors, 2)
    assert (np.sort(kept, axis=1) == np.sort(factors, axis=1)[:, -2:]).all()
    assert held.units.shape == (3, 2)


def test_layers_in_which_a_few_units_gain_too_little_are_left() -> None:
    rng = np.random.default_rng(7)
    network = nets.dense(rng, (6, 30, 40, 4))
    center = rng.normal(size=(6,))
    start = reduce(crown(interval(network, (center - 0.5)[None], (center + 0.5)[None]))).bounds
    node = next(
        node for node in reversed(start.network.preactivations) if np.asarray(start.unstable(node)).sum() > SAMPLE
    )

    def narrower(tight: Bounds) -> int:
        old, new = (bounds.upper[node] - bounds.lower[node] for bounds in (start, tight))
        return int((new < old * (1 - 1e-6)).sum())

    assert narrower(cut_tighten(start, 1e-6)) > SAMPLE
    assert 0 < narrower(cut_tighten(start, 1.0)) <= SAMPLE
