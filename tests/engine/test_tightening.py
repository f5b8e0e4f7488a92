"""The passes over hidden bounds within a question: they hold at all its inputs, and end with its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from mipverify.engine.bounding import crown_bounds, interval_bounds, tighten_harder, tighten_progressively
from mipverify.engine.budget import Clock
from mipverify.engine.policy import harder_tightening_pays, hidden_cuts_pay
from mipverify.engine.question import Question
from mipverify.network import Network
from mipverify.network.replay import replay_of
from tests.presolve import nets
from tests.soundness.nets import question as box_question

PASSES = pytest.mark.parametrize("tighten", [tighten_progressively, tighten_harder])


def asked(widths: tuple[int, ...], radius: float, seconds: float) -> tuple[Question, np.ndarray]:
    """Whether either output comes below its least value at some inputs, and those inputs (N, n)."""
    rng = np.random.default_rng(7)
    network = nets.dense(rng, widths)
    center = rng.normal(size=widths[0])
    lower, upper = center - radius, center + radius
    points = nets.points(rng, lower[None], upper[None], 20_000)[:, 0]
    least = network.forward(points).min(axis=0)
    conditions = [[(np.eye(2)[i].tolist(), Fraction(float(least[i] - 0.01)))] for i in range(2)]
    case = box_question(lower, upper, conditions).cases[0]
    question = Question(network, case, replay_of(network), Clock(seconds), np.random.default_rng(0))
    interval_bounds(question)
    crown_bounds(question)
    return question, points


def assert_inside(question: Question, network: Network, points: np.ndarray) -> None:
    assert question.bounds is not None
    values = network.values(points)
    for node in network.preactivations:
        seen = np.asarray(values[node]).reshape(len(points), -1)
        slack = 1e-9 * (1 + np.abs(seen).max(axis=0))
        assert (seen.min(axis=0) >= question.bounds.lower[node].reshape(-1) - slack).all()
        assert (seen.max(axis=0) <= question.bounds.upper[node].reshape(-1) + slack).all()


@PASSES
def test_passes_settle_signs_and_keep_every_input(tighten: Callable[[Question], None]) -> None:
    question, points = asked((6, 16, 16, 16, 2), 0.4, 120)
    assert question.bounds is not None
    before, bound = question.bounds.unstable_counts().sum(), question.lower.copy()
    tighten(question)
    assert question.bounds.unstable_counts().sum() < before
    assert (question.lower >= bound).all()
    assert (question.lower > bound).any()
    margins = question.margins.forward(points)
    assert (margins >= question.lower - 1e-9).all()
    assert_inside(question, question.margins, points)
    assert question.notes


@PASSES
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_passes_end_with_the_time_of_the_question(tighten: Callable[[Question], None], seconds: float) -> None:
    question, points = asked((40, 64, 64, 64, 64, 2), 0.2, 60)
    question.clock = Clock(seconds)
    begin = time.perf_counter()
    tighten(question)
    assert time.perf_counter() - begin < seconds + 5  # what is begun is not cut in the middle of a matrix
    assert_inside(question, question.margins, points)


def test_each_pass_is_made_once() -> None:
    question, _ = asked((6, 12, 12, 2), 0.3, 60)
    tighten_progressively(question)
    assert not hidden_cuts_pay(question)
    tighten_harder(question)
    assert not harder_tightening_pays(question)
