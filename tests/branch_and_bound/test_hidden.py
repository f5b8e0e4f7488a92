"""Hidden bounds by branching contain what sampling finds, and leave only units unstable that really are."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import crown, optimized_crown
from mipverify.solvers.branch_and_bound.hidden import branch_tighten

from tests.presolve import nets

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (3, 8, 8, 6, 2)),
    "skips": lambda rng: nets.dense(rng, (3, 8, 8, 6, 2), skip=True),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_units_that_stay_unstable_take_both_signs(kind: str) -> None:
    settled = 0
    for seed in range(3):
        rng = np.random.default_rng(60 + seed)
        network = NETWORKS[kind](rng)
        center = rng.normal(size=network.input_shape)
        lower, upper = (center - 0.6)[None], (center + 0.6)[None]
        start = optimized_crown(network, lower, upper)
        tight = branch_tighten(network, lower, upper, start.known(), nodes=500)
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
            assert (seen.min(axis=0)[unstable] < 0.02).all()
            assert (seen.max(axis=0)[unstable] > -0.02).all()
            before = (start.lower[node].reshape(-1) < 0) & (start.upper[node].reshape(-1) > 0)
            settled += int(before.sum() - unstable.sum())
    assert settled > 0


def test_stopped_at_once_it_keeps_the_bounds_it_was_given() -> None:
    rng = np.random.default_rng(70)
    network = nets.dense(rng, (3, 8, 8, 2))
    lower, upper = -np.ones((1, 3)), np.ones((1, 3))
    start = crown(network, lower, upper)
    kept = branch_tighten(network, lower, upper, start.known(), stop=lambda: True)
    for node in network.preactivations:
        np.testing.assert_array_equal(kept.lower[node], start.lower[node])
        np.testing.assert_array_equal(kept.upper[node], start.upper[node])
