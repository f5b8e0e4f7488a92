"""Programs in which few units are binary decide what programs of all would."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown
from mipverify.solvers import available_solvers, get_solver
from mipverify.solvers.interface import Limits

from mipverify.engine import verify
from mipverify.engine.stages import CASCADE
from mipverify.formulation import encode
from tests.presolve import nets
from tests.soundness.nets import question

PROGRAM = [stage for stage in CASCADE if stage.name in ("interval", "crown", "milp")]


@pytest.mark.parametrize("solver", available_solvers())
def test_verdicts_change_at_the_exact_minimum(solver: str) -> None:
    some = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 10, 10, 2))
        center = rng.normal(size=4)
        lower, upper = center - 0.4, center + 0.4
        encoding = encode(network, crown(network, lower[None], upper[None]))
        least = get_solver("highs").solve(encoding.minimize(0), limits=Limits(60)).objective
        for step, word in ((-0.01, "holds"), (0.01, "violated")):
            offset = Fraction(least + step * (1 + abs(least)))
            asked = question(lower, upper, [[([1.0, 0.0], offset)]])
            verdict = verify(network, asked, timeout=60.0, solver=solver, stages=PROGRAM)
            assert verdict.verdict == word
            some += 0 < verdict.statistics["binaries"] < encoding.binaries
    assert some, "all or nothing was binary each time"
