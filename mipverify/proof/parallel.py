"""Both sides of a row by one pass back: where the two lines of every ReLU are parallel [Weng et al. 2018]."""

from __future__ import annotations

from collections.abc import Iterator

from array_api_compat import array_namespace

from mipverify.network import Affine, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.network.reverse import through_terms, walk_back
from mipverify.proof.backward import Errors, pick
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.proof.recording import entries_passed
from mipverify.proof.rounding import SLACK, constant_terms, dot_terms, floor, gamma, row_dot
from mipverify.proof.rows import Rows


def both_sides(bounds: Bounds, rows: Rows) -> UnitBounds:
    """Bounds of the entries that rows stand for, with the upper line's slope on both sides.

    The coefficients of the two sides are then the same; they differ in the offsets. Errors as in `propagate_backward`.
    Raises ValueError where the rows do not stand for entries.
    """
    claim = rows.claim
    if claim is None or claim.units.ndim != 1 or not (claim.factors == 1).all():
        raise ValueError("the rows do not stand for single entries")
    lows, highs = _both_sides(bounds, rows)
    how = entries_passed(bounds, claim.node, claim.units, rows.samples, "parallel")
    return UnitBounds(bounds.scope, claim.node, rows.samples, claim.units, lows, highs, seal=SEAL, derivation=how)


def _both_sides(bounds: Bounds, rows: Rows) -> tuple[Array, Array]:
    network, samples, like = bounds.network, rows.samples, rows.like
    xp = array_namespace(like)
    errors = Errors(bounds, rows, 4)  # a few more operations for two sides
    start, passing = errors.total, _Passing(bounds, rows, errors)
    a = walk_back(network, rows.coefficients, passing.relu, passing.affine)
    if a is None:
        a = xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    below, spread = passing.below, passing.spread
    lower, upper = pick(bounds.lower[0], samples), pick(bounds.upper[0], samples)
    positive = xp.clip(a, min=0)
    negative = a - positive
    # Twice: the offsets are summed once with signs and once without, and so is what is uncertain of a node.
    error = 2 * (errors.total - start) + start
    size = xp.maximum(xp.abs(lower), xp.abs(upper))
    error = error + gamma(2 * dot_terms(network.input_size) + 8, like) * row_dot(positive - negative, size)
    lows = row_dot(positive, lower) + row_dot(negative, upper) + below
    highs = row_dot(positive, upper) + row_dot(negative, lower) + below + spread
    small = gamma(constant_terms(network), like)
    error = SLACK * error + small * (xp.abs(lows) + xp.abs(highs) + spread) + floor(like)
    lows, highs = lows - error, highs + error
    infinite = xp.inf * xp.ones_like(lows)
    return xp.where(xp.isfinite(lows), lows, -infinite), xp.where(xp.isfinite(highs), highs, infinite)


class _Passing:
    """Rows on their way back. below: the constant of the lower side; spread: what the upper side has on top."""

    def __init__(self, bounds: Bounds, rows: Rows, errors: Errors):
        self.bounds, self.samples, self.errors = bounds, rows.samples, errors
        zero = array_namespace(rows.like).zeros_like(rows.like.reshape(len(rows), -1)[:, 0])
        self.below = zero if rows.constant is None else rows.constant + zero
        self.spread = zero

    def affine(self, index: int, node: Affine, a: Array) -> Iterator[tuple[int, Array]]:
        """As in `backward`: what the sides have in common goes through the node's terms."""
        self.errors.pass_node(index, a)
        if node.bias is not None:
            self.below = self.below + row_dot(a, parameter_like(node.bias, a)[None])
        return through_terms(self.bounds.network, node, a)

    def relu(self, index: int, node: Relu, a: Array) -> Iterator[tuple[int, Array]]:
        """The upper line's slope on both sides: these differ in the offsets."""
        self.errors.pass_node(index, a)
        line = self.bounds.lines[index]
        offset = pick(line.upper_offset, self.samples)
        total = row_dot(array_namespace(a).abs(a), offset)
        self.below = self.below + 0.5 * (row_dot(a, offset) - total)
        self.spread = self.spread + total
        yield node.source, a * pick(line.upper_slope, self.samples)
