"""The shortest step that meets linear rows, in l_inf, l_1 or l_2, as more rows come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from mipverify.formulation.lp import LpSession
from mipverify.formulation.milp import Milp
from mipverify.specification.norms import L1, L2, Linf, Norm

NEWTON_STEPS = 60  # of the radius in l_inf; a few suffice, for how far rows must be relaxed is piecewise linear in it
MET = 1e-10  # a relaxation of the rows this small is none
FLAT = -1e-12  # a slope of the relaxation in the radius from which no radius will do
BEYOND = 1e-9  # relative, by which a Newton step goes too far, so that rounding does not stop short of the end
SECONDS = 10.0  # for one program; most take milliseconds
LIMIT_ROUNDS = 30  # in which limits of coordinates enter the l_2 problem
OUTSIDE = 1e-9  # of a limit, from which a coordinate is beyond it


class StepProgram(Protocol):
    """The step w, low <= w <= high (n,), with rows matrix @ w + value >= 0 and least norm."""

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        """More rows (m, n), (m,)."""

    def solve(self, limit: float) -> np.ndarray | None:
        """The step; None where there is none, or none of a norm up to `limit`."""


def step_program(norm: Norm, low: np.ndarray, high: np.ndarray, open_session: Callable[[], LpSession]) -> StepProgram:
    """The program of a norm."""
    match norm:
        case Linf():
            return LeastRadius(low, high, open_session())
        case L1():
            return LeastSum(low, high, open_session())
        case L2():
            return LeastSquare(low, high)
    raise NotImplementedError(f"no program finds the shortest step in the norm {norm.name}")


class LeastRadius:
    """The step of least l_inf norm: linear programs in its coordinates and in how far all rows are relaxed.

    Newton's method on the radius: how far the rows must be relaxed is convex in it, and the multipliers of the box tell
    the slope. A box is kinder to the simplex method than a column for the radius, and the dual simplex method goes on
    from the last basis when the box or the rows change.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, session: LpSession):
        self.low, self.high, self.radius, self._session = low, high, 0.0, session
        costs = np.append(np.zeros(len(low)), 1.0)
        session.open(_without_rows(costs, np.append(np.zeros(len(low)), -1.0), np.append(np.zeros(len(low)), np.inf)))

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        """More rows (m, n), (m,)."""
        count = len(matrix)
        self._session.add_rows(np.column_stack([matrix, np.ones(count)]), -value, np.full(count, np.inf))

    def solve(self, limit: float) -> np.ndarray | None:
        """The step; None where there is none, or none of a norm up to `limit`."""
        for _ in range(NEWTON_STEPS):
            bottom, top = np.maximum(self.low, -self.radius), np.minimum(self.high, self.radius)
            self._session.set_bounds(np.append(bottom, -1.0), np.append(top, np.inf))
            answer = self._session.solve(SECONDS)
            if not answer.optimal or answer.point is None or answer.reduced is None:
                return None
            step, cost = answer.point, answer.reduced[:-1]
            if step[-1] <= MET:
                return step[:-1]
            rate = np.minimum(cost, 0)[self.high > self.radius].sum()
            rate -= np.maximum(cost, 0)[self.low < -self.radius].sum()
            if rate >= FLAT:
                return None
            self.radius -= (step[-1] * (1 + BEYOND) - FLAT) / rate
            if self.radius > limit:
                return None
        return None


class LeastSum:
    """The step of least l_1 norm: a linear program in the steps up and down, which goes on as rows come in."""

    def __init__(self, low: np.ndarray, high: np.ndarray, session: LpSession):
        self._session = session
        session.open(_without_rows(np.ones(2 * len(low)), np.zeros(2 * len(low)), np.concatenate([high, -low])))

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        """More rows (m, n), (m,)."""
        self._session.add_rows(np.column_stack([matrix, -matrix]), -value, np.full(len(matrix), np.inf))

    def solve(self, limit: float) -> np.ndarray | None:
        """The step; None where there is none, or none of a norm up to `limit`."""
        answer = self._session.solve(SECONDS)
        if not answer.optimal or answer.point is None:
            return None
        up, down = np.split(answer.point, 2)
        step = np.asarray(up - down)
        return step if np.abs(step).sum() <= limit else None


def _without_rows(costs: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Milp:
    import scipy.sparse as sp

    empty = np.zeros(0)
    matrix = sp.csr_array((0, len(costs)))
    return Milp(costs, 0.0, matrix, empty, empty, lower, upper, np.zeros(len(costs), bool))


class LeastSquare:
    """The step of least l_2 norm, as the least-distance problem of Lawson and Hanson [Solving Least Squares Problems,
    1974, chapter 23], to which limits are added as they turn out to matter; solved anew when rows come in."""

    def __init__(self, low: np.ndarray, high: np.ndarray):
        self.low, self.high = low, high
        self.matrix, self.value = np.zeros((0, len(low))), np.zeros(0)

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        """More rows (m, n), (m,)."""
        self.matrix, self.value = np.concatenate([self.matrix, matrix]), np.concatenate([self.value, value])

    def solve(self, limit: float) -> np.ndarray | None:
        """The step; None where there is none, or none of a norm up to `limit`."""
        from scipy.optimize import nnls

        low, high, sides = self.low, self.high, list[tuple[int, float]]()
        for _ in range(LIMIT_ROUNDS):
            limits = np.zeros((len(sides), len(low)))
            for row, (index, sign) in enumerate(sides):
                limits[row, index] = sign
            ends = [low[index] if sign > 0 else -high[index] for index, sign in sides]
            system = np.vstack([np.concatenate([self.matrix, limits]).T, np.concatenate([-self.value, ends])])
            wanted = np.zeros(len(system))
            wanted[-1] = 1
            try:
                weights, _ = nnls(system, wanted, maxiter=20 * system.shape[1])
            except RuntimeError:
                return None
            residual = system @ weights - wanted
            if residual[-1] > -1e-12:  # the rows contradict each other
                return None
            step = -residual[:-1] / residual[-1]
            over = [(int(i), 1.0) for i in np.flatnonzero(step < low - OUTSIDE)]
            over += [(int(i), -1.0) for i in np.flatnonzero(step > high + OUTSIDE)]
            if not over:
                step = np.clip(step, low, high)
                return step if np.linalg.norm(step) <= limit else None
            sides += [side for side in over if side not in sides]
        return None
