"""Small programs with known answers, and brute force over their integers."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from mipverify.formulation import Milp


def program(
    objective: list[float],
    rows: list[list[float]],
    row_lower: list[float],
    row_upper: list[float],
    lower: list[float],
    upper: list[float],
    integer: list[bool] | None = None,
    offset: float = 0.0,
) -> Milp:
    """A Milp from lists."""
    columns = len(objective)
    return Milp(
        np.array(objective, float),
        offset,
        sp.csr_array(np.array(rows, float).reshape(len(rows), columns)),
        np.array(row_lower, float),
        np.array(row_upper, float),
        np.array(lower, float),
        np.array(upper, float),
        np.array(integer if integer is not None else [False] * columns),
    )


def random_relu_program(rng: np.random.Generator, units: int = 5) -> Milp:
    """min c y over y = relu(W x + b), x in a box, written with big-M rows."""
    inputs = 3
    weight, bias = rng.normal(size=(units, inputs)), 0.3 * rng.normal(size=units)
    reach = np.abs(weight).sum(axis=1)
    low, high = bias - reach - 0.1, bias + reach + 0.1
    columns = inputs + 2 * units
    rows, row_lower, row_upper = [], [], []
    for k in range(units):
        y, a = inputs + k, inputs + units + k
        above, below, off = np.zeros(columns), np.zeros(columns), np.zeros(columns)
        above[:inputs], above[y] = -weight[k], 1
        below[:inputs], below[y], below[a] = -weight[k], 1, -low[k]
        off[y], off[a] = 1, -high[k]
        rows += [above, below, off]
        row_lower += [bias[k], -np.inf, -np.inf]
        row_upper += [np.inf, bias[k] - low[k], 0.0]
    objective = np.concatenate([np.zeros(inputs), rng.normal(size=units), np.zeros(units)])
    return Milp(
        objective,
        float(rng.normal()),
        sp.csr_array(np.array(rows)),
        np.array(row_lower),
        np.array(row_upper),
        np.concatenate([-np.ones(inputs), np.zeros(units), np.zeros(units)]),
        np.concatenate([np.ones(inputs), np.maximum(high, 0), np.ones(units)]),
        np.concatenate([np.zeros(inputs + units), np.ones(units)]).astype(bool),
    )


def market_split(rng: np.random.Generator, rows: int, columns: int) -> Milp:
    """min |A x - d| summed over rows, x binary [Cornuejols and Dawande 1998]: small, and beyond branch and bound."""
    matrix = rng.integers(0, 100, (rows, columns)).astype(float)
    sides = np.floor(matrix.sum(axis=1) / 2)
    slack = np.eye(rows)
    return Milp(
        np.concatenate([np.zeros(columns), np.ones(2 * rows)]),
        0.0,
        sp.csr_array(np.concatenate([matrix, slack, -slack], axis=1)),
        sides,
        sides,
        np.zeros(columns + 2 * rows),
        np.concatenate([np.ones(columns), np.full(2 * rows, 1e4)]),
        np.concatenate([np.ones(columns), np.zeros(2 * rows)]).astype(bool),
    )


def by_enumeration(milp: Milp) -> float | None:
    """The minimum over all values of the (binary) integer columns, by SciPy's linear programs; None if infeasible."""
    where = np.flatnonzero(milp.integer)
    best = None
    for values in itertools.product((0.0, 1.0), repeat=len(where)):
        lower, upper = milp.lower.copy(), milp.upper.copy()
        lower[where] = upper[where] = values
        finite_high, finite_low = np.isfinite(milp.row_upper), np.isfinite(milp.row_lower)
        matrix = sp.vstack([milp.matrix[finite_high], -milp.matrix[finite_low]])
        side = np.concatenate([milp.row_upper[finite_high], -milp.row_lower[finite_low]])
        found = scipy.optimize.linprog(milp.objective, matrix, side, bounds=np.stack([lower, upper], axis=1))
        if found.status == 0:
            value = found.fun + milp.offset
            best = value if best is None else min(best, value)
    return best


def dual_value(milp: Milp, multipliers: np.ndarray) -> float:
    """What multipliers (m,) of its rows show of the minimum of a program without integers, as floating point has it."""
    reduced = milp.objective - milp.matrix.T @ multipliers
    sides = np.where(multipliers > 0, milp.row_lower, np.where(multipliers < 0, milp.row_upper, 0.0))
    ends = np.where(reduced > 0, milp.lower, np.where(reduced < 0, milp.upper, 0.0))
    return float(multipliers @ sides + reduced @ ends + milp.offset)
