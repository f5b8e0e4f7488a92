"""Every method's bounds contain the values of sampled points and corners, in every node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mipverify.presolve import Bounds, Relaxed, Search, crown, fast_lin, interval, optimized_crown, pass_back, unit_rows
from mipverify.presolve.linear import lp_tighten
from mipverify.solvers import certified_program

from mipverify.network import Network
from mipverify.proof.backward import minimum_over_box
from tests.presolve.nets import boxes, convolutional, dense, points

METHODS: dict[str, Callable[..., Bounds]] = {
    "interval": interval,
    "fast_lin": fast_lin,
    "crown": crown,
    "optimized_crown": lambda *box: optimized_crown(*box, search=Search(iterations=4)),
    "lp": lambda *box: lp_tighten(*box, certified_program, crown(*box).known()),
}
NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": dense,
    "skip": lambda rng: dense(rng, (4, 8, 8, 8, 3), skip=True),
    "convolutional": convolutional,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_sampled_points_lie_inside_every_bound(method: str, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network)
    bounds = METHODS[method](network, lower, upper)
    for box in range(len(lower)):
        values = network.values(points(rng, lower[box], upper[box], 300))
        for node, value in enumerate(values):
            tolerance = 1e-9 * (1 + np.abs(value))  # the sampled values are themselves rounded
            assert (bounds.lower[node][box] <= value + tolerance).all(), (node, network.nodes[node])
            assert (bounds.upper[node][box] >= value - tolerance).all(), (node, network.nodes[node])


@pytest.mark.parametrize("kind", NETWORKS)
def test_sharper_methods_leave_fewer_unstable_units(kind: str) -> None:
    rng = np.random.default_rng(5)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network, radius=0.1)
    counts = [METHODS[name](network, lower, upper).unstable_counts().sum() for name in METHODS]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_bounds_do_not_depend_on_the_rest_of_the_batch(kind: str) -> None:
    rng = np.random.default_rng(6)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network)
    together = crown(network, lower, upper)
    for box in range(len(lower)):
        alone = crown(network, lower[box : box + 1], upper[box : box + 1])
        for node in network.preactivations:
            np.testing.assert_allclose(together.lower[node][box], alone.lower[node][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_any_slope_and_any_multiplier_of_the_right_sign_is_sound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = dense(rng, (3, 10, 8, 2))
    lower, upper = boxes(rng, network, count=1, radius=0.5)
    bounds = crown(network, lower, upper)
    relaxed = Relaxed(bounds)
    rows = unit_rows(network, network.output, np.arange(2), None, lower)
    slopes = {node: rng.random((2, *network.nodes[node].shape)) for node in network.relus}
    signs = {
        node: rng.integers(-1, 2, size=network.nodes[node].shape) * bounds.unstable(node)[0] for node in network.relus
    }
    multipliers = {node: np.stack([sign * rng.random(sign.shape)] * 2) for node, sign in signs.items()}
    reached = pass_back(relaxed, rows, slopes=slopes, multipliers=multipliers)
    bound = minimum_over_box(relaxed, reached, None)
    x = points(rng, lower[0], upper[0], 4000)
    values = network.values(x)
    inside = np.ones(len(x), bool)
    for node, sign in signs.items():
        inside &= (sign * values[network.relu_source(node)] >= 0).all(axis=1)
    assert inside.sum() >= 0
    assert (values[network.output][inside] >= bound - 1e-9).all()


def test_published_facts() -> None:
    """x in [-1, 1]^2, A1 = [[1, -.5], [-.5, 1]], ReLU, A2 = [[1, -1], [1, -1]]: interval arithmetic gives +-3 / 2."""
    from mipverify.network import Affine, Input, Relu, Term
    from mipverify.network.operators import Dense

    first = np.array([[1, -0.5], [-0.5, 1]], np.float32)
    second = np.array([[1, -1], [1, -1]], np.float32)
    nodes = (
        Input((2,)),
        Affine((2,), (Term(0, Dense(first)),)),
        Relu((2,), 1),
        Affine((2,), (Term(2, Dense(second)),)),
    )
    network = Network(nodes, 3)
    box = -np.ones((1, 2)), np.ones((1, 2))
    naive, sharp = interval(network, *box), crown(network, *box)
    np.testing.assert_allclose(naive.upper[3], 1.5, atol=1e-9)
    assert (sharp.upper[3] <= naive.upper[3]).all()
    best = network.forward(points(np.random.default_rng(0), box[0][0], box[1][0], 2000)).max()
    assert best <= sharp.upper[3].max()


def test_cancellation_does_not_fool_the_bounds() -> None:
    """1e16 + 1 - 1e16 is 1 in exact arithmetic and may be 0 or 2 in floating point: the bounds must contain it."""
    from mipverify.network import Affine, Input, Term
    from mipverify.network.operators import Dense

    weight = np.array([[1e16, 1.0, -1e16]])
    network = Network((Input((3,)), Affine((1,), (Term(0, Dense(weight)),))), 1)
    one = np.ones((1, 3))
    bounds = interval(network, one, one)
    assert bounds.lower[1].item() <= 1.0 <= bounds.upper[1].item()
    relaxed = Relaxed(bounds)
    rows = unit_rows(network, 1, np.array([0]), None, one)
    assert minimum_over_box(relaxed, pass_back(relaxed, rows), None)[0] <= 1.0


@pytest.mark.parametrize("method", METHODS)
def test_overflow_proves_nothing(method: str) -> None:
    rng = np.random.default_rng(3)
    network = dense(rng, (3, 6, 6, 2))
    for node in network.nodes:
        for term in getattr(node, "terms", ()):
            term.operator.weight = term.operator.weight.astype(np.float64) * 1e200
    lower, upper = boxes(rng, network, count=1)
    with np.errstate(all="ignore"):
        bounds = METHODS[method](network, lower, upper)
        rows = unit_rows(network, network.output, np.arange(2), None, lower)
        relaxed = Relaxed(bounds)
        found = minimum_over_box(relaxed, pass_back(relaxed, rows), None)
    assert not bounds.finite()[0] or np.isneginf(found).all() or np.isfinite(found).all()
