"""Reduced networks: the same function up to their error bounds, and bounds that hold for the original."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval, optimize_rows
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.network import Affine, Network
from mipverify.proof.backward import row_minimum, unit_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import tighten
from mipverify.proof.parallel import both_sides
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.presolve.nets import boxes, convolutional, dense, points


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [dense, convolutional])
def test_the_reduced_network_is_the_network_on_its_box(kind, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    network = kind(rng)
    lower, upper = (side[:1] for side in boxes(rng, network))
    bounds = crown(interval(network, lower, upper))
    small = reduce(bounds).bounds
    assert sum(np.prod(small.network.nodes[n].shape) for n in small.network.relus) == bounds.unstable_counts().sum()
    x = lower + rng.random((200, *network.input_shape)) * (upper - lower)
    given, wanted = small.network.forward(x).reshape(200, -1), network.forward(x).reshape(200, -1)
    output = small.network.nodes[small.network.output]
    assert isinstance(output, Affine)
    assert output.error_bound is not None
    assert (np.abs(given - wanted) <= 1e-9 * (1 + np.abs(wanted))).all()
    units = np.arange(network.output_size)
    rows = unit_rows(small.network, small.network.output, units, None, small.like)
    found = optimize_rows(small, rows, Search(iterations=10)).lower
    assert (found <= wanted.min(axis=0)).all()
    whole = row_minimum(bounds, unit_rows(network, network.output, units, None, lower)).lower
    assert (found >= whole - 1e-6 * (1 + np.abs(whole))).all()  # nothing is lost


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [dense, convolutional])
def test_facts_about_the_reduced_network_are_facts_about_the_original(kind, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    network = kind(rng)
    lower, upper = boxes(rng, network, 1, radius=0.6)
    bounds = interval(network, lower, upper)
    reduced = reduce(bounds)
    tight = crown(reduced.bounds)
    small, outputs = tight.network, np.arange(network.output_size)
    hidden = tighten(bounds, reduced.lifted(tight))
    assert sum((hidden.upper[n] < bounds.upper[n] - 1e-3).sum() for n in network.preactivations)
    rows = unit_rows(small, small.output, outputs, None, tight.like)
    both = reduced.lifted_outputs(unit_minimum(tight, small.output, None, outputs))
    above = reduced.lifted_rows(row_minimum(tight, rows.negated()))
    values = network.values(points(rng, lower, upper, 1000)[:, 0])
    for node, value in enumerate(values):
        slack = 1e-9 * (1 + np.abs(value))
        assert (hidden.lower[node] <= value + slack).all()
        assert (hidden.upper[node] >= value - slack).all()
    seen = values[network.output].reshape(1000, -1)
    assert (both.lower <= seen.min(axis=0) + 1e-9).all()
    assert (both.upper >= seen.max(axis=0) - 1e-9).all()
    assert (above.lower <= -seen.max(axis=0) + 1e-9).all()
    assert above.claim is not None
    assert (above.claim.node, above.claim.factors.tolist()) == (network.output, [-1.0] * len(outputs))
    assert above.scope is both.scope is bounds.scope
    # The names of units are those of the original: later bounds are tightened by them as well.
    assert (tighten(bounds, [both]).upper[network.output].reshape(-1) == np.minimum(
        both.upper, bounds.upper[network.output].reshape(-1)
    )).all()  # fmt: skip


def test_facts_about_something_else_are_not_lifted() -> None:
    rng = np.random.default_rng(9)
    network = dense(rng)
    lower, upper = (side[:1] for side in boxes(rng, network))
    bounds = interval(network, lower, upper)
    reduced, again = reduce(bounds), reduce(bounds)
    outputs = np.arange(network.output_size)
    small, hidden = reduced.bounds.network, reduced.layers[0][0]

    def rows_of(own: Bounds, node: int, units: np.ndarray):  # type: ignore[no-untyped-def]
        return row_minimum(own, unit_rows(own.network, node, units, None, own.like))

    for other in (again.bounds, interval(small, lower, upper), bounds):
        with pytest.raises(ValueError, match="other input sets"):
            reduced.lifted(other)
        with pytest.raises(ValueError, match="other input sets"):
            reduced.lifted_rows(rows_of(other, other.network.output, outputs))
        with pytest.raises(ValueError, match="other input sets"):
            reduced.lifted_outputs(unit_minimum(other, other.network.output, None, outputs))
    with pytest.raises(ValueError, match="outputs of the reduced network"):
        reduced.lifted_rows(rows_of(reduced.bounds, hidden, np.arange(1)))
    with pytest.raises(ValueError, match="no outputs"):
        reduced.lifted_outputs(unit_minimum(reduced.bounds, hidden, None, np.arange(1)))
    with pytest.raises(ValueError, match="other input sets"):  # not lifted at all
        tighten(bounds, [unit_minimum(reduced.bounds, small.output, None, outputs)])


def test_error_bounds_count() -> None:
    """Bounds hold whatever a node's values are within its error bound, here of all nodes of a reduced network."""
    rng = np.random.default_rng(1)
    network = dense(rng)
    lower, upper = (side[:1] for side in boxes(rng, network))
    small = reduce(crown(interval(network, lower, upper))).bounds.network
    assert len(small.relus)

    def changed(deviation: float, signs: bool = False) -> Network:
        nodes = []
        for node in small.nodes:
            if isinstance(node, Affine) and node.error_bound is not None:
                moved = deviation * rng.choice([-1.0, 1.0], node.shape)
                bias = node.bias + moved if signs else node.bias
                node = replace(node, bias=bias, error_bound=np.full(node.shape, deviation))
            nodes.append(node)
        return Network(tuple(nodes), small.output, input_name=small.input_name)

    def bound(network: Network) -> np.ndarray:
        own = crown(interval(network, lower, upper))
        rows = unit_rows(network, network.output, np.arange(network.output_size), None, own.like)
        return optimize_rows(own, rows, Search(iterations=0)).lower

    before, after = bound(changed(0.0)), bound(changed(0.5))
    assert (after <= before - 0.5).all()
    x = points(rng, lower, upper, 500)[:, 0]
    seen = np.min([changed(0.5, signs=True).forward(x).min(axis=0) for _ in range(50)], axis=0)
    assert (seen < before).any(), "deviations that stay above the bounds would show no fault"
    assert (after <= seen).all()


