"""Questions of a few units are decided however near to zero their margins are, also with a proof."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.solvers import get_solver
from mipverify.solvers.interface import Limits

from mipverify.engine import verify
from mipverify.engine.schedule import CASCADE, CROWN, INTERVAL, SMALL_PROGRAMS
from mipverify.formulation import encode
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from tests.presolve import nets
from tests.soundness.nets import question

ALONE = (INTERVAL, CROWN, SMALL_PROGRAMS)


def zero(below: float) -> Network:
    """max(x0, max(x1, x2)) - max(max(x0, x1), x2) + below, whose minima lie along all kinks."""

    def larger(count: int, *pairs: tuple[int, int]) -> np.ndarray:
        rows = np.zeros((len(pairs), count))
        for row, (positive, negative) in enumerate(pairs):
            rows[row, positive], rows[row, negative] = 1.0, -1.0
        return rows

    nodes = (
        Input((3,)),
        Affine((2,), (Term(0, Dense(larger(3, (1, 2), (0, 1)))),)),
        Relu((2,), 1),  # max(x1, x2) - x2, max(x0, x1) - x1
        Affine(
            (2,), (Term(0, Dense(np.array([[1.0, 0, -1], [0, 1, -1]]))), Term(2, Dense(np.array([[-1.0, 0], [0, 1]]))))
        ),
        Relu((2,), 3),  # of x0 over the first maximum, of the second one over x2
        Affine(
            (1,),
            (Term(2, Dense(np.array([[1.0, 0.0]]))), Term(4, Dense(np.array([[1.0, -1.0]])))),
            np.array([below]),
        ),
    )
    return Network(nodes, 5)


@pytest.mark.parametrize("proof", [False, True])
def test_a_difference_that_is_zero_everywhere_is_proven_close_to_zero(proof: bool) -> None:
    asked = question(np.full(3, -1.0), np.full(3, 1.0), [[([1.0], Fraction(0))]])
    verdict = verify(zero(1e-9), asked, timeout=30.0, stages=ALONE, proof=proof)
    assert verdict.margin_lower_bound is not None
    assert verdict.margin_lower_bound > 0  # that is all where no file is, which a proof is about
    assert proof or verdict.verdict == "holds"
    assert not verdict.trusted
    assert verdict.statistics["nodes"] < 32
    assert verify(zero(-1e-3), asked, timeout=30.0, stages=ALONE).verdict == "violated"


def test_verdicts_change_at_the_exact_minimum() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 6, 5, 2))
        center = rng.normal(size=4)
        lower, upper = center - 0.6, center + 0.6
        encoding = encode(network, crown(interval(network, lower[None], upper[None])))
        if not encoding.binaries:
            continue
        encoding = encoding.with_binaries(np.ones(encoding.binaries, bool))
        least = get_solver("highs").solve(encoding.minimize(0), limits=Limits(60)).objective
        for step, word in ((-1e-5, "holds"), (1e-5, "violated")):
            asked = question(lower, upper, [[([1.0, 0.0], Fraction(least + step * (1 + abs(least))))]])
            assert verify(network, asked, timeout=30.0, stages=ALONE).verdict == word


def test_they_come_before_the_box_is_halved() -> None:
    names = [stage.name for stage in CASCADE]
    assert names.index("small programs") < names.index("input splitting")
