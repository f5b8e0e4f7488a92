"""Batch normalization by the centres of interval bounds: statistics and bounds are found in one pass."""

from __future__ import annotations

from dataclasses import replace

import torch
from mipverify.models.interval import affine_halves, both_sides, halves_of, sides_of
from mipverify.models.normalization import batch_normalizations
from mipverify.models.precision import in_full_precision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mipverify.errors import InputError
from mipverify.network import Affine, Input, Network
from mipverify.network.graph import Node, Term
from mipverify.network.operators import Scale
from mipverify.network.torch_import import Statistics
from mipverify.proof.bounds import Intervals


@in_full_precision
def centered_bounds(module: nn.Module, network: Network, lower: Tensor, upper: Tensor) -> tuple[Intervals, Statistics]:
    """Bounds over boxes (B, *input_shape) by the statistics of their centres, and mean and variance of each layer.

    A unit's interval [l, u] has the centre (l + u) / 2; a batch normalization of `module` in training mode takes mean
    and variance (channels,) of the centres over batch and positions. They need no pass of their own, as those of a
    clean batch do, and are differentiable in the parameters, so that bounds do not change when the weights before a
    normalization are scaled. At radius 0 they are those of the clean batch. Running statistics have to be those of
    centres as well (`update_running`), for they are what the trained network normalizes by.

    network: of the module, whatever its layers normalize by; that of the bounds returned normalizes by the statistics.
    Raises InputError for a batch normalization that is used more than once.
    """
    layers = _normalizing_nodes(module, network)
    statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    nodes: list[Node] = list(network.nodes)
    sides: list[tuple[Tensor, Tensor]] = []  # lower and upper bounds
    halves: dict[int, tuple[Tensor, Tensor]] = {}  # centres and radii of what affine nodes read

    def through(term: Term) -> tuple[Tensor, Tensor]:
        if term.source not in halves:
            halves[term.source] = halves_of(*sides[term.source])
        return both_sides(term.operator, *halves[term.source])

    for index, node in enumerate(network.nodes):
        if isinstance(node, Affine):
            node = replace(node, terms=tuple([_scaled(term, layers, statistics) for term in node.terms]))
            if index in layers:
                center, radius = affine_halves(replace(node, bias=None), through, lower)
                mean, _ = statistics[layers[index]] = _statistics(center)
                offset = -_along_channels(mean, node.shape)
                node, halves[index] = replace(node, bias=offset.expand(node.shape)), (center + offset, radius)
            else:
                halves[index] = affine_halves(node, through, lower)
            nodes[index] = node
            side = sides_of(*halves[index])
        elif isinstance(node, Input):
            low, high = (_channels_last(x.reshape(-1, *node.shape)) for x in (lower, upper))
            side = low, high
        else:
            low, high = sides[node.source]
            side = low.relu(), high.relu()
        sides.append(side)
    lows, highs = zip(*sides, strict=True)
    return Intervals(replace(network, nodes=tuple(nodes)), lows, highs), statistics


def update_running(statistics: Statistics) -> None:
    """Move running statistics towards those of a batch, as a batch normalization does when it is called."""
    with torch.no_grad():
        for layer, (mean, variance) in statistics.items():
            assert isinstance(layer, _BatchNorm)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked.add_(1)
            share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
            layer.running_var.lerp_(variance.to(layer.running_var.dtype), share)


def _normalizing_nodes(module: nn.Module, network: Network) -> dict[int, _BatchNorm]:
    """The batch normalizations in training mode, by the nodes that subtract their means.

    What alone reads such a node is the term that scales.
    """
    training = {id(layer) for layer in batch_normalizations(module)}
    found: dict[int, _BatchNorm] = {}
    for name, layer in module.named_modules():
        if id(layer) not in training:
            continue
        assert isinstance(layer, _BatchNorm)
        named = [index for index, own in enumerate(network.names) if own == name]  # nodes bear their layer's name
        read = [term.operator for node in network.nodes if isinstance(node, Affine) for term in node.terms
                if named and term.source == named[0]]  # fmt: skip
        if len(named) > 2 or len(read) != 1 or not isinstance(read[0], Scale) or layer.running_mean is None:
            raise InputError(
                f"layer {name!r} ({type(layer).__name__}): statistics of centers are those of batch normalizations "
                "that are used once and keep running statistics"
            )
        found[named[0]] = layer
    return found


def _statistics(center: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (channels,) of (B, 1, channels, ...)."""
    values = center.movedim(2, -1).reshape(-1, center.shape[2])
    if len(values) == 1:
        raise InputError("batch normalization in training mode: one value for each channel has no variance")
    mean = values.mean(0)  # seven times as fast as torch.var_mean
    return mean, (values - mean).square().mean(0)


def _scaled(term: Term, layers: dict[int, _BatchNorm], statistics: Statistics) -> Term:
    """The term, with the factor of a batch normalization's statistics if it scales by one."""
    if term.source not in layers:
        return term
    layer = layers[term.source]
    factor = torch.rsqrt(statistics[layer][1] + layer.eps)
    if layer.weight is not None:
        factor = factor * layer.weight
    shape = term.operator.out_shape
    return replace(term, operator=Scale(_along_channels(factor, shape), shape))


def _along_channels(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values (channels,) of a tensor of this shape (1, channels, ...)."""
    return values.reshape(1, -1, *(1,) * (len(shape) - 2))


def _channels_last(x: Tensor) -> Tensor:
    """Images (B, 1, C, H, W) with their channels next to each other, which convolutions on a CPU are faster on."""
    if x.ndim != 5 or x.shape[1] != 1:
        return x
    return x[:, 0].contiguous(memory_format=torch.channels_last)[:, None]
