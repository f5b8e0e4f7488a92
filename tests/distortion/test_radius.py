"""The least radius at which rows are met is what a program with a column for it says; rows may come later."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from mipverify.attack.radius import RadiusProgram


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
    program = RadiusProgram(low, high)
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
    program = RadiusProgram(np.full(2, -1.0), np.full(2, 1.0))
    program.add(np.array([[1.0, 0.0]]), np.array([-0.5]))
    assert program.solve(0.4) is None
    again = program.solve(0.6)
    assert again is not None
    assert again[0] == pytest.approx(0.5)
