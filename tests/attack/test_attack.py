"""Attacks: gradients are right, points never leave their box, and what is found is where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest

from mipverify.attack.gradient import values_and_gradient
from mipverify.attack.pgd import Attack, descend, pgd
from mipverify.network import Network
from tests.presolve import nets
from tests.soundness.nets import dense

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (6, 10, 8, 3)),
    "skips": lambda rng: nets.dense(rng, (6, 8, 8, 8, 3), skip=True),
    "convolutional": nets.convolutional,
    "linear": lambda rng: nets.dense(rng, (6, 3)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_agree_with_differences(kind: str) -> None:
    rng = np.random.default_rng(1)
    network: Network = NETWORKS[kind](rng)
    x = rng.normal(size=(5, *network.input_shape))
    rows = rng.normal(size=(5, network.output_size))
    values, gradient = values_and_gradient(network, x, rows)
    np.testing.assert_allclose(values, network.forward(x).reshape(5, -1))
    for _ in range(6):
        step = rng.normal(size=x.shape) * 1e-7
        moved, _ = values_and_gradient(network, x + step, rows)
        difference = ((moved - values) * rows).sum(axis=1)
        np.testing.assert_allclose((gradient * step).reshape(5, -1).sum(axis=1), difference, rtol=2e-3, atol=1e-11)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_point_lies_in_the_box_of_its_walk(kind: str) -> None:
    rng = np.random.default_rng(2)
    network: Network = NETWORKS[kind](rng)
    count, n = 12, network.input_size
    lower = rng.normal(size=(count, n)).astype(np.float32)
    width = 10.0 ** rng.uniform(-9, 1, size=(count, n)).astype(np.float32)
    width[:, 0] = 0  # pinned
    upper = (lower + width).astype(np.float32)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        seen.append((walks.copy(), points.copy()))
        return False

    rows = rng.normal(size=(count, network.output_size)).astype(np.float32)
    # Shifted so that every walk hits: all its points are shown.
    start = np.clip(rng.normal(size=(count, n)).astype(np.float32), lower, upper)
    rows *= -np.sign(network.forward(start.reshape(count, *network.input_shape)).reshape(count, -1))
    rows = -np.abs(rows) * np.sign(network.forward(start.reshape(count, *network.input_shape)).reshape(count, -1))
    descend(network, start, lower, upper, rows.astype(np.float32), Attack(steps=15), accept)
    assert len(seen) > 5
    for walks, points in seen:
        assert points.dtype == np.float32
        assert (points >= lower[walks]).all()
        assert (points <= upper[walks]).all()
        values = network.forward(points.reshape(len(points), *network.input_shape)).reshape(len(points), -1)
        assert ((values * rows[walks]).sum(axis=1) <= 1e-4).all()


def test_descent_lowers_what_it_is_asked_to() -> None:
    rng = np.random.default_rng(3)
    network = nets.dense(rng, (20, 30, 20, 3))
    lower, upper = np.full(20, -0.5, np.float32), np.full(20, 0.5, np.float32)
    points: list[np.ndarray] = []

    def look(candidates: np.ndarray) -> None:
        points.append(candidates.copy())

    sampled = network.forward(rng.uniform(-0.5, 0.5, size=(3000, 20)))[:, 1].min()
    shifted = _raised(network, float(sampled))
    found = pgd(shifted, lower, upper, np.array([1]), Attack(restarts=8, steps=30), rng, look)
    assert found is None
    assert points, "three thousand random points are beaten by a gradient"
    best = min(shifted.forward(p)[:, 1].min() for p in points)
    assert best < -0.2
    assert all((p >= lower).all() and (p <= upper).all() and len(p) <= 8 for p in points)


def _raised(network: Network, amount: float) -> Network:
    """The same network with all outputs lowered by an amount."""
    from mipverify.network import Affine

    last = network.nodes[network.output]
    assert isinstance(last, Affine)
    moved = Affine(last.shape, last.terms, (last.bias - np.float32(amount)).astype(np.float32))
    return Network((*network.nodes[:-1], moved), network.output)


def test_the_search_ends_with_the_first_accepted_point() -> None:
    network = dense([([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, -2.0]], [0.25])])
    calls: list[int] = []

    def accept(points: np.ndarray) -> str:
        calls.append(len(points))
        return "witness"

    box = np.zeros(2, np.float32), np.ones(2, np.float32)
    rng = np.random.default_rng(0)
    assert pgd(network, *box, np.array([0]), Attack(), rng, accept, hints=np.array([[0.0, 1.0]])) == "witness"
    assert len(calls) == 1
    positive = dense([([[1.0, 0.0]], [0.0]), ([[1.0]], [0.5])])
    assert pgd(positive, *box, np.array([0]), Attack(), rng, accept) is None
    assert len(calls) == 1


def test_a_stopped_attack_takes_no_more_steps() -> None:
    rng = np.random.default_rng(4)
    network = nets.dense(rng, (6, 10, 3))
    box = np.zeros(6, np.float32), np.ones(6, np.float32)
    polls: list[int] = []

    def stop() -> bool:
        polls.append(1)
        return len(polls) >= 3

    pgd(_raised(network, -1e6), *box, np.array([0]), Attack(steps=50), rng, lambda points: None, stop=stop)
    assert len(polls) == 3
