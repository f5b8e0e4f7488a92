"""Gradients of network outputs by the input, for many points at once, without automatic differentiation."""

from __future__ import annotations

import numpy as np

from mipverify.network import Affine, Network, Relu


def values_and_gradient(network: Network, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (R, k) at points x (R, *input_shape), and the gradient (R, *input_shape) of `rows[r] @ output` there."""
    values = network.values(x)
    result = values[network.output].reshape(len(x), -1)
    pending = {network.output: rows.astype(x.dtype, copy=False).reshape(len(x), *network.output_shape)}
    for index in range(network.output, 0, -1):
        if index not in pending:
            continue
        rows = pending.pop(index)
        node = network.nodes[index]
        if isinstance(node, Relu):
            back = rows * (values[node.source] > 0)
            pending[node.source] = pending[node.source] + back if node.source in pending else back
        elif isinstance(node, Affine):
            for term in node.terms:
                back = term.operator.adjoint(rows.reshape(len(x), *term.operator.out_shape))
                back = back.reshape(len(x), *network.nodes[term.source].shape)
                pending[term.source] = pending[term.source] + back if term.source in pending else back
    zero = np.zeros((len(x), *network.input_shape), x.dtype)
    return result, pending.get(0, zero)
