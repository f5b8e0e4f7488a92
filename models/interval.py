"""Interval arithmetic for training: that of `presolve`, without the rounding errors that only a proof needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mipverify.models.quick import strided_convolution
from torch import Tensor
from torch.nn import functional

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.convolution import Conv
from mipverify.network.graph import Term, affine_value
from mipverify.network.operators import Operator, parameter_like
from mipverify.proof.bounds import Intervals


def estimate_interval(network: Network, lower: Tensor, upper: Tensor) -> Intervals:
    """Bounds of every node over boxes (B, *input_shape), differentiable in the weights.

    Those of `mipverify.proof.interval` up to rounding, at half the cost of a training step with them: the error
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
            low, high = estimate_affine(node, lows, highs)
        lows.append(low)
        highs.append(high)
    return Intervals(network, tuple(lows), tuple(highs))


def estimate_affine(node: Affine, lows: list[Tensor], highs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Bounds (B, *shape) of an affine node from those of earlier nodes."""
    if all(term.operator.terms == 1 and not term.operator.parameters() for term in node.terms) and node.bias is None:
        return affine_value(node, lows), affine_value(node, highs)  # data movement and sums

    def through(term: Term) -> tuple[Tensor, Tensor]:
        return both_sides(term.operator, *halves_of(lows[term.source], highs[term.source]))

    return sides_of(*affine_halves(node, through, lows[0]))


def affine_halves(
    node: Affine, through: Callable[[Term], tuple[Tensor, Tensor]], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Centre and radius (B, *shape) of an affine node from those that its terms give, of dtype and device of `like`."""
    center = radius = like.new_zeros(1, *node.shape).expand(len(like), *node.shape)
    for term in node.terms:
        c, r = (side.reshape(len(side), *node.shape) for side in through(term))
        center, radius = (c, r) if term is node.terms[0] else (center + c, radius + r)
    if node.bias is not None:
        center = center + parameter_like(node.bias, center)
    return center, radius


def halves_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and radius of intervals."""
    center = torch.lerp(low, high, 0.5)
    return center, high - center


def sides_of(center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds."""
    return center - radius, center + radius


def both_sides(operator: Operator, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """W center and |W| radius."""
    center, radius = (side.reshape(len(side), *operator.in_shape) for side in (center, radius))
    if not isinstance(operator, Conv) or not isinstance(operator.weight, Tensor) or not _quick(operator):
        return operator.apply(center), operator.apply_abs(radius)
    weight = operator.weight_as(center)
    stride, padding = operator.strides[0], operator.pads[0]
    convolution = strided_convolution if stride > 1 else functional.conv2d
    sides = ((center, weight), (radius, weight.abs()))
    first, second = (convolution(x[:, 0], w, None, stride, padding) for x, w in sides)
    return first, second


def _quick(conv: Conv) -> bool:
    square = all(len(set(pair)) == 1 for pair in (conv.strides, conv.pads, conv.weight.shape[2:]))
    plain = conv.groups == 1 and set(conv.dilations) == {1} and conv.weight.device.type == "cpu"
    return square and plain
