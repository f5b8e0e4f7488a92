"""Reduced networks: the same function up to their uncertainty, and bounds that hold for the original."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import Relaxed, Search, crown, optimize_rows, reduce, unit_rows
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.network import Affine, Network
from mipverify.proof.backward import row_minimum
from mipverify.proof.parallel import both_sides
from tests.presolve.nets import boxes, convolutional, dense


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [dense, convolutional])
def test_the_reduced_network_is_the_network_on_its_box(kind, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    network = kind(rng)
    lower, upper = (side[:1] for side in boxes(rng, network))
    bounds = crown(network, lower, upper)
    small = reduce(bounds).bounds
    assert sum(np.prod(small.network.nodes[n].shape) for n in small.network.relus) == bounds.unstable_counts().sum()
    x = lower + rng.random((200, *network.input_shape)) * (upper - lower)
    given, wanted = small.network.forward(x).reshape(200, -1), network.forward(x).reshape(200, -1)
    output = small.network.nodes[small.network.output]
    assert isinstance(output, Affine)
    assert output.uncertainty is not None
    assert (np.abs(given - wanted) <= 1e-9 * (1 + np.abs(wanted))).all()
    units = np.arange(network.output_size)
    rows = unit_rows(small.network, small.network.output, units, None, small.lower[0])
    found = optimize_rows(Relaxed(small), rows, Search(iterations=10)).lower
    assert (found <= wanted.min(axis=0)).all()
    whole = optimize_rows(
        Relaxed(bounds), unit_rows(network, network.output, units, None, lower), Search(iterations=0)
    ).lower
    assert (found >= whole - 1e-6 * (1 + np.abs(whole))).all()  # nothing is lost


def test_uncertainty_counts() -> None:
    rng = np.random.default_rng(1)
    network = dense(rng)
    lower, upper = (side[:1] for side in boxes(rng, network))
    small = reduce(crown(network, lower, upper)).bounds
    row = unit_rows(small.network, small.network.output, np.array([0]), None, small.lower[0])
    before = optimize_rows(Relaxed(small), row, Search(iterations=0)).lower[0]
    for node in small.network.nodes:
        if isinstance(node, Affine) and node.uncertainty is not None:
            node.uncertainty[:] += 0.5
    after = optimize_rows(Relaxed(small), row, Search(iterations=0)).lower[0]
    assert after <= before - 0.5 or len(small.network.relus) == 0


def test_bounds_of_a_doubtful_node_leave_its_own_doubt_open() -> None:
    rng = np.random.default_rng(2)
    small = reduce(crown(dense(rng, (4, 10, 3)), np.full((1, 4), -1.0), np.full((1, 4), 1.0))).bounds
    *below, last = small.network.nodes
    doubts, units = np.array([0.5, 0.25, 0.0]), np.arange(3)

    def bound(doubt: np.ndarray) -> list[np.ndarray]:
        network = Network((*below, replace(last, uncertainty=doubt)), len(below))
        bounds = replace(small, network=network)
        relaxed, rows = Relaxed(bounds), unit_rows(network, network.output, units, None, bounds.lower[0])
        nodes, _, _ = PhaseBounder(bounds, rows).solve([root(int(k)) for k in units], Search(iterations=0))
        low, high = both_sides(relaxed, rows)
        again = both_sides(relaxed, rows.negated().negated())[0]
        return [row_minimum(relaxed, rows), -high, low, again, np.array([node.lower for node in nodes])]

    for firm, open_ in zip(bound(np.zeros(3)), bound(doubts), strict=True):
        assert (open_ <= firm - doubts).all()
        np.testing.assert_allclose(open_, firm - doubts, atol=0.02)
