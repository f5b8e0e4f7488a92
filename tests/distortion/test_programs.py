"""The MILP alone decides l_1 and l_2 balls, the latter by tangents: right below and right above the exact distance."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mipverify.engine.budget import Clock
from mipverify.engine.schedule import CROWN, INTERVAL, MILP_AS_ASKED
from mipverify.engine.state import State
from mipverify.network import Network
from mipverify.specification import Case
from mipverify.specification.norms.l2 import Shares
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from tests.distortion.enumeration import Problem, closest, pieces
from tests.distortion.nets import KINDS, image_of
from tests.engine.calls import course


def ask(network: Network, image: np.ndarray, label: int, norm: str, radius: float) -> State:
    """The program of one ball, and nothing that could decide it before."""
    inputs = Perturbation.around(image, norm=norm).within(radius)
    conditions = misclassified(label, network.output_size, network.input_size)
    case = Case(inputs, conditions)
    found = course(network, case, INTERVAL, CROWN, clock=Clock(20), solver="highs")
    found.state.lower[:] = -1.0
    found.run_stage(MILP_AS_ASKED)
    return found.state


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_decides_around_the_distance(kind: str, norm: str, tmp_path: Path) -> None:
    checked = 0
    for seed in (1, 2):
        network = KINDS[kind](seed, tmp_path)
        image, label = image_of(network, seed)
        problem = Problem.around(image)
        expected = closest(pieces(network, problem), problem, norm, label)
        if not np.isfinite(expected):
            continue
        checked += 1
        below = ask(network, image, label, norm, 0.999 * expected)
        assert below.witness is None
        assert (below.lower > 0).all(), (seed, expected, below.lower, below.reason)
        above = ask(network, image, label, norm, 1.001 * expected)
        assert above.witness is not None, (seed, expected, above.lower, above.reason)
        assert Perturbation.around(image, norm=norm).distance(above.witness.input) <= 1.001 * expected * (1 + 1e-12)
    assert checked


def test_no_tangent_cuts_off_a_point_of_the_ball() -> None:
    rng = np.random.default_rng(0)
    center, scale = rng.random(6).astype(np.float32).astype(np.float64), rng.uniform(0.1, 4, 6)
    scale[2] = 0
    ball = Shares.of(center, scale, Fraction(3, 10), center - scale, center + scale)
    assert len(ball.inputs) == 5
    for _ in range(200):
        step = rng.normal(size=5)
        step /= np.linalg.norm(step)
        v = np.concatenate([center, np.zeros(5)])
        v[ball.inputs] += step * scale[ball.inputs] * 0.3
        v[ball.size :] = ball.place(v) ** 2
        assert v[ball.size :].sum() <= 1 + 1e-12
        for matrix, limit in (ball.first(), ball.touching(rng.uniform(-1, 1, 5)), ball.touching(step)):
            assert len(limit)
            assert (matrix @ v >= limit - 1e-13).all()
        outside = v.copy()
        outside[ball.inputs] += 0.1 * step * scale[ball.inputs]
        cut = ball.tangents(outside)
        assert cut is not None
        assert (cut[0] @ outside < cut[1]).any()
