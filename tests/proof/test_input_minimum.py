"""Rows over parts of input sets: the bound is below every point, and tight where it is known."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mipverify.proof.input_minimum import set_minimum
from mipverify.specification.norms import L1, L2, BallNorm
from mipverify.specification.sets import Ball, BallInBox, Box, Constrained, InputSet

NORMS = pytest.mark.parametrize("norm", [L1(), L2()], ids=["l1", "l2"])


def sample(
    ball: Ball, rows: Constrained | None, lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Random points of the set, many on its boundary."""
    points = lower + rng.random((4000, len(lower))) * (upper - lower)
    points = np.concatenate([points, np.where(rng.random(points.shape) < 0.5, lower, points)])
    step = points - ball.center
    far = ball.distance(points)[:, None]
    points = ball.center + step * np.minimum(1, float(ball.radius) / np.maximum(far, 1e-12))
    points = points[((points >= lower - 1e-12) & (points <= upper + 1e-12)).all(axis=1)]
    return points if rows is None else points[(points @ rows.matrix.T <= rows.offset).all(axis=1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([L1(), L2()]), st.booleans(), st.booleans())
def test_the_bound_is_below_every_point(seed: int, norm: BallNorm, rows: bool, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    center = rng.normal(size=n)
    lower, upper = center - rng.random(n) * 2, center + rng.random(n) * 2
    if rng.random() < 0.3:
        lower = lower + 0.7 * (upper - lower)  # a half that may miss the center
    scale = rng.choice([0.0, 0.5, 1.0, 2.0], n) if scaled else np.ones(n)
    ball = Ball(norm, center, Fraction(float(rng.random() * 2 + 0.05)), scale)
    inputs: InputSet = BallInBox(ball, Box.from_floats(lower, upper))
    cut = None
    if rows:
        matrix = rng.normal(size=(2, n))
        inputs = cut = Constrained(inputs, matrix, matrix @ center + rng.random(2))
    a = rng.normal(size=(7, n))
    value, error = set_minimum(inputs, a, lower[None], upper[None])
    points = sample(ball, cut, lower, upper, rng)
    if len(points):
        assert (value - error <= (a @ points.T).min(axis=1) + 1e-12).all()
    assert (error < 1e-5).all()


@NORMS
def test_the_bound_is_the_minimum_over_ball_and_box(norm: BallNorm) -> None:
    rng = np.random.default_rng(3)
    n = 6
    center, a = np.full(n, 0.5), rng.normal(size=(5, n))
    inputs = BallInBox(Ball.around(center, "0.7", norm), Box.from_floats(np.zeros(n), np.ones(n)))
    value, _ = set_minimum(inputs, a, np.zeros((1, n)), np.ones((1, n)))
    point = inputs.propose(a, np.zeros((1, n)), np.ones((1, n))).points
    np.testing.assert_allclose((a * point).sum(axis=1), value, atol=1e-9)
    assert (inputs.ball.distance(point) <= 0.7 + 1e-9).all()


def test_one_inequality_is_used_exactly() -> None:
    rng = np.random.default_rng(5)
    n = 5
    lower, upper = np.zeros(n), np.ones(n)
    for _ in range(20):
        a, row = rng.normal(size=n), rng.normal(size=n)
        limit = float(row @ (0.3 * np.ones(n)))
        inputs = Constrained(Box.from_floats(lower, upper), row[None], np.array([limit]))
        value, _ = set_minimum(inputs, a[None], lower[None], upper[None])
        best = linprog(a, A_ub=row[None], b_ub=[limit], bounds=[(0, 1)] * n).fun
        assert value[0] == pytest.approx(best, abs=1e-8)


def test_membership_is_exact() -> None:
    ball = Ball.around(np.zeros(2, np.float32), "0.5", L1())
    assert ball.contains(np.array([0.25, 0.25], np.float32))
    assert not ball.contains(np.array([0.25, np.nextafter(np.float32(0.25), np.float32(1))], np.float32))
    assert not Ball.around(np.zeros(1), "0.1", L2()).contains(np.array([0.1], np.float32))  # 0.1f is above a tenth


@NORMS
@pytest.mark.parametrize("size", [2.0**30, 2.0**50])
def test_rows_in_float32_are_charged_for_what_the_ball_cancels(norm: BallNorm, size: float) -> None:
    rng = np.random.default_rng(7)
    n = 20
    lower, upper = rng.random(n), 1 + rng.random(n)
    ball = Ball(norm, -size * rng.random(n), Fraction(size) * 2 * n, np.ones(n))
    a = (rng.random((50, n)) + 0.5).astype(np.float32)
    value, error = set_minimum(BallInBox(ball, Box.from_floats(lower, upper)), a, lower[None], upper[None])
    assert value.dtype == error.dtype == np.float32
    for k in range(len(a)):
        least = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[k], lower, strict=True))
        assert Fraction(float(value[k])) - Fraction(float(error[k])) <= least
