"""The shortest step that meets rows is what a program for all of it says; rows may come later."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.solvers import lp_session
from scipy.optimize import linprog

from mipverify.attack.least_step import LeastRadius, step_program
from mipverify.specification.norms import L1


def expected(matrix: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    count = len(low)
    ends = np.vstack([np.hstack([sign * np.eye(count), -np.ones((count, 1))]) for sign in (1, -1)])
    rows = np.vstack([np.hstack([-matrix, np.zeros((len(matrix), 1))]), ends])
    limits = np.column_stack([np.append(low, 0), np.append(high, np.inf)])
    solved = linprog(
        np.append(np.zeros(count), 1.0), A_ub=rows, b_ub=np.append(value, np.zeros(2 * count)), bounds=limits
    )
    return float(solved.fun) if solved.status == 0 else np.inf


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_a_column_for_the_radius(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = -rng.uniform(0, 1, 8), rng.uniform(0, 1, 8)
    low[0] = high[0] = 0
    matrix = rng.normal(size=(6, 8))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    value = rng.uniform(-0.8, 0.4, 6)
    program = LeastRadius(low, high, lp_session())
    for part in (slice(0, 2), slice(2, 6)):
        program.add(matrix[part], value[part])
        radius = expected(matrix[: part.stop], value[: part.stop], low, high)
        step = program.solve(np.inf)
        if np.isinf(radius):
            assert step is None
            return
        assert step is not None
        assert np.abs(step).max() == pytest.approx(radius, abs=1e-7)
        assert (matrix[: part.stop] @ step + value[: part.stop] >= -1e-8).all()
        assert (step >= low).all()
        assert (step <= high).all()


def test_gives_up_beyond_a_limit() -> None:
    program = LeastRadius(np.full(2, -1.0), np.full(2, 1.0), lp_session())
    program.add(np.array([[1.0, 0.0]]), np.array([-0.5]))
    assert program.solve(0.4) is None
    again = program.solve(0.6)
    assert again is not None
    assert again[0] == pytest.approx(0.5)


def least_sum(matrix: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    limits = np.column_stack([np.zeros(2 * len(low)), np.concatenate([high, -low])])
    solved = linprog(np.ones(2 * len(low)), A_ub=np.column_stack([-matrix, matrix]), b_ub=value, bounds=limits)
    return float(solved.fun) if solved.status == 0 else np.inf


@pytest.mark.parametrize("seed", range(12))
def test_the_least_sum_agrees_with_a_program_for_all_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = -rng.uniform(0, 1, 8), rng.uniform(0, 1, 8)
    matrix, value = rng.normal(size=(6, 8)), rng.uniform(-0.8, 0.4, 6)
    program = step_program(L1(), low, high, lp_session)
    for part in (slice(0, 2), slice(2, 6)):
        program.add(matrix[part], value[part])
        least, step = least_sum(matrix[: part.stop], value[: part.stop], low, high), program.solve(np.inf)
        if np.isinf(least):
            assert step is None
            return
        assert step is not None
        assert np.abs(step).sum() == pytest.approx(least, abs=1e-7)
        assert (matrix[: part.stop] @ step + value[: part.stop] >= -1e-8).all()
        if least > 1e-6:
            assert program.solve(0.99 * least) is None
