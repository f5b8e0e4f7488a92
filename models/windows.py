"""Rows of convolutional units as windows over their receptive field, differentiable: the torch counterpart of
`mipverify.proof.patches`, without its error terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.convolution import Conv
from mipverify.network.graph import ENTRY_WORK
from mipverify.network.operators import parameter_like
from mipverify.proof.backward import estimate_backward, estimate_minimum
from mipverify.proof.bounds import Intervals
from mipverify.proof.patches import convolution
from mipverify.proof.rows import Rows, functionals

MATRIX_ENTRIES = 2**20  # a convolution between windows is a dense product up to this size of its matrix


def window_bounds(relaxed: Intervals, node: int, samples: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (R,), (R,) of entries `units` of a convolution's output in the boxes `samples`, each side a row."""
    return _Walk(relaxed, node, samples, units, sides=2).each_side()


def parallel_window_bounds(relaxed: Intervals, node: int, samples: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """The same where both lines of each ReLU have one slope: the two sides share their coefficients."""
    return _Walk(relaxed, node, samples, units, sides=1).both_sides()


def row_work(network: Network, node: int) -> float:
    """Multiplications of passing one row from a node back to the input, about: by windows as far as it stays one."""
    conv = convolution(network, node)
    affine = network.nodes[node]
    if conv is None or not isinstance(affine, Affine):
        return network.work[node]
    source, work, window = affine.terms[0].source, 0.0, conv.reach((1, 1))
    while not isinstance(network.nodes[source], Input):
        relu = network.nodes[source]
        if not isinstance(relu, Relu) or 2 * math.prod(window) > math.prod(relu.shape[-2:]):
            return work + network.work[source]
        step = convolution(network, relu.source)
        if step is None:
            return work + network.work[source]
        work += math.prod(window) * (math.prod(step.weight.shape) + ENTRY_WORK * step.weight.shape[0])
        window = step.reach(window)
        below = network.nodes[relu.source]
        assert isinstance(below, Affine)
        source = below.terms[0].source
    return work + ENTRY_WORK * math.prod(window)


@dataclass(frozen=True, eq=False)
class _Step:
    """A convolution that rows pass through: its affine node and operator."""

    node: Affine
    conv: Conv


class _Walk:
    """Rows on their way from a convolution to the input: coefficients (S, R, C, h, w) at `origin` (R, 2) of `source`.

    sides S: 1, or 2 where the rows of the negative quantities are passed along.
    """

    def __init__(self, relaxed: Intervals, node: int, samples: Tensor, units: Tensor, sides: int):
        conv = convolution(relaxed.network, node)
        affine = relaxed.network.nodes[node]
        assert conv is not None
        assert isinstance(affine, Affine)
        self.relaxed, self.samples = relaxed, samples
        like = relaxed.lower[0]
        _, _, height, width = conv.out_shape
        place = units % (height * width)
        weight, (dh, dw) = conv.weight_as(like), conv.dilations
        size = (dh * (weight.shape[2] - 1) + 1, dw * (weight.shape[3] - 1) + 1)
        kernel = weight.new_zeros(*weight.shape[:2], *size)
        kernel[:, :, ::dh, ::dw] = weight  # the kernel, spread out by the dilation
        a = kernel[units // (height * width)]
        constant = a.new_zeros(len(units))
        if affine.bias is not None:
            constant = parameter_like(affine.bias, like).reshape(-1)[units]
        self.a = torch.stack([a, -a][:sides])
        self.constant = torch.stack([constant, -constant][:sides])
        self.origin = _origin(conv, torch.stack([place // width, place % width], 1))
        self.source = affine.terms[0].source

    def each_side(self) -> tuple[Tensor, Tensor]:
        """Bounds (R,), (R,) of the units, each by its own row."""
        while not isinstance(self.relaxed.network.nodes[self.source], Input):
            step = self._next()
            if step is None:
                relaxed, sides = self.relaxed, [self._dense(side) for side in range(2)]
                low, high = (
                    estimate_minimum(relaxed, estimate_backward(relaxed, rows), rows.samples) for rows in sides
                )
                return low, -high
            line = self.relaxed.lines[self.source]
            positive = self.a.clamp(min=0)
            negative = self.a - positive
            self.constant = self.constant + _dot(negative, self._under(line.upper_offset))
            self.a = positive * self._under(line.lower_slope) + negative * self._under(line.upper_slope)
            self._convolve(step)
        lower, upper = (self._under(side[0]) for side in (self.relaxed.lower, self.relaxed.upper))
        positive = self.a.clamp(min=0)
        low = _dot(positive, lower) + _dot(self.a - positive, upper) + self.constant
        return low[0], -low[1]

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """Bounds (R,), (R,) of the units, with the upper line's slope on both sides."""
        spread = torch.zeros_like(self.constant[0])  # what the upper side has on top
        while not isinstance(self.relaxed.network.nodes[self.source], Input):
            step = self._next()
            if step is None:
                low, high = parallel_bounds(self.relaxed, self._dense(0))
                return low, high + spread
            line = self.relaxed.lines[self.source]
            offset = self._under(line.upper_offset)
            self.constant = self.constant + _dot(self.a.clamp(max=0), offset)
            spread = spread + _dot(self.a.abs(), offset)[0]
            self.a = self.a * self._under(line.upper_slope)
            self._convolve(step)
        lower, upper = (self._under(side[0]) for side in (self.relaxed.lower, self.relaxed.upper))
        positive = self.a.clamp(min=0)
        low = (_dot(positive, lower) + _dot(self.a - positive, upper) + self.constant)[0]
        return low, low + spread + _dot(self.a.abs(), upper - lower)[0]

    def _next(self) -> _Step | None:
        """The convolution below the ReLU that was reached, if rows can stay windows on their way through it."""
        network = self.relaxed.network
        current = network.nodes[self.source]
        if not isinstance(current, Relu) or 2 * self.a[0, 0, 0].numel() > current.shape[-1] * current.shape[-2]:
            return None
        conv, affine = convolution(network, current.source), network.nodes[current.source]
        return _Step(affine, conv) if conv is not None and isinstance(affine, Affine) else None

    def _convolve(self, step: _Step) -> None:
        """Pass the rows through an affine node."""
        conv, bias = step.conv, step.node.bias
        if bias is not None:
            values = parameter_like(bias, self.a).expand(step.node.shape)
            # Beyond the border there is no unit: the zeros around the values see to that.
            self.constant = self.constant + _dot(self.a, self._under(values[None], shared=True))
        weight = conv.weight_as(self.a)

        def spread(a: Tensor) -> Tensor:
            return functional.conv_transpose2d(a, weight, None, conv.strides, 0, 0, 1, conv.dilations)

        sides, rows, *_ = self.a.shape
        shape = self.a.shape[2:]
        count = shape.numel()
        height, width = (
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(shape[1:], conv.strides, conv.dilations, weight.shape[2:], strict=True)
        )
        out = (weight.shape[1], height, width)
        flat = self.a.flatten(0, 1)
        if count * out[0] * height * width <= MATRIX_ENTRIES and len(flat) > count:
            matrix = spread(torch.eye(count, dtype=flat.dtype, device=flat.device).reshape(count, *shape))
            flat = flat.flatten(1) @ matrix.flatten(1)
        else:
            flat = spread(flat)
        self.a = flat.reshape(sides, rows, *out)
        self.origin = _origin(conv, self.origin)
        self.source = step.node.terms[0].source

    def _under(self, values: Tensor, *, shared: bool = False) -> Tensor:
        """The values (B, 1, C, H, W) under each row's window (R, C, h, w); zero beyond the border."""
        h, w = self.a.shape[3:]
        flat = values.reshape(-1, *values.shape[-3:])
        batch, channels, height, width = flat.shape
        before = (-self.origin.amin(0)).clamp(min=0)
        after = (self.origin.amax(0) + self.origin.new_tensor([h - height, w - width])).clamp(min=0)
        (top, left), (bottom, right) = before.tolist(), after.tolist()
        padded = functional.pad(flat, (left, right, top, bottom))
        rows, columns = padded.shape[2:]
        device = self.a.device
        corner = (self.origin[:, 0] + top) * columns + self.origin[:, 1] + left
        if not shared and batch > 1:
            corner = corner + self.samples * (channels * rows * columns)
        inside = (
            torch.arange(channels, device=device)[:, None, None] * (rows * columns)
            + torch.arange(h, device=device)[:, None] * columns
            + torch.arange(w, device=device)
        )
        return padded.reshape(-1)[corner[:, None, None, None] + inside]

    def _dense(self, side: int) -> Rows:
        """The rows of one side over whole tensors of the node that was reached."""
        shape, a = self.relaxed.network.nodes[self.source].shape, self.a[side]
        count, channels, h, w = a.shape
        height, width = shape[-2:]
        device = a.device
        y = self.origin[:, :1] + torch.arange(h, device=device)
        x = self.origin[:, 1:] + torch.arange(w, device=device)
        inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[:, None, None, :]
        flat = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
        index = flat.reshape(count, 1, -1).expand(-1, channels, -1)
        values = (a * inside).flatten(2)
        dense = a.new_zeros(count, channels, height * width).scatter_add(2, index, values)
        picked: Any = self.samples
        return functionals({self.source: dense.reshape(count, *shape)}, picked, self.constant[side])


def parallel_bounds(relaxed: Intervals, rows: Rows) -> tuple[Tensor, Tensor]:
    """Bounds (R,), (R,) of rows where both lines of each ReLU have one slope, from one pass back.

    The coefficients of the two sides are then the same; what they differ in is |coefficients| times offsets and widths.
    """
    reached = estimate_backward(relaxed, rows, keep=True)
    low = estimate_minimum(relaxed, reached, rows.samples)
    width = relaxed.upper[0] - relaxed.lower[0]
    high = low + _row_dot(reached.coefficients.abs(), width[rows.samples])
    for relu, met in reached.passed.items():
        high = high + _row_dot(met.abs(), relaxed.lines[relu].upper_offset[rows.samples])
    return low, high


def _origin(conv: Conv, origin: Tensor) -> Tensor:
    """Where in the input of a convolution the window begins that an output window at `origin` reaches."""
    return origin * origin.new_tensor(conv.strides) - origin.new_tensor(conv.pads[:2])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sums over windows: (S, R, C, h, w) with (R, C, h, w) -> (S, R)."""
    return (a * b).flatten(2).sum(2)


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
