"""The program of a reduced network, with cuts, has the minimum that the whole network's program has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.solvers import get_solver
from mipverify.solvers.branch_and_bound.root_cuts import root_cuts
from mipverify.solvers.interface import Limits

from mipverify.formulation import encode
from mipverify.network import Affine, Network
from mipverify.proof.reduction import reduce
from tests.presolve import nets

HIGHS = get_solver("highs")


@pytest.mark.parametrize("seed", range(6))
def test_the_minimum_is_that_of_the_whole_network(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (5, 14, 12, 2)) if seed % 2 else nets.convolutional(rng)
    center = rng.normal(size=network.input_shape)
    radius = 0.4 if seed % 2 else 0.02
    bounds = crown(interval(network, center[None] - radius, center[None] + radius))
    small = reduce(bounds).bounds
    whole, reduced = encode(network, bounds), encode(small.network, small)
    assert 0 < reduced.binaries <= whole.binaries
    outputs = np.arange(2)
    for output, cuts in zip(outputs, root_cuts(small, outputs), strict=True):
        expected = HIGHS.solve(whole.minimize(int(output)), limits=Limits(30.0)).objective
        with_cuts = reduced.with_cuts(cuts.layers)
        assert with_cuts.milp.rows == reduced.milp.rows + sum(len(layer) for layer in cuts.layers.values())
        found = HIGHS.solve(with_cuts.minimize(int(output)), limits=Limits(30.0)).objective
        assert found == pytest.approx(expected, abs=1e-5 * (1 + abs(expected)))
        # What branch and bound proves at its root, the relaxation with the same cuts reaches as well.
        relaxed = HIGHS.solve(with_cuts.minimize(int(output)).relaxed(), limits=Limits(30.0)).objective
        assert cuts.lower - 1e-5 * (1 + abs(expected)) <= relaxed <= expected + 1e-5 * (1 + abs(expected))


def test_what_multiplying_out_may_have_lost_is_left_open() -> None:
    rng = np.random.default_rng(1)
    box = np.full((1, 4), -1.0), np.full((1, 4), 1.0)
    small = reduce(crown(interval(nets.dense(rng, (4, 8, 1)), *box))).bounds
    exact = HIGHS.solve(encode(small.network, small).minimize(0), limits=Limits(30.0)).objective
    doubtful = tuple(
        replace(node, error_bound=np.full(node.shape, 0.25))
        if isinstance(node, Affine) and node.bias is not None
        else node
        for node in small.network.nodes
    )
    loose = Network(doubtful, small.network.output)
    found = HIGHS.solve(encode(loose, crown(interval(loose, *box))).minimize(0), limits=Limits(30.0)).objective
    assert found <= exact - 0.25 + 1e-6
