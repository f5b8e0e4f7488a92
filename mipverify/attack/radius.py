"""The least radius of a box that meets linear rows: a linear program, warm-started as the box and the rows grow."""

from __future__ import annotations

from typing import Any

import numpy as np

STEPS = 60
MET = 1e-10  # a relaxation of the rows this small is none


class RadiusProgram:
    """The step w, low <= w <= high (n,), with rows matrix @ w + value >= 0 and least l_inf norm.

    Newton's method on the radius: how far the rows must be relaxed is convex in it, and the multipliers of the box tell
    the slope. A box is kinder to the simplex method than a column for the radius, and the dual simplex method goes on
    from the last basis when the box or the rows change.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray):
        import highspy

        self.low, self.high, self.radius = low, high, 0.0
        self._columns = np.arange(len(low), dtype=np.int32)
        self._engine = engine = highspy.Highs()
        for option, value in (("output_flag", False), ("threads", 1), ("presolve", "off"), ("solver", "simplex")):
            engine.setOptionValue(option, value)
        engine.setOptionValue("primal_feasibility_tolerance", 1e-9)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(low) + 1, 0
        model.col_cost_ = np.append(np.zeros(len(low)), 1.0)
        model.col_lower_ = np.append(np.zeros(len(low)), -1.0)
        model.col_upper_ = np.append(np.zeros(len(low)), highspy.kHighsInf)
        engine.passModel(model)
        self._optimal: Any = highspy.HighsModelStatus.kOptimal

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        """More rows (m, n), (m,)."""
        import highspy

        count, width = len(matrix), matrix.shape[1] + 1
        entries = np.column_stack([matrix, np.ones(count)])
        starts = np.arange(count, dtype=np.int32) * width
        index = np.tile(np.arange(width, dtype=np.int32), count)
        top = np.full(count, highspy.kHighsInf)
        self._engine.addRows(count, -value, top, entries.size, starts, index, entries.reshape(-1))

    def solve(self, limit: float) -> np.ndarray | None:
        """The step; None where there is none, or none of a norm up to `limit`."""
        for _ in range(STEPS):
            bottom, top = np.maximum(self.low, -self.radius), np.minimum(self.high, self.radius)
            self._engine.changeColsBounds(len(bottom), self._columns, bottom, top)
            self._engine.run()
            if self._engine.getModelStatus() != self._optimal:
                return None
            solution = self._engine.getSolution()
            step = np.asarray(solution.col_value)
            if step[-1] <= MET:
                return step[:-1]
            cost = np.asarray(solution.col_dual)[:-1]  # below zero at an upper bound, above it at a lower one
            rate = np.minimum(cost, 0)[self.high > self.radius].sum()
            rate -= np.maximum(cost, 0)[self.low < -self.radius].sum()
            if rate >= -1e-12:
                return None
            self.radius -= (step[-1] * (1 + 1e-9) + 1e-12) / rate
            if self.radius > limit:
                return None
        return None
