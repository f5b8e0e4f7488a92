"""A Milp in units of its own columns: what makes the absolute tolerances of solvers mean the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy

from mipverify.formulation.milp import Milp

RESOLUTION = 1e4  # times a solver's tolerance, relative to the terms of a row: what is smaller may be lost in it


def equilibrated(milp: Milp) -> tuple[Milp, np.ndarray]:
    """The same program over w with v = factors * w, factors (n,), every column of a size of about one.

    Continuous columns are divided by the size of their bounds, rows by their largest coefficient after that, all by
    powers of two, hence without rounding. The objective keeps its values.
    """
    size = np.maximum(np.abs(milp.lower), np.abs(milp.upper))
    factors = np.where(milp.integer, 1.0, _power_of_two(size))
    matrix = scipy.sparse.csr_array(milp.matrix * factors[None, :])
    largest = np.asarray(abs(matrix).max(axis=1).todense()).reshape(-1) if matrix.nnz else np.zeros(milp.rows)
    divisors = _power_of_two(largest)
    scaled = replace(
        milp,
        objective=milp.objective * factors,
        matrix=scipy.sparse.csr_array(matrix / divisors[:, None]),
        row_lower=milp.row_lower / divisors,
        row_upper=milp.row_upper / divisors,
        lower=milp.lower / factors,
        upper=milp.upper / factors,
    )
    return scaled, factors


def _power_of_two(size: np.ndarray) -> np.ndarray:
    """The power of two next to each number; 1 for zero and infinity."""
    usable = np.isfinite(size) & (size > 1e-280) & (size < 1e280)
    return np.where(usable, np.exp2(np.round(np.log2(np.where(usable, size, 1.0)))), 1.0)


def ill_scaled(milp: Milp, tolerance: float) -> bool:
    """Whether an equilibrated program defines a column by terms so much larger that a tolerance hides its value.

    In an equality of `encode` the newest column is the one that the others define.
    """
    equalities = np.flatnonzero(milp.row_lower == milp.row_upper)
    if not len(equalities):
        return False
    rows = milp.matrix[equalities].tocoo()
    newest = np.full(len(equalities), -1)
    np.maximum.at(newest, rows.row, rows.col)
    at = rows.col == newest[rows.row]
    size = np.maximum(np.abs(milp.lower), np.abs(milp.upper))[rows.col[at]]
    return bool((np.abs(rows.data[at]) * size < RESOLUTION * tolerance).any())
