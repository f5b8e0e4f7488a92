"""Batch normalization by the centres of interval bounds: statistics and bounds are found in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mipverify.models.interval import both_sides
from mipverify.models.normalization import batch_normalizations
from mipverify.models.precision import in_full_precision
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mipverify.errors import InputError
from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.operators import Identity, Scale, parameter_like
from mipverify.network.torch_import import Statistics, from_torch
from mipverify.proof.bounds import Intervals


@dataclass(frozen=True, eq=False)
class CenteredBounds:
    """Interval bounds, over a network that normalizes by `statistics`: mean and variance (channels,) of each layer."""

    bounds: Intervals
    statistics: Statistics


@dataclass(frozen=True)
class _Layer:
    """A batch normalization in a network: the node that subtracts the mean, and the one that scales."""

    module: _BatchNorm
    subtracts: int
    scales: int


class CenteredNormalization:
    """Bounds of a module whose batch normalizations in training mode use the statistics of the bounds' centres.

    A unit's interval [l, u] has the centre (l + u) / 2; mean and variance of a channel are those of the centres over
    batch and positions. They need no pass of their own, as those of a clean batch do, which makes a step cheaper by a
    third, and are differentiable in the parameters, so that bounds do not change when the weights before a normalization
    are scaled. At radius 0 they are those of the clean batch. Running statistics have to be those of centres as well
    (`update`), for they are what the trained network normalizes by.

    input_shape: of one input. Raises InputError for a layer that cannot be imported, or is used more than once.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], traced: fx.GraphModule):
        self._module, self._input_shape, self._traced = module, input_shape, traced
        self._plain = from_torch(module, input_shape, {}, traced)  # for its nodes; what its layers normalize by is not used
        self._layers = _found(module, self._plain)

    @in_full_precision
    def __call__(self, lower: Tensor, upper: Tensor) -> CenteredBounds:
        """Bounds of every node over the boxes (B, *input_shape), differentiable in the weights."""
        statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        subtracts = {layer.subtracts: layer for layer in self._layers}
        scales = {layer.scales: layer for layer in self._layers}
        centers: list[Tensor] = []
        radii: list[Tensor] = []
        lows: list[Tensor] = []
        highs: list[Tensor] = []
        for index, node in enumerate(self._plain.nodes):
            if isinstance(node, Input):
                low, high = (_channels_last(side.reshape(-1, *node.shape)) for side in (lower, upper))
                center, radius = 0.5 * (low + high), 0.5 * (high - low)
            elif isinstance(node, Relu):
                low, high = lows[node.source].relu(), highs[node.source].relu()
                center, radius = 0.5 * (low + high), 0.5 * (high - low)
            else:
                if index in scales:
                    module = scales[index].module
                    center, radius = centers[scales[index].subtracts], radii[scales[index].subtracts]
                    center, radius = _scaled(module, center, radius, statistics[module][1])
                else:
                    normalized = subtracts.get(index)
                    center, radius = _affine(node, centers, radii, with_bias=normalized is None)
                    if normalized is not None:
                        mean, variance = statistics[normalized.module] = _statistics(center)
                        center = center - _along_channels(mean, center)
                low, high = center - radius, center + radius
            lows.append(low)
            highs.append(high)
            centers.append(center)
            radii.append(radius)
        network = from_torch(self._module, self._input_shape, statistics, self._traced)
        return CenteredBounds(Intervals(network, tuple(lows), tuple(highs)), statistics)


def update_running(statistics: Statistics, share: float | None = None) -> None:
    """Move running statistics towards those of a batch, as a batch normalization does when it is called.

    share: what the batch counts, the layer's `momentum` unless given.
    """
    with torch.no_grad():
        for layer, (mean, variance) in statistics.items():
            assert isinstance(layer, _BatchNorm)
            if layer.running_mean is None or layer.running_var is None:
                continue
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)
            momentum = layer.momentum if share is None else share
            if momentum is None:  # a plain mean over all batches
                momentum = 1 / float(layer.num_batches_tracked or 1)
            layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
            layer.running_var.lerp_(variance.to(layer.running_var.dtype), momentum)


class Forward(nn.Module):
    """Logits (B, classes) of a network with the statistics that its bounds gave."""

    def __init__(self, network: Network):
        super().__init__()
        self._network = [network]  # in a list: the module that it was made of is not registered

    def forward(self, x: Tensor) -> Tensor:
        """The logits at x (B, *input_shape)."""
        network = self._network[0]
        value = network.forward(_channels_last(x.reshape(len(x), *network.input_shape)))
        return value.reshape(len(x), -1)


def _found(module: nn.Module, network: Network) -> list[_Layer]:
    """The batch normalizations in training mode and their nodes, which bear their names."""
    training = {id(part) for part in batch_normalizations(module)}
    layers: list[_Layer] = []
    for name, part in module.named_modules():
        if id(part) not in training:
            continue
        assert isinstance(part, _BatchNorm)
        nodes = [index for index, own in enumerate(network.names) if own == name]
        last = network.nodes[nodes[-1]] if nodes else None
        if (
            len(nodes) != 2
            or not isinstance(last, Affine)
            or [term.source for term in last.terms] != nodes[:1]
            or not isinstance(last.terms[0].operator, Scale)
        ):
            raise InputError(
                f"layer {name!r} ({type(part).__name__}): statistics of bounds are found for batch normalizations that "
                "are used once, each by its own name"
            )
        layers.append(_Layer(part, nodes[0], nodes[1]))
    return layers


def _affine(
    node: Affine, centers: list[Tensor], radii: list[Tensor], *, with_bias: bool
) -> tuple[Tensor, Tensor]:
    """Centre and radius (B, *shape) of an affine node, which are those of its bounds."""
    center: Tensor | None = None
    radius: Tensor | None = None
    for term in node.terms:
        c, r = centers[term.source], radii[term.source]
        if not isinstance(term.operator, Identity):
            c, r = both_sides(term.operator, c, r)
        shape = (len(c), *node.shape)
        c, r = c.reshape(shape), r.reshape(shape)
        center, radius = (c, r) if center is None or radius is None else (center + c, radius + r)
    if center is None or radius is None:
        center = radius = centers[0].new_zeros(len(centers[0]), *node.shape)
    if node.bias is not None and with_bias:
        center = center + parameter_like(node.bias, center)
    return center, radius


def _statistics(center: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (channels,) of (B, 1, channels, ...)."""
    values = center.movedim(2, -1).reshape(-1, center.shape[2])
    if len(values) == 1:
        raise InputError("batch normalization in training mode: one value for each channel has no variance")
    mean = values.mean(0)  # seven times as fast as torch.var_mean
    return mean, (values - mean).square().mean(0)


def _scaled(layer: _BatchNorm, center: Tensor, radius: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and radius after the scale and shift of a batch normalization."""
    factor = torch.rsqrt(variance + layer.eps)
    if layer.weight is not None:
        factor = factor * layer.weight
    factor = _along_channels(factor, center)
    center, radius = center * factor, radius * factor.abs()
    if layer.bias is not None:
        center = center + _along_channels(layer.bias, center)
    return center, radius


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(1, 1, -1, *(1,) * (like.ndim - 3))


def _channels_last(x: Tensor) -> Tensor:
    """Images (B, 1, C, H, W) with their channels next to each other, which convolutions on a CPU are faster on."""
    if x.ndim != 5 or x.shape[1] != 1:
        return x
    return x[:, 0].contiguous(memory_format=torch.channels_last)[:, None]
