"""Maxima and minima as balanced trees of ReLUs: max(a, b) = b + relu(a - b)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mipverify.network.builder import Builder, Tensor, Value
from mipverify.network.operators import Identity, Index, Operator, Sparse
from mipverify.network.rewrites.activation import bounded, never_acts
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@rewrite("Max", "Min")
def extremum(builder: Builder, node: OnnxNode) -> Tensor:
    """Entrywise maximum or minimum of tensors and constants."""
    values = [node.present(i) for i in range(len(node.inputs))]
    return extremum_of(builder, values, 1.0 if node.operator == "Max" else -1.0)


def extremum_of(builder: Builder, values: Sequence[Value], sign: float) -> Tensor:
    """The entrywise maximum (sign 1) or minimum (sign -1) of values that broadcast, at least one of them a tensor."""
    shape = np.broadcast_shapes(*(value.shape for value in values))
    tensors = [builder.broadcast(value, shape) for value in values if isinstance(value, Tensor)]
    constants = [value for value in values if not isinstance(value, Tensor)]
    while len(tensors) > 1:
        pairs = [tensors[i : i + 2] for i in range(0, len(tensors), 2)]
        tensors = [of_two(builder, pair[0], pair[1], sign) if len(pair) == 2 else pair[0] for pair in pairs]
    if not constants:
        return tensors[0]
    bound = constants[0]
    for constant in constants[1:]:
        bound = np.maximum(bound, constant) if sign > 0 else np.minimum(bound, constant)
    return against_constant(builder, tensors[0], bound, sign)


def of_two(builder: Builder, a: Tensor, b: Tensor, sign: float) -> Tensor:
    """max(a, b) = b + relu(a - b) for sign 1; min(a, b) = b - relu(b - a) for sign -1."""
    beyond = builder.relu(builder.combine([(a, sign), (b, -sign)]))
    return builder.combine([(b, 1.0), (beyond, sign)])


def against_constant(builder: Builder, x: Tensor, bound: np.ndarray, sign: float) -> Tensor:
    """max(x, bound) for sign 1, min(x, bound) for sign -1; entries whose bound never acts stay as they are."""
    bound = np.broadcast_to(bound, x.shape)
    acting = np.flatnonzero(~never_acts(bound, sign))
    if not len(acting):
        return x
    limit = bound.reshape(-1)[acting].astype(np.float64)
    part = builder.move(x, acting) if len(acting) < x.size else x.viewed((x.size,))
    result = bounded(builder, part, limit, sign)
    if len(acting) == x.size:
        return result.viewed(x.shape)
    indices = np.arange(x.size)
    indices[acting] = x.size + np.arange(len(acting))
    return builder.join([x, result], indices.reshape(x.shape))


def tournament(builder: Builder, x: Tensor, candidates: np.ndarray) -> Tensor:
    """Maxima over the columns of `candidates` (k, m), flat positions in x -> tensor (m,).

    One ReLU node for each round: the candidates of a column are paired, the winners go on.
    """
    while len(candidates) > 1:
        pairs, columns = len(candidates) // 2, candidates.shape[1]
        first, second = candidates[: 2 * pairs : 2], candidates[1 : 2 * pairs : 2]
        # Padded windows name a candidate twice: x - x has no entries, and its ReLU is stable.
        difference = builder.affine([(x, _difference(first, second, x))], (pairs, columns))
        beyond = builder.relu(difference)
        rest = candidates[2 * pairs :]  # the odd one, if any, goes on as it is
        shape = (pairs + len(rest), columns)
        base = Index(np.concatenate([second, rest]), x.shape, shape)
        gain: Operator = Identity(shape)
        if len(rest):
            own = np.arange(pairs * columns)
            gain = Index(np.concatenate([own, np.full(columns, -1)]), beyond.shape, shape)
        x = builder.affine([(x, base), (beyond, gain)], shape)
        candidates = np.arange(x.size).reshape(shape)
    return builder.move(x, candidates[0])


def _difference(first: np.ndarray, second: np.ndarray, x: Tensor) -> Sparse:
    import scipy.sparse

    rows = np.arange(first.size)
    entries = np.concatenate([np.ones(first.size), -np.ones(second.size)])
    places = (np.concatenate([rows, rows]), np.concatenate([first.reshape(-1), second.reshape(-1)]))
    matrix = scipy.sparse.csr_array((entries, places), shape=(first.size, x.size))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return Sparse(matrix, x.shape, first.shape)
