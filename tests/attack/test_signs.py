"""Signs that gradients find are really taken, and hardly one is missed where it is easy to find."""

from __future__ import annotations

import numpy as np

from mipverify.attack.signs import find_signs
from tests.presolve import nets


def test_signs_are_met_where_points_of_the_box_have_them() -> None:
    rng = np.random.default_rng(4)
    found = missed = 0
    for _ in range(5):
        network = nets.dense(rng, (3, 12, 140))  # more units than are walked for at once
        center = rng.normal(size=3)
        lower, upper = (center - 0.5).astype(np.float32), (center + 0.5).astype(np.float32)
        grid = np.stack(np.meshgrid(*np.linspace(lower, upper, 41).T), axis=-1).reshape(-1, 3)
        values = network.forward(grid).reshape(len(grid), -1)
        units = rng.permutation(140)[:135]
        least, most = values.min(axis=0)[units], values.max(axis=0)[units]
        reach = 0.2  # from one point of the grid to the next
        down, up = find_signs(network, lower, upper, units)
        assert not (down & (least > reach)).any()
        assert not (up & (most < -reach)).any()
        found += int((down & (least < 0)).sum() + (up & (most > 0)).sum())
        missed += int((~down & (least < 0)).sum() + (~up & (most > 0)).sum())
    assert missed < 0.05 * found
