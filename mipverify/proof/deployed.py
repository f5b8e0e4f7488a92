"""How far values of a network in float32 may be from what its affine nodes make of others (docs/proofs.md, section 6).

The value of a *block* of affine nodes is a sum of products of stored values with weights. However a runtime evaluates
it, the result differs from that sum by at most gamma(N) times the sum of absolute values, N being the most roundings
that a product takes part in [Higham 2002, 3.1], and by what is lost where numbers underflow.
"""

from __future__ import annotations

from collections.abc import Sequence

from mipverify.network.arrays import array_namespace
from mipverify.network.graph import Affine, Network
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.rounding import SLACK, gamma, rounding_terms

UNIT = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-60  # added to stored values: covers what is flushed to zero, and what is scaled after it underflowed
LOST = 2.0**-100  # above what underflow, to zero or not, loses in one operation, times what is multiplied with later
LARGEST = 2.0**60  # of the sum of absolute values: below it nothing overflows


def deviation(network: Network, lower: Sequence[Array], upper: Sequence[Array], index: int) -> Array | None:
    """By how much the value (B, *shape) of an affine node may differ from its expression where the values that it reads
    lie between these bounds; None where that is nothing, infinite where rounding is not bounded."""
    node = network.nodes[index]
    if not isinstance(node, Affine) or node.rounded is None or node.rounded.open or not node.rounded.roundings:
        return None
    total, lost, _ = _block(network, lower, upper, index)
    count = node.rounded.roundings
    relative = count * UNIT / (1 - count * UNIT) if count * UNIT < 0.5 else float("inf")
    xp = array_namespace(total)
    found = SLACK * (relative * total + lost)
    return xp.where((total <= LARGEST) & (lost <= LARGEST), found, xp.inf * xp.ones_like(found))


def _block(network: Network, lower: Sequence[Array], upper: Sequence[Array], index: int) -> tuple[Array, Array, Array]:
    """The block that ends in a node: the sum of absolute values of its products (B, *shape), what underflow may lose
    (B, *shape), and one plus the sum of all stored values that are read (B,)."""
    node = network.nodes[index]
    assert isinstance(node, Affine)
    assert node.rounded is not None
    like = lower[0]
    xp = array_namespace(like)
    total = lost = xp.zeros((1, *node.shape), dtype=like.dtype)
    read = xp.ones((1,), dtype=like.dtype)
    for term in node.terms:
        source = network.nodes[term.source]
        if isinstance(source, Affine) and source.rounded is not None and source.rounded.open:
            size, more, several = _block(network, lower, upper, term.source)
            lost = lost + _through(term.operator, more, node.shape)
            read = read + several
        else:
            size = xp.maximum(xp.abs(lower[term.source]), xp.abs(upper[term.source])) + TINY
            read = read + xp.sum(xp.reshape(size, (size.shape[0], -1)), axis=1)
        total = total + _through(term.operator, size, node.shape)
    if node.bias is not None:
        bias = abs(node.bias) if node.magnitude is None else node.magnitude
        total = total + parameter_like(bias, like)[None]
    own = LOST * max(1, node.rounded.roundings) * read
    lost = lost + xp.reshape(own, (-1, *[1] * len(node.shape)))
    slack = 1 + 4 * gamma(rounding_terms(node), like)  # sums of numbers none of which is negative
    return slack * total, slack * lost, slack * read


def _through(operator: object, size: Array, shape: tuple[int, ...]) -> Array:
    part = operator.apply_abs(size.reshape(size.shape[0], *operator.in_shape))  # type: ignore[attr-defined]
    return part.reshape(part.shape[0], *shape)
