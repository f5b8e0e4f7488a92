"""Both sides of a row by one pass back: where the two lines of every ReLU are parallel [Weng et al. 2018]."""

from __future__ import annotations

from array_api_compat import array_namespace

from mipverify.network import Input, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.backward import Errors, pick
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.proof.rounding import SLACK, constant_terms, floor, gamma, row_dot
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
    return UnitBounds(bounds.scope, claim.node, rows.samples, claim.units, lows, highs, seal=SEAL)


def _both_sides(bounds: Bounds, rows: Rows) -> tuple[Array, Array]:
    network, samples, like = bounds.network, rows.samples, rows.like
    pending = dict(rows.coefficients)
    xp = array_namespace(like)
    zero = xp.zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    below = zero if rows.constant is None else rows.constant + zero
    spread, errors = zero, Errors(bounds, rows, 4)  # a few more operations for two sides
    start = errors.total
    for index in range(max(pending), 0, -1):
        if index not in pending:
            continue
        a, node = pending.pop(index), network.nodes[index]
        errors.pass_node(index, a)
        through: dict[int, Array] = {}
        if isinstance(node, Relu):
            line = bounds.lines[index]
            offset = pick(line.upper_offset, samples)
            total = row_dot(xp.abs(a), offset)
            below = below + 0.5 * (row_dot(a, offset) - total)
            spread = spread + total
            through[node.source] = a * pick(line.upper_slope, samples)
        else:
            assert not isinstance(node, Input)
            if node.bias is not None:
                below = below + row_dot(a, parameter_like(node.bias, like)[None])
            for term in node.terms:
                back = term.operator.adjoint(a.reshape(a.shape[0], *term.operator.out_shape))
                back = back.reshape(back.shape[0], *network.nodes[term.source].shape)
                through[term.source] = through[term.source] + back if term.source in through else back
        for source, back in through.items():
            pending[source] = pending[source] + back if source in pending else back
    a = pending[0] if 0 in pending else xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    lower, upper = pick(bounds.lower[0], samples), pick(bounds.upper[0], samples)
    positive = xp.clip(a, min=0)
    negative = a - positive
    # Twice: the offsets are summed once with signs and once without, and so is what is uncertain of a node.
    error = 2 * (errors.total - start) + start
    size = xp.maximum(xp.abs(lower), xp.abs(upper))
    error = error + gamma(2 * network.input_size + 8, like) * row_dot(positive - negative, size)
    lows = row_dot(positive, lower) + row_dot(negative, upper) + below
    highs = row_dot(positive, upper) + row_dot(negative, lower) + below + spread
    small = gamma(constant_terms(network), like)
    error = SLACK * error + small * (xp.abs(lows) + xp.abs(highs) + spread) + floor(like)
    lows, highs = lows - error, highs + error
    infinite = xp.inf * xp.ones_like(lows)
    return xp.where(xp.isfinite(lows), lows, -infinite), xp.where(xp.isfinite(highs), highs, infinite)
