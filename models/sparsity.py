"""Weight sparsity: the l_1 norm of the affine maps, which makes bounds tighter and zeros possible."""

from __future__ import annotations

import math

import torch
from mipverify.models.traced import Model, network_of
from torch import Tensor

from mipverify.network import Affine
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Operator, Transposed


def weight_sparsity(model: Model, input_shape: tuple[int, ...] | None = None) -> Tensor:
    """sum over layers of sum |W_ij|, W the matrix of the layer [Xiao et al. 2019, section 3.2, weight sparsity].

    A convolution's kernel is counted as often as it is applied: once for each position of its output (for a transposed
    convolution, of its input). A dense layer that is applied along leading axes likewise. Biases, normalizations and
    averages do not count. The paper's weight for it is 2e-5.

    model: a torch module with the input_shape (no batch axis) to trace it for, a `Traced`, or a network.
    """
    network = network_of(model, input_shape)
    parts = [
        count * torch.as_tensor(weight).abs().sum()
        for node in network.nodes
        if isinstance(node, Affine)
        for term in node.terms
        for weight, count in _weights(term.operator)
        if network.module is None or isinstance(weight, Tensor)  # of a module, averages are the constants
    ]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def _weights(operator: Operator) -> list[tuple[Tensor, int]]:
    """The weight of an operator and how often it is applied."""
    if isinstance(operator, Transposed):
        return _weights(operator.inner)
    if isinstance(operator, Conv):
        return [(operator.weight, math.prod(operator.out_shape[2:]))]
    if isinstance(operator, Dense):
        return [(operator.weight, math.prod(operator.in_shape[:-1]))]
    return []
