"""Gradients of network outputs by the input, for many points at once, without automatic differentiation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mipverify.network import Affine, Network, Relu
from mipverify.network.reverse import through_terms, walk_back


def values_and_gradient(network: Network, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (R, k) at points x (R, *input_shape), and the gradient (R, *input_shape) of `rows[r] @ output` there."""
    values = network.values(x)

    def affine(_: int, node: Affine, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        return through_terms(network, node, rows)

    def relu(_: int, node: Relu, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        yield node.source, rows * (values[node.source] > 0)

    start = {network.output: rows.astype(x.dtype, copy=False).reshape(len(x), *network.output_shape)}
    reached = walk_back(network, start, relu, affine)
    gradient = np.zeros((len(x), *network.input_shape), x.dtype) if reached is None else reached
    return values[network.output].reshape(len(x), -1), gradient
