"""A-priori bounds of floating-point error: what is added so that a computed bound is a bound in exact arithmetic.

For sums of n products, in any order and with or without fused multiply-add, |fl(s) - s| <= gamma(n) sum |a_i b_i| with
gamma(n) = n u / (1 - n u) [Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1]. Everything here
is written for round-to-nearest; `floor` covers underflow.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from mipverify.network.operators import Array, product

# The error terms themselves are computed in rounded arithmetic, from nonnegative numbers only: their relative error is
# gamma(n) of a number of terms far below 1e10, so one per cent covers it.
SLACK = 1.01


def gamma(terms: int, like: Array) -> float:
    """gamma(n) of sums of `terms` products in the dtype of `like`."""
    unit = float(array_namespace(like).finfo(like.dtype).eps) / 2
    relative = terms * unit
    return relative / (1 - relative) if relative < 0.5 else float("inf")


def floor(like: Array) -> float:
    """A number above the sum of all underflow errors of one row or entry, in the dtype of `like`."""
    return float(array_namespace(like).finfo(like.dtype).smallest_normal) * 2.0**20


def ball(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Center and radius of a ball that contains [lower, upper] in exact arithmetic, each of the shape of `lower`."""
    xp = array_namespace(lower)
    center = 0.5 * lower + 0.5 * upper
    radius = xp.maximum(upper - center, center - lower)
    return center, radius * (1 + 4 * float(xp.finfo(lower.dtype).eps)) + floor(lower)


def row_dot(a: Array, b: Array) -> Array:
    """Sum over all but the first axis of a * b; the first axis of b is 1 or that of a. Shape (R,)."""
    a = a.reshape(a.shape[0], -1)
    b = b.reshape(b.shape[0], -1)
    if b.shape[0] == 1:
        return product(a, b[0])
    if isinstance(a, np.ndarray):
        return np.einsum("ri,ri->r", a, b)
    return (a * b).sum(-1)
