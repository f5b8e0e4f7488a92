"""Hidden bounds by branching contain what sampling finds, and leave hardly a unit unstable that is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mipverify.presolve import crown, interval, optimized_crown, tighten_by_layer
from mipverify.solvers.branch_and_bound import Effort, progressive_tighten, stabilization
from mipverify.solvers.branch_and_bound.search import expand
from mipverify.solvers.branch_and_bound.stabilization import stabilize

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Index
from mipverify.proof.bounds import Bounds, prefix
from mipverify.proof.facts import UnitBounds
from mipverify.proof.interval import tighten
from mipverify.specification.norms import L1
from mipverify.specification.sets import Ball, BallInBox, Box
from tests.presolve import nets
from tests.soundness.nets import dense

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (3, 8, 8, 6, 2)),
    "skips": lambda rng: nets.dense(rng, (3, 8, 8, 6, 2), skip=True),
}


def by_trees_alone(bounds: Bounds, effort: Effort | None = None, *, stop: Callable[[], bool] = lambda: False) -> Bounds:
    """Trees for all units of a network as it is, neither cut nor reduced."""
    rng = np.random.default_rng(0)
    lower, upper = bounds.lower[0], bounds.upper[0]
    points = lower + rng.random((64, *lower.shape[1:])) * (upper - lower)

    def bounder(bounds: Bounds, node: int, _: np.ndarray, units: np.ndarray) -> list[UnitBounds]:
        below = prefix(bounds, node)
        low, high = (side[node].reshape(-1)[units] for side in (bounds.lower, bounds.upper))
        seen = below.network.forward(points).reshape(64, -1)[:, units]
        met = (seen < 0).any(axis=0), (seen > 0).any(axis=0)
        return stabilize(below, units, (low, high), met, effort or Effort(200, 1.0), stop)

    return tighten_by_layer(bounds, bounder)


METHODS = pytest.mark.parametrize("method", [by_trees_alone, progressive_tighten])


@METHODS
@pytest.mark.parametrize("kind", NETWORKS)
def test_nearly_all_units_that_stay_unstable_take_both_signs(kind: str, method: Callable[..., Bounds]) -> None:
    settled, left = 0, 0
    for seed in range(3):
        rng = np.random.default_rng(60 + seed)
        network = NETWORKS[kind](rng)
        center = rng.normal(size=network.input_shape)
        lower, upper = (center - 0.6)[None], (center + 0.6)[None]
        start = optimized_crown(interval(network, lower, upper))
        tight = method(start, Effort(500, 1.0))
        values = network.values(nets.points(rng, lower, upper, 20_000)[:, 0])
        for node in network.preactivations:
            low, high, seen = (
                a.reshape(len(a), -1) for a in (tight.lower[node], tight.upper[node], np.asarray(values[node]))
            )
            slack = 1e-9 * (1 + np.abs(seen).max(axis=0))
            assert (seen.min(axis=0) >= low[0] - slack).all()
            assert (seen.max(axis=0) <= high[0] + slack).all()
            unstable = (low[0] < 0) & (high[0] > 0)
            # Sampling misses a sign only where it is taken in a sliver of the box.
            left += int((unstable & ((seen.min(axis=0) > 0.02) | (seen.max(axis=0) < -0.02))).sum())
            before = (start.lower[node].reshape(-1) < 0) & (start.upper[node].reshape(-1) > 0)
            settled += int(before.sum() - unstable.sum())
    assert settled > 0
    assert left == 0


@METHODS
@pytest.mark.parametrize("most", [2, 6, 12, 24])
def test_trees_that_are_given_up_claim_no_more_than_they_have_shown(most: int, method: Callable[..., Bounds]) -> None:
    rng = np.random.default_rng(90 + most)
    gained, open_ = 0, 0
    for _ in range(3):
        network = nets.dense(rng, (30, 24, 24, 24, 2))  # in so many inputs, signs are not ruled out by sampling
        center = rng.normal(size=network.input_shape)
        lower, upper = (center - 0.15)[None], (center + 0.15)[None]
        start = optimized_crown(interval(network, lower, upper))
        tight = method(start, Effort(most, 1.0))
        corners = rng.choice([-1.0, 1.0], size=(20_000, 30))
        points = np.concatenate([center + 0.15 * corners, center + 0.15 * _towards_ends(network, center)])
        values = network.values(points)
        for node in network.preactivations:
            seen = np.asarray(values[node]).reshape(len(points), -1)
            slack = 1e-9 * (1 + np.abs(seen).max(axis=0))
            assert (seen.min(axis=0) >= tight.lower[node][0] - slack).all()
            assert (seen.max(axis=0) <= tight.upper[node][0] + slack).all()
        gained += int(start.unstable_counts().sum() - tight.unstable_counts().sum())
        open_ += int(tight.unstable_counts().sum())
    assert gained
    assert open_


def test_trees_of_units_that_take_both_signs_are_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    network = nets.dense(rng, (30, 24, 24, 24, 2))
    center = rng.normal(size=30)
    bounds = optimized_crown(interval(network, (center - 0.4)[None], (center + 0.4)[None]))
    below = prefix(bounds, network.preactivations[2])
    values = below.network.forward(center + rng.uniform(-0.4, 0.4, (20_000, 30)))
    units = np.flatnonzero((values.min(axis=0) < 0) & (values.max(axis=0) > 0))
    low, high = (side[below.network.output].reshape(-1)[units] for side in (below.lower, below.upper))
    nodes = []

    def counted(*given: Any) -> Any:
        done = expand(*given)
        nodes.append(len(done.children))
        return done

    monkeypatch.setattr(stabilization, "expand", counted)
    facts = stabilize(below, units, (low, high), (np.zeros(len(units), bool),) * 2, Effort(2000, 1.0))
    assert facts
    assert all((fact.lower < 0).all() and (fact.upper > 0).all() for fact in facts)
    assert len(units) > 10
    assert 50 * len(units) < sum(nodes) < 800 * len(units)


def unit_of(weights: np.ndarray, outer: np.ndarray, constant: float) -> Bounds:
    """Bounds of constant + outer . relu(weights x) over -1 <= x <= 1."""
    network = dense([(weights, np.zeros(len(weights))), (outer[None], [constant])])
    size = (1, weights.shape[1])
    return crown(interval(network, -np.ones(size), np.ones(size)))


def stabilized(bounds: Bounds, monkeypatch: pytest.MonkeyPatch, effort: Effort) -> tuple[Bounds, list[int]]:
    """Bounds with what trees show of the only output, and how many nodes were bounded, level by level."""
    nodes = []

    def counted(*given: Any) -> Any:
        done = expand(*given)
        nodes.append(len(done.children))
        return done

    monkeypatch.setattr(stabilization, "expand", counted)
    known = tuple(side[bounds.network.output].reshape(-1) for side in (bounds.lower, bounds.upper))
    facts = stabilize(bounds, np.zeros(1, int), known, (np.zeros(1, bool), np.ones(1, bool)), effort)
    return tighten(bounds, facts), nodes


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_proves_no_more_than_the_least_value(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is concave is least in a corner of the box.
    rng = np.random.default_rng(seed)
    weights, outer = rng.normal(size=(12, 5)).astype(np.float32), -rng.exponential(size=12).astype(np.float32)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=5)))
    lowest = float((np.maximum(corners @ weights.T.astype(float), 0) @ outer.astype(float)).min())
    for least in (0.05, -0.05):
        bounds = unit_of(weights, outer, np.float32(least - lowest))
        tight, nodes = stabilized(bounds, monkeypatch, Effort(2000, 1.0))
        assert bounds.lower[3][0, 0] < 0
        assert tight.lower[3][0, 0] <= least + 1e-5  # of the constant in float32
        assert (tight.lower[3][0, 0] > 0) == (least > 0)
        assert sum(nodes) > 1


def test_a_node_without_units_to_split_ends_its_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = unit_of(np.eye(3), np.ones(3), -0.125)
    tight, nodes = stabilized(bounds, monkeypatch, Effort(10**6, 1.0))
    assert nodes == [2, 4, 8, 0]
    assert -0.1251 < tight.lower[3][0, 0] <= -0.125


def test_a_tree_that_has_spread_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = unit_of(np.eye(12), np.ones(12), -0.125)
    tight, nodes = stabilized(bounds, monkeypatch, Effort(2000, 1.0))
    assert nodes == [2, 4, 8, 16, 32, 64]  # as many as that, all as far as the farthest
    assert stabilized(bounds, monkeypatch, Effort(4000, 1.0))[1] == [2, 4, 8, 16, 32, 64, 128]
    assert -0.1251 < tight.lower[3][0, 0] <= -0.125


def _towards_ends(network: Network, center: np.ndarray) -> np.ndarray:
    """Corners (C, n) at which linearizations of the hidden units at the center are greatest and least."""
    steps = np.concatenate([np.zeros((1, len(center))), 1e-4 * np.eye(len(center))])
    values = network.values(center + steps)
    slopes = [np.sign(np.asarray(values[i])[1:] - np.asarray(values[i])[:1]).T for i in network.preactivations]
    return np.concatenate([*slopes, *(-s for s in slopes)])


@METHODS
def test_stopped_in_between_it_keeps_what_was_proven_by_then(method: Callable[..., Bounds]) -> None:
    rng = np.random.default_rng(71)
    network = nets.dense(rng, (8, 16, 16, 16, 2))
    lower, upper = np.full((1, 8), -0.5), np.full((1, 8), 0.5)
    start = optimized_crown(interval(network, lower, upper))
    values = network.values(nets.points(rng, lower, upper, 20_000)[:, 0])
    for looks in (2, 5, 10, 20, 40):
        left = iter(range(looks))
        tight = method(start, stop=lambda left=left: next(left, None) is None)
        for node in network.preactivations:
            seen = np.asarray(values[node]).reshape(20_000, -1)
            assert (seen.min(axis=0) >= tight.lower[node][0] - 1e-9).all()
            assert (seen.max(axis=0) <= tight.upper[node][0] + 1e-9).all()


@METHODS
def test_stopped_at_once_it_keeps_the_bounds_it_was_given(method: Callable[..., Bounds]) -> None:
    rng = np.random.default_rng(70)
    network = nets.dense(rng, (3, 8, 8, 2))
    lower, upper = -np.ones((1, 3)), np.ones((1, 3))
    start = crown(interval(network, lower, upper))
    kept = method(start, stop=lambda: True)
    for node in network.preactivations:
        np.testing.assert_array_equal(kept.lower[node], start.lower[node])
        np.testing.assert_array_equal(kept.upper[node], start.upper[node])


@METHODS
def test_doubts_too_small_to_be_scaled_keep_their_bounds(method: Callable[..., Bounds]) -> None:
    pick = Index(np.array([0, 1]), (2,), (2,))
    network = Network(
        (
            Input((2,)),
            Affine((2,), (Term(0, pick),)),
            Relu((2,), 1),
            Affine((1,), (Term(2, Dense(np.ones((1, 2)))),)),
        ),
        3,
    )
    lower, upper = np.full((1, 2), -1e-310), np.ones((1, 2))
    inputs = BallInBox(Ball.around(np.full(2, 0.5), 1, L1()), Box.from_floats(lower, upper))
    tight = method(crown(interval(network, lower, upper, inputs)))
    for side in (*tight.lower, *tight.upper):
        assert np.isfinite(side).all()
