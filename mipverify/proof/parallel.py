"""Both sides of a row by one pass back: where the two lines of every ReLU are parallel [Weng et al. 2018]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from mipverify.network import Affine, Relu
from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array, parameter_like
from mipverify.network.reverse import through_terms, walk_back
from mipverify.proof.backward import Errors, pick
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.proof.recording import entries_passed
from mipverify.proof.rounding import SLACK, constant_terms, dot_terms, floor, gamma, row_dot
from mipverify.proof.rows import Rows

FURTHER = 4  # roundings for two sides beside those for one


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
    zero = xp.zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    constant = zero if rows.constant is None else rows.constant + zero
    passing = ParallelPassing(bounds, samples, constant, Errors.of(bounds, rows, FURTHER))
    a = walk_back(network, rows.coefficients, passing.relu, passing.affine)
    if a is None:
        a = xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    return passing.sides(a, pick(bounds.lower[0], samples), pick(bounds.upper[0], samples))


class ParallelPassing:
    """Rows (R,) on their way back. constant: that of the lower side; spread: what the upper side has on top."""

    def __init__(self, bounds: Bounds, samples: np.ndarray | None, constant: Array, errors: Errors):
        self.bounds, self.samples, self.errors, self.start = bounds, samples, errors, errors.total
        self.constant, self.spread = constant, 0 * constant

    def affine(self, index: int, node: Affine, a: Array) -> Iterator[tuple[int, Array]]:
        """As in `backward`: what the sides have in common goes through the node's terms."""
        self.errors.pass_node(index, a)
        if node.bias is not None:
            self.constant = self.constant + row_dot(a, parameter_like(node.bias, a)[None])
        return through_terms(self.bounds.network, node, a)

    def relu(self, index: int, node: Relu, a: Array) -> Iterator[tuple[int, Array]]:
        """The upper line's slope on both sides: these differ in the offsets."""
        self.errors.pass_node(index, a)
        line = self.bounds.lines[index]
        self.add_offset(a, pick(line.upper_offset, self.samples))
        yield node.source, a * pick(line.upper_slope, self.samples)

    def add_offset(self, a: Array, offset: Array, dot: Callable[[Array, Array], Array] = row_dot) -> None:
        """Both sides' constants take the offsets (R or 1, ...) of upper lines that coefficients (R, ...) met."""
        total = dot(array_namespace(a).abs(a), offset)
        self.constant = self.constant + 0.5 * (dot(a, offset) - total)
        self.spread = self.spread + total

    def sides(self, a: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Lower and upper bounds (R,) of rows with coefficients a (R, ...) of inputs from lower to upper."""
        xp = array_namespace(a)
        positive = xp.clip(a, min=0)
        negative = a - positive
        # Twice: the offsets are summed once with signs and once without. Values that are off change both sides by once.
        error = 2 * (self.errors.total - self.start) + self.start - self.errors.deviations
        size = xp.maximum(xp.abs(lower), xp.abs(upper))
        error = error + gamma(2 * dot_terms(math.prod(a.shape[1:])) + 8, a) * row_dot(positive - negative, size)
        lows = row_dot(positive, lower) + row_dot(negative, upper) + self.constant
        highs = row_dot(positive, upper) + row_dot(negative, lower) + self.constant + self.spread
        small = gamma(constant_terms(self.bounds.network), a)
        error = SLACK * error + small * (xp.abs(lows) + xp.abs(highs) + self.spread) + floor(a)
        lows, highs = lows - error, highs + error
        infinite = xp.inf * xp.ones_like(lows)
        return xp.where(xp.isfinite(lows), lows, -infinite), xp.where(xp.isfinite(highs), highs, infinite)
