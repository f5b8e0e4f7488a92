"""The passes over intermediate bounds within a question: they hold at all its inputs, and end with its time."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.schedule import CROWN, CUT_SAMPLE, FURTHER_PASSES, INTERVAL, PROGRESSIVE_TIGHTENING
from mipverify.engine.stage import Stage
from mipverify.network import Network
from tests.engine.calls import course
from tests.presolve import nets
from tests.soundness.nets import question as box_question

PASSES = pytest.mark.parametrize("tighten", [PROGRESSIVE_TIGHTENING, FURTHER_PASSES])


def asked(widths: tuple[int, ...], radius: float, seconds: float) -> tuple[Course, np.ndarray]:
    """Whether either output comes below its least value at some inputs, and those inputs (N, n)."""
    rng = np.random.default_rng(7)
    network = nets.dense(rng, widths)
    center = rng.normal(size=widths[0])
    lower, upper = center - radius, center + radius
    points = nets.points(rng, lower[None], upper[None], 20_000)[:, 0]
    least = network.forward(points).min(axis=0)
    conditions = [[(np.eye(2)[i].tolist(), Fraction(float(least[i] - 0.01)))] for i in range(2)]
    case = box_question(lower, upper, conditions).cases[0]
    return course(network, case, INTERVAL, CROWN, clock=Clock(seconds)), points


def assert_inside(found: Course, network: Network, points: np.ndarray) -> None:
    assert found.state.bounds is not None
    values = network.values(points)
    for node in network.preactivations:
        seen = np.asarray(values[node]).reshape(len(points), -1)
        slack = 1e-9 * (1 + np.abs(seen).max(axis=0))
        assert (seen.min(axis=0) >= found.state.bounds.lower[node].reshape(-1) - slack).all()
        assert (seen.max(axis=0) <= found.state.bounds.upper[node].reshape(-1) + slack).all()


@PASSES
def test_passes_settle_signs_and_keep_every_input(tighten: Stage) -> None:
    found, points = asked((6, 16, 16, 16, 2), 0.4, 120)
    assert found.state.bounds is not None
    before, bound = found.state.bounds.unstable_counts().sum(), found.state.lower.copy()
    found.run_stage(tighten)
    assert found.state.bounds.unstable_counts().sum() < before
    assert (found.state.lower >= bound).all()
    assert (found.state.lower > bound).any()
    margins = found.problem.margins.forward(points)
    assert (margins >= found.state.lower - 1e-9).all()
    assert_inside(found, found.problem.margins, points)
    assert found.steps[-1].stage == tighten.name


@PASSES
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_passes_end_with_the_time_of_the_question(tighten: Stage, seconds: float) -> None:
    found, points = asked((40, 64, 64, 64, 64, 2), 0.2, 60)
    found.clock = Clock(seconds)
    begin = time.perf_counter()
    found.run_stage(tighten)
    assert time.perf_counter() - begin < seconds + 5  # what is begun is not cut in the middle of a matrix
    assert_inside(found, found.problem.margins, points)


def test_each_pass_is_made_once() -> None:
    found, _ = asked((6, 12, 12, 2), 0.3, 60)
    for stage in (CUT_SAMPLE, PROGRESSIVE_TIGHTENING, FURTHER_PASSES):
        found.run_stage(stage)
    assert PROGRESSIVE_TIGHTENING.applies(found.problem, found.state) is None
    assert FURTHER_PASSES.applies(found.problem, found.state) is None
