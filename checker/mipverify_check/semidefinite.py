"""Semidefinite bounds of a margin that reads one layer of unstable units: docs/proof-format.md, section 5.

With x = center + radius y, |y_i| <= 1, the margin is l . y + k + sum_j c_j relu(z_j), z = W y + m. For any kappa_j and
v_j >= 0, c_j relu(z) >= kappa_j z - v_j |z| + e_j, where e_j is the least value of the difference, which is linear on
both sides of 0. What is left to bound from above is sum_j v_j q_j z_j - g . y over signs q_j: at most
(sum alpha + sum beta + eta (U + 1)) / 2, where diag(beta) - C - B diag(1 / alpha) B' is a product L L' but for a matrix
whose rows sum up, in absolute values, to at most eta. Any L will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.bounds import Aim, Beside, Bounds, Walked, walk
from mipverify_check.errors import RejectedError
from mipverify_check.maps import Coefficients
from mipverify_check.network import Relu


@dataclass(frozen=True, eq=False)
class Lifted:
    """The margin and the pre-activations z of the units as functions of y, and what these may be off by.

    slope (n,), constant, loss: of the margin without its units; factors (U,): c. weights (U, n), offsets (U,), losses
    (U,): of z. low, high: intervals of z (U,).
    """

    arithmetic: Arithmetic
    slope: Array
    constant: Array
    loss: Array
    factors: Array
    weights: Array
    offsets: Array
    losses: Array
    low: Array
    high: Array


def lift(bounds: Bounds, margin: Aim, relu: int, units: np.ndarray) -> Lifted:
    """The functions of one row `margin` in which no ReLU is unstable but `units` of the ReLU node `relu`."""
    network, inputs = bounds.network, bounds.set
    if inputs.ball is not None or inputs.matrix is not None:
        raise RejectedError("a semidefinite bound on a set that is no box")
    arithmetic = network.arithmetic
    node = network.nodes[relu]
    assert isinstance(node, Relu)
    captured = arithmetic.zeros((len(units),))

    def exact(k: int, source: int, a: Coefficients) -> tuple[Coefficients, Array, Array, Beside]:
        low, high = bounds.lower[source], bounds.upper[source]
        values = a.dense()
        if k == relu:
            captured[:] = values[units, 0]
            values = values.copy()
            values[units] = arithmetic.array(0)
        active, inactive = low >= 0, high <= 0
        if ((values != 0) & ~(active | inactive)).any():
            raise RejectedError("a semidefinite bound of units in several layers")
        passed = np.where(active, values, arithmetic.array(0))
        size = np.maximum(np.abs(low), np.abs(high))
        return Coefficients(passed), arithmetic.zeros((1, values.shape[1])), (np.abs(passed) * size).sum(0), []

    own = walk(bounds, margin, exact)
    factors = captured.copy()
    reach = np.maximum(np.abs(bounds.lower[relu]), np.abs(bounds.upper[relu]))[units, 0]
    below = walk(bounds, Aim(node.source, units, np.ones(len(units), np.int64)), exact)
    slope, constant, loss = _in_unit_box(bounds, own, (np.abs(factors) * reach).sum())
    weights, offsets, losses = _in_unit_box(bounds, below, arithmetic.array(0))
    low, high = bounds.lower[node.source][units, 0], bounds.upper[node.source][units, 0]
    return Lifted(arithmetic, slope[:, 0], constant[0], loss[0], factors, weights.T, offsets, losses, low, high)


def _in_unit_box(bounds: Bounds, found: Walked, more: Array) -> tuple[Array, Array, Array]:
    """Rows on x as rows on y: coefficients (n, R), constants (R,), and what they may be off by (R,)."""
    arithmetic, low, high = bounds.network.arithmetic, bounds.lower[0], bounds.upper[0]
    center = (low + high) / 2
    radius = np.maximum(high - center, center - low) * (1 + arithmetic.gamma(4)) + arithmetic.floor
    a = found.inputs.dense()
    size = (np.abs(a) * (np.abs(center) + radius)).sum(0)
    loss = found.lost(size + more) + arithmetic.gamma(len(low) + 8) * size
    return a * radius, found.constant[0] + (a * center).sum(0), loss


def least_margin(given: Lifted, signs: np.ndarray, shares: Array, alpha: Array, beta: Array) -> Array:
    """A lower bound of the margin where units have signs (U,) of 1, -1, or 0 for none.

    shares (U,), alpha (n,), beta (U + 1,): evidence; entries below zero count as zero, and alpha must be positive.
    """
    ar = given.arithmetic
    shares, alpha, beta = (np.maximum(ar.array(v), 0) for v in (shares, alpha, beta))
    if not (alpha > 0).all():
        raise RejectedError("a semidefinite bound whose alpha is not positive")
    zero: Array = ar.array(0)
    c = given.factors
    low: Array = np.where(signs > 0, np.maximum(given.low, 0), given.low)
    high: Array = np.where(signs < 0, np.minimum(given.high, 0), given.high)
    share: Array = np.where(signs == 0, np.minimum(shares, 1), shares)
    width: Array = np.where(high > low, high - low, ar.array(1))
    chord = (high + low) / width
    free = np.where(c >= 0, c * share, c / 2 + c * share / 2 * chord)
    kappa: Array = np.where(signs > 0, c - share, np.where(signs < 0, share, free))
    v: Array = np.where((signs == 0) & (c < 0), np.maximum(-c * (1 - share) / 2, 0), zero)
    # The least value of (c - kappa + v) z on [0, high] and of (kappa + v) |z| on [low, 0].
    right = np.minimum((c - kappa + v) * np.maximum(high, 0), 0)
    left = np.minimum((kappa + v) * np.maximum(-low, 0), 0)
    rest = np.minimum(right, left)
    size = (np.abs(c) + np.abs(kappa) + v) * np.maximum(np.abs(low), np.abs(high))
    g = given.slope + kappa @ given.weights
    scale = np.abs(given.slope) + np.abs(kappa) @ np.abs(given.weights)
    constant = given.constant + (kappa * given.offsets).sum() + rest.sum()
    n, units = len(g), len(c)
    charged = np.abs(given.constant) + (np.abs(kappa) * np.abs(given.offsets)).sum() + size.sum()
    lost = given.loss + ((np.abs(kappa) + v) * given.losses).sum() + ar.gamma(units + 12) * (charged + scale.sum())
    used = np.flatnonzero(v > 0)
    b = np.concatenate([v[used, None] * given.weights[used], -g[None]])
    corner = v[used] * given.offsets[used]
    lost = lost + ar.gamma(4) * (np.abs(b).sum() + np.abs(corner).sum())
    beta = beta[[*used, units]]
    top = (alpha.sum() + beta.sum() + _defect(ar, b, corner, alpha, beta) * (len(used) + 1)) / 2
    lost = lost + ar.gamma(n + units + 16) * (np.abs(top) + np.abs(constant)) + ar.floor
    return constant - top - lost * (1 + ar.gamma(64))


def _defect(ar: Arithmetic, b: Array, corner: Array, alpha: Array, beta: Array) -> Array:
    """eta: diag(beta) - C - B diag(1 / alpha) B' + eta is positive semidefinite."""
    inverse = 1 / alpha
    matrix = np.diag(beta) - (b * inverse) @ b.T
    matrix[-1, :-1] = matrix[-1, :-1] - corner
    matrix[:-1, -1] = matrix[:-1, -1] - corner
    try:
        with np.errstate(all="ignore"):
            root = np.linalg.cholesky(matrix.astype(np.float64))
    except np.linalg.LinAlgError:
        raise RejectedError("a matrix of a semidefinite bound is not positive definite") from None
    root = ar.array(root)
    rows = np.abs(matrix - root @ root.T).sum(1)
    sizes = np.abs(b) @ (inverse * np.abs(b).sum(0)) + np.abs(root) @ np.abs(root).sum(0) + beta
    sizes = sizes + np.abs(np.append(corner, ar.array(0))) + np.abs(corner).sum()
    found = rows + ar.gamma(b.shape[0] + b.shape[1] + 16) * (sizes + rows) + ar.floor
    return found.max() if ar.finite(found) else ar.array(np.inf)
