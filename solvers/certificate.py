"""Bounds of linear programs that are proven from any multipliers, in floating-point arithmetic with its errors counted.

For any row multipliers mu, min c v over the feasible set is at least
sum_i mu_i (r_i or R_i) + sum_j min over [lb_j, ub_j] of (c_j - sum_i mu_i A_ij) v_j   [Neumaier and Shcherbina 2004].
Nothing is asked of mu but its sign where a side of a row is infinite, and a wrong sign is set to zero.
"""

from __future__ import annotations

import numpy as np

from mipverify.formulation.milp import Milp
from mipverify.proof.rounding import SLACK, floor, gamma


def certified_bound(milp: Milp, multipliers: np.ndarray, objective: np.ndarray | None = None) -> float:
    """A number at most the minimum of `objective @ v + offset` (the Milp's own by default), for any multipliers (m,).

    -inf where nothing follows; never NaN. Integrality is not used.
    """
    cost = milp.objective if objective is None else np.asarray(objective, np.float64)
    mu = np.where(np.isfinite(multipliers), multipliers, 0.0)
    mu = np.where((mu > 0) & ~np.isfinite(milp.row_lower), 0.0, mu)
    mu = np.where((mu < 0) & ~np.isfinite(milp.row_upper), 0.0, mu)
    side = np.where(mu > 0, milp.row_lower, np.where(mu < 0, milp.row_upper, 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        value, error = _lagrangian(milp, cost, mu, side)
        bound = value - error
    return float(bound) if np.isfinite(bound) else float("-inf")


def _lagrangian(milp: Milp, cost: np.ndarray, mu: np.ndarray, side: np.ndarray) -> tuple[float, float]:
    transposed = milp.matrix.T.tocsr()
    reduced = cost - transposed @ mu
    weight = abs(transposed) @ np.abs(mu) + np.abs(cost)  # what errors in a reduced cost are relative to
    per_column = np.diff(transposed.indptr)
    # |computed - exact reduced cost| of each column; a reduced cost of unknown sign is bounded on both sides.
    terms = int(per_column.max(initial=0)) + 4
    doubt = SLACK * gamma(terms, cost) * weight + floor(cost)
    doubt = np.where(weight == 0, 0.0, doubt)
    low, high = reduced - doubt, reduced + doubt
    # min over v in [lower, upper] and over the reduced cost in [low, high]: at a corner of the two intervals.
    parts = np.minimum.reduce(
        [_times(low, milp.lower), _times(low, milp.upper), _times(high, milp.lower), _times(high, milp.upper)]
    )
    rows = mu * side
    value = rows.sum() + parts.sum() + milp.offset
    size = np.abs(rows).sum() + np.abs(parts).sum() + abs(milp.offset)
    return float(value), float(SLACK * gamma(len(rows) + len(parts) + 8, cost) * size + floor(cost))


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a * b with 0 * inf = 0: a column without cost costs nothing, wherever it goes."""
    return np.where(a == 0, 0.0, a * np.where(a == 0, 0.0, b))


def certified_infeasible(milp: Milp, ray: np.ndarray) -> bool:
    """Whether multipliers (m,) prove that nothing satisfies rows and bounds: zero has a positive bound."""
    zero = np.zeros(milp.columns)
    without = Milp(zero, 0.0, milp.matrix, milp.row_lower, milp.row_upper, milp.lower, milp.upper, milp.integer)
    return certified_bound(without, ray) > 0


def proven_bound(milp: Milp, multipliers: np.ndarray) -> float:
    """A lower bound of the minimum by multipliers (m,); infinite where they prove that there is no point."""
    return float("inf") if certified_infeasible(milp, multipliers) else certified_bound(milp, multipliers)