def test_bounds_of_a_doubtful_node_leave_its_own_doubt_open() -> None:
    rng = np.random.default_rng(2)
    box = np.full((1, 4), -1.0), np.full((1, 4), 1.0)
    small = reduce(crown(interval(dense(rng, (4, 10, 3)), *box))).bounds
    *below, last = small.network.nodes
    ratios, units = np.array([0.5, 0.25, 0.0]), np.arange(3)

    def bound(doubt: np.ndarray) -> list[np.ndarray]:
        network = Network((*below, replace(last, error_bound=doubt)), len(below))
        bounds = crown(interval(network, *box))
        rows = unit_rows(network, network.output, units, None, bounds.like)
        nodes, _, _ = PhaseBounder(bounds, rows).solve([root(int(k)) for k in units], Search(iterations=0))
        two = both_sides(bounds, rows)
        again = both_sides(bounds, rows.negated().negated()).lower
        negative = -row_minimum(bounds, rows.negated()).lower
        doubled = row_minimum(bounds, rows.scaled(np.full(3, 2.0))).lower / 2
        lows = row_minimum(bounds, rows).lower, two.lower, again, doubled, np.array([node.lower for node in nodes])
        return [*lows, -two.upper, -negative]

    for firm, open_ in zip(bound(np.zeros(3)), bound(ratios), strict=True):
        assert (open_ <= firm - ratios).all()
        np.testing.assert_allclose(open_, firm - ratios, atol=0.02)
