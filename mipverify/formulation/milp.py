"""A mixed-integer linear program as plain arrays: where formulation ends and solvers begin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy


@dataclass(frozen=True, eq=False)
class Milp:
    """Minimize objective @ v + offset over row_lower <= matrix @ v <= row_upper, lower <= v <= upper.

    objective, lower, upper, integer: (n,). matrix: scipy.sparse csr_array (m, n). row_lower, row_upper: (m,), infinite
    where a side is free. Raises ValueError where shapes differ, an entry is NaN, or bounds of a column cross.
    """

    objective: np.ndarray
    offset: float
    matrix: Any
    row_lower: np.ndarray
    row_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    integer: np.ndarray

    def __post_init__(self) -> None:
        rows, columns = self.matrix.shape
        for name, size in (("objective", columns), ("lower", columns), ("upper", columns), ("integer", columns)):
            self._check(name, size)
        for name in ("row_lower", "row_upper"):
            self._check(name, rows)
        if np.isnan(self.matrix.data).any():
            raise ValueError("matrix has a NaN entry")
        crossed = np.flatnonzero(self.lower > self.upper)
        if len(crossed):
            j = crossed[0]
            raise ValueError(f"column {j} has lower bound {self.lower[j]} above its upper bound {self.upper[j]}")

    def _check(self, name: str, size: int) -> None:
        array = getattr(self, name)
        if array.shape != (size,):
            raise ValueError(f"{name} has shape {array.shape}, not ({size},)")
        bad = np.flatnonzero(np.isnan(array.astype(np.float64)))
        if len(bad):
            raise ValueError(f"{name} is NaN at {bad[0]}")

    @property
    def columns(self) -> int:
        """Number of columns n."""
        return int(self.matrix.shape[1])

    @property
    def rows(self) -> int:
        """Number of rows m."""
        return int(self.matrix.shape[0])

    def with_objective(self, objective: np.ndarray, offset: float = 0.0) -> Milp:
        """The same feasible set under another objective."""
        return replace(self, objective=np.asarray(objective, np.float64), offset=float(offset))

    def with_rows(self, matrix: Any, lower: np.ndarray, upper: np.ndarray) -> Milp:
        """The same with more rows `lower <= matrix @ v <= upper`."""
        return replace(
            self,
            matrix=scipy.sparse.csr_array(scipy.sparse.vstack([self.matrix, matrix], format="csr")),
            row_lower=np.concatenate([self.row_lower, lower]),
            row_upper=np.concatenate([self.row_upper, upper]),
        )

    def with_columns(self, lower: np.ndarray, upper: np.ndarray) -> Milp:
        """The same with more continuous columns between `lower` and `upper`, in no row and at no cost."""
        shape = (self.rows, self.columns + len(lower))
        return replace(
            self,
            objective=np.concatenate([self.objective, np.zeros(len(lower))]),
            matrix=scipy.sparse.csr_array((self.matrix.data, self.matrix.indices, self.matrix.indptr), shape=shape),
            lower=np.concatenate([self.lower, lower]),
            upper=np.concatenate([self.upper, upper]),
            integer=np.concatenate([self.integer, np.zeros(len(lower), bool)]),
        )

    def relaxed(self) -> Milp:
        """The linear relaxation: integrality dropped."""
        return replace(self, integer=np.zeros_like(self.integer))

    def evaluate(self, v: np.ndarray) -> tuple[float, float, float]:
        """Objective, largest violation of a row or bound, and largest distance of an integer column from an integer."""
        activity = self.matrix @ v
        gaps = (self.row_lower - activity, activity - self.row_upper, self.lower - v, v - self.upper)
        violation = max((float(gap.max(initial=0.0)) for gap in gaps), default=0.0)
        fractions = np.abs(v - np.round(v))[self.integer]
        return float(self.objective @ v + self.offset), violation, float(fractions.max(initial=0.0))

    def __repr__(self) -> str:
        return f"Milp({self.columns} columns, {int(self.integer.sum())} integer, {self.rows} rows)"
