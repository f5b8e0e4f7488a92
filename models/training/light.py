"""Interval arithmetic for training: that of `presolve`, without the rounding errors that only a proof needs."""

from __future__ import annotations

import torch
from mipverify.presolve import Bounds
from torch import Tensor

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.graph import affine_value


def light_interval(network: Network, lower: Tensor, upper: Tensor) -> Bounds:
    """Bounds of every node over boxes (B, *input_shape), differentiable in the weights.

    Those of `mipverify.presolve.interval` up to rounding, at half the cost of a training step with them: the error
    terms have a gradient too, and it is of no use.
    """
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    for node in network.nodes:
        if isinstance(node, Input):
            low, high = lower.reshape(-1, *node.shape), upper.reshape(-1, *node.shape)
        elif isinstance(node, Relu):
            low, high = lows[node.source].relu(), highs[node.source].relu()
        else:
            low, high = _affine(node, lows, highs)
        lows.append(low)
        highs.append(high)
    return Bounds(network, tuple(lows), tuple(highs))


def _affine(node: Affine, lows: list[Tensor], highs: list[Tensor]) -> tuple[Tensor, Tensor]:
    if all(term.operator.terms == 1 and not term.operator.parameters() for term in node.terms) and node.bias is None:
        return affine_value(node, lows), affine_value(node, highs)  # data movement and sums
    sources = {term.source for term in node.terms}
    centers = [0.5 * (lows[i] + highs[i]) if i in sources else lows[i] for i in range(len(lows))]
    center = affine_value(node, centers)
    radius = torch.zeros(())
    for term in node.terms:
        spread = 0.5 * (highs[term.source] - lows[term.source])
        part = term.operator.apply_abs(spread.reshape(spread.shape[0], *term.operator.in_shape))
        radius = part.reshape(center.shape) if radius.ndim == 0 else radius + part.reshape(center.shape)
    return center - radius, center + radius
