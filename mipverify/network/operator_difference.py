"""The difference of two linear operators of the same kind, exactly: as operators whose sum it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Identity, Index, Operator, Scale, Sparse, Transposed
from mipverify.network.sparse_linear import SparseLinear


class NotAlikeError(Exception):
    """Two networks do not have the same form."""


def difference(one: Operator, two: Operator) -> list[Operator]:
    """Operators whose sum is `one` less `two`, exactly; none where these are the same map.

    One with the differences of the weights, and a second one for what float64 rounds of these. Where weights stand for
    numbers that were themselves rounded, which the error analysis counts relative to their size, both operators remain.
    Raises NotAlikeError where they are of different kinds.
    """
    if one is two:
        return []
    if one.in_size != two.in_size or one.out_size != two.out_size:
        raise NotAlikeError
    if isinstance(one, Identity) and isinstance(two, Identity):
        return []
    if isinstance(one, Index) and isinstance(two, Index):
        if np.array_equal(one.indices, two.indices):
            return []
        raise NotAlikeError
    if _form(one) != _form(two):
        raise NotAlikeError
    mine, other = _weights(one), _weights(two)
    if not (_exact(one, mine) and _exact(two, other)):
        return [] if np.array_equal(mine, other) and one.terms == two.terms else [one, negated(two)]
    total = mine - other
    part = total - mine
    error = (mine - (total - part)) - (other + part)  # of the difference, exactly [Knuth, TAOCP 2, 4.2.2]
    return [_with_weights(one, weights) for weights in (total, error) if weights.any()]


def negated(operator: Operator) -> Operator:
    """The operator with the other sign."""
    found = _with_weights(operator, -_weights(operator))
    found.terms = max(found.terms, operator.terms)
    return found


def _form(operator: Operator) -> tuple[Any, ...]:
    """All that two operators whose weights can be subtracted have in common."""
    shapes = operator.in_shape, operator.out_shape
    if isinstance(operator, Dense):  # in either way to store it
        return (Dense, *shapes)
    if isinstance(operator, Conv):
        details = operator.strides, operator.pads, operator.dilations, operator.groups, operator.weight.shape
        return (Conv, *shapes, *details)
    if isinstance(operator, Transposed):
        return (Transposed, *_form(operator.inner))
    if isinstance(operator, (Scale, Sparse)):
        return (type(operator), *shapes)
    raise NotAlikeError


def _weights(operator: Operator) -> np.ndarray:
    """The weights in float64; those of a sparse matrix as a dense array."""
    if isinstance(operator, Transposed):
        return _weights(operator.inner)
    if isinstance(operator, Sparse):
        return np.asarray(operator.matrix.toarray(), np.float64)
    return np.array(operator.weight, np.float64)  # type: ignore[attr-defined]  # all that `_form` lets pass have some


def _exact(operator: Operator, weights: np.ndarray) -> bool:
    """Whether the weights are the numbers that they stand for, so that nothing but sums is counted in `terms`."""
    if isinstance(operator, Transposed):
        return _exact(operator.inner, weights)
    counted = _with_weights(operator, weights).terms - 1
    wide = bool((weights.astype(np.float32) != weights).any())  # of which float32 rounds some, which is counted, too
    return operator.terms <= counted + wide


def _with_weights(operator: Operator, weights: np.ndarray) -> Operator:
    """An operator of the same form with other weights."""
    found: Operator
    if isinstance(operator, Transposed):
        return Transposed(_with_weights(operator.inner, weights))
    if isinstance(operator, Conv):
        details = operator.strides, operator.pads, operator.dilations, operator.groups
        height, width = operator.in_shape[2:]
        found = Conv(weights, (height, width), *details)
    elif isinstance(operator, Dense):
        lead = operator.in_shape[:-1]
        found = SparseLinear(weights) if not lead and SparseLinear.fits(weights) else Dense(weights, lead)
    elif isinstance(operator, Scale):
        found = Scale(weights, operator.in_shape)
    elif isinstance(operator, Sparse):
        found = Sparse(weights, operator.in_shape, operator.out_shape)
    else:
        raise NotAlikeError
    found.terms += 1  # of these weights float32 may round some
    return found
