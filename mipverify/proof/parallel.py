"""Both sides of a row by one pass back: where the two lines of every ReLU are parallel [Weng et al. 2018]."""

from __future__ import annotations

from array_api_compat import array_namespace

from mipverify.network import Affine, Input, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.backward import Relaxed, pick, starting_error
from mipverify.proof.rounding import SLACK, backward_terms, constant_terms, floor, gamma, row_dot
from mipverify.proof.rows import Rows


def both_sides(relaxed: Relaxed, rows: Rows) -> tuple[Array, Array]:
    """Sound bounds (R,), (R,) of each row over its box, with the upper line's slope on both sides.

    The coefficients of the two sides are then the same; they differ in the offsets. Errors as in `pass_back`.
    """
    network, samples, like = relaxed.network, rows.samples, rows.like
    pending = dict(rows.coefficients)
    xp = array_namespace(like)
    zero = xp.zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    below = zero if rows.constant is None else rows.constant + zero
    spread, error = zero, starting_error(relaxed, rows, below)
    for index in range(max(pending), 0, -1):
        if index not in pending:
            continue
        a, node = pending.pop(index), network.nodes[index]
        absolute, through = xp.abs(a), {}
        if isinstance(node, Relu):
            line = relaxed.lines[index]
            offset = pick(line.upper_offset, samples)
            total = row_dot(absolute, offset)
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
        # Twice: at a ReLU the offsets are summed once with signs and once without.
        rounding = 2 * gamma(backward_terms(network, index) + 4, like)
        error = error + rounding * row_dot(absolute, pick(relaxed.magnitudes[index], samples))
        if isinstance(node, Affine) and node.uncertainty is not None:
            error = error + 2 * row_dot(absolute, parameter_like(node.uncertainty, like)[None])
        for source, back in through.items():
            pending[source] = pending[source] + back if source in pending else back
    a = pending[0] if 0 in pending else xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    lower, upper = pick(relaxed.bounds.lower[0], samples), pick(relaxed.bounds.upper[0], samples)
    positive = xp.clip(a, min=0)
    negative = a - positive
    terms = 2 * network.input_size + 8
    error = error + gamma(terms, like) * row_dot(positive - negative, pick(relaxed.magnitudes[0], samples))
    lows = row_dot(positive, lower) + row_dot(negative, upper) + below
    highs = row_dot(positive, upper) + row_dot(negative, lower) + below + spread
    small = gamma(constant_terms(network), like)
    error = SLACK * error + small * (xp.abs(lows) + xp.abs(highs) + spread) + floor(like)
    lows, highs = lows - error, highs + error
    infinite = xp.inf * xp.ones_like(lows)
    return xp.where(xp.isfinite(lows), lows, -infinite), xp.where(xp.isfinite(highs), highs, infinite)
