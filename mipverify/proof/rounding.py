"""A-priori bounds of floating-point error: what is added so that a computed bound is a bound in exact arithmetic.

For sums of n products, in any order and with or without fused multiply-add, |fl(s) - s| <= gamma(n) sum |a_i b_i| with
gamma(n) = n u / (1 - n u) [Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1]. Everything here
is written for round-to-nearest; `floor` covers underflow. Which count belongs where: docs/proofs.md, section 2.
"""

from __future__ import annotations

import math

import numpy as np

from mipverify.network import Affine, Network, sources
from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array, product

# The error terms themselves are computed in rounded arithmetic, from nonnegative numbers only: `gamma` covers
# sums as long as its own, this factor the few operations around them.
SLACK = 1.01

DOT_BLOCK = 128  # entries of one block of `row_dot`: about the square root of how many a large layer has


def gamma(terms: int, like: Array) -> float:
    """gamma(n) of sums of `terms` products in the dtype of `like`, infinite where these are too many for it.

    Raised so that it still covers the error when the sum of absolute values that it multiplies was computed in that
    dtype as well, with as many terms, from factors that had been computed likewise.
    """
    relative = terms * float(array_namespace(like).finfo(like.dtype).eps) / 2
    return relative / (1 - 4 * relative) if relative < 0.125 else float("inf")


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
    """Sum over all but the first axis of a * b; the first axis of b is 1 or that of a. Shape (R,).

    In blocks, each added up by itself: a number gathers `dot_terms` roundings and not one for each entry.
    """
    rows, count = a.shape[0], math.prod(a.shape[1:])
    a, b = a.reshape(rows, count), b.reshape(b.shape[0], count)
    if count < 2 * DOT_BLOCK:
        return _products(a, b)
    whole = count - count % DOT_BLOCK
    one, two = (x[:, :whole].reshape(x.shape[0], whole // DOT_BLOCK, DOT_BLOCK) for x in (a, b))
    if isinstance(a, np.ndarray) and b.shape[0] == 1 < rows:
        total = product(one.transpose(1, 0, 2), two[0][:, :, None])[..., 0].sum(0)  # a matrix product for each block
    else:
        total = _products(one, two).sum(1)
    return total + _products(a[:, whole:], b[:, whole:]) if whole < count else total


def _products(a: Array, b: Array) -> Array:
    """Sums over the last axis of a * b (R, ..., n), where the first axis of b may be 1."""
    if not isinstance(a, np.ndarray):
        return (a * b).sum(-1)
    if b.shape[0] == 1 < a.shape[0]:
        return product(a, b[0])
    return np.einsum("r...i,r...i->r...", a, b)


def dot_terms(count: int) -> int:
    """Roundings that a sum of `count` products by `row_dot` gathers."""
    return count if count < 2 * DOT_BLOCK else DOT_BLOCK + count // DOT_BLOCK + 1


def rounding_terms(node: Affine) -> int:
    """Roundings that one entry of an affine node's value, or of a row multiplied by its terms, may gather."""
    return max((term.operator.terms for term in node.terms), default=1) + len(node.terms) + 4


def reads(network: Network, index: int) -> int:
    """Additions that the coefficients of what a node reads may gather: one for each read, one for a row's start."""
    return 1 + max((network.use_counts[source] for source in sources(network.nodes[index])), default=0)


def backward_terms(network: Network, index: int) -> int:
    """Roundings that a row gathers in any one number on its way back through a node, relative to the row's absolute
    values times the node's magnitude.

    A coefficient of a source: the products and sums of the node's own terms, then `reads` additions. The constant: a
    sum over the node's entries by `row_dot`, then an addition for each node on the way.
    """
    node = network.nodes[index]
    own = rounding_terms(node) if isinstance(node, Affine) else 4
    return max(own + reads(network, index), dot_terms(math.prod(node.shape)) + constant_terms(network))


def constant_terms(network: Network) -> int:
    """Additions that a row's constant may gather on its way through a network."""
    return 2 * len(network.nodes) + 12
