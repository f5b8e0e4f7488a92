"""The convolution as a linear operator: one dense product over windows, and the transpose of that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.operators import Array, _Weighted, product
from mipverify.network.transposed import transposed_convolution


class Conv(_Weighted):
    """Two-dimensional convolution (ONNX Conv) of tensors (1, C, H, W) with `weight` (O, C/groups, kh, kw).

    pads: (top, left, bottom, right). A one-dimensional convolution is one of height 1.
    """

    def __init__(
        self,
        weight: Array,
        in_hw: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
    ):
        super().__init__(weight)
        out_channels, in_channels, kh, kw = weight.shape
        self.strides, self.pads, self.dilations, self.groups = strides, pads, dilations, groups
        self.padded_hw = (in_hw[0] + pads[0] + pads[2], in_hw[1] + pads[1] + pads[3])
        out_hw = tuple(
            (size - dilation * (k - 1) - 1) // stride + 1
            for size, k, stride, dilation in zip(self.padded_hw, (kh, kw), strides, dilations, strict=True)
        )
        if min(out_hw) < 1:
            raise ValueError(f"the kernel ({kh}, {kw}) does not fit into a padded input of {self.padded_hw}")
        self.in_shape = (1, in_channels * groups, *in_hw)
        self.out_shape = (1, out_channels, *out_hw)
        self.terms = kh * kw * max(in_channels, out_channels)

    @property
    def work(self) -> int:
        return self.out_size * math.prod(self.weight.shape[1:])

    def apply(self, x: Array) -> Array:
        return self._forward(x, self.weight_as(x))

    def apply_abs(self, x: Array) -> Array:
        return self._forward(x, self.weight_as(x, absolute=True))

    def adjoint(self, a: Array) -> Array:
        return self._backward(a, self.weight_as(a))

    def adjoint_abs(self, a: Array) -> Array:
        """The transpose of |W|, for `Transposed.apply_abs`."""
        return self._backward(a, self.weight_as(a, absolute=True))

    def reach(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the part of the (padded) input that a part (h, w) of the output reads."""
        height, width = (
            (extent - 1) * stride + dilation * (taps - 1) + 1
            for extent, stride, dilation, taps in zip(
                size, self.strides, self.dilations, self.weight.shape[2:], strict=True
            )
        )
        return height, width

    def to_sparse(self) -> Any:
        import scipy.sparse

        weight, groups = np.asarray(self.weight_as(np.zeros(0))), self.groups
        out_channels, channels, kh, kw = weight.shape
        (height, width), (oh, ow) = self.in_shape[2:], self.out_shape[2:]
        y, x = (
            np.arange(size)[:, None] * stride + np.arange(taps) * dilation - pad
            for size, stride, taps, dilation, pad in zip(
                (oh, ow), self.strides, (kh, kw), self.dilations, self.pads[:2], strict=True
            )
        )
        # By output position, input channel and tap: where it reads, with which entry of the kernel, if not a pad.
        shape = (oh, ow, channels, kh, kw)
        inside = ((y >= 0) & (y < height))[:, None, None, :, None] & ((x >= 0) & (x < width))[None, :, None, None, :]
        inside = np.broadcast_to(inside, shape)
        column = np.arange(channels)[:, None, None] * height * width + (y * width)[:, None, None, :, None]
        columns = np.broadcast_to(column + x[None, :, None, None, :], shape)[inside]
        entries = np.broadcast_to(np.arange(channels * kh * kw).reshape(channels, kh, kw), shape)[inside]
        group = np.repeat(np.arange(groups), out_channels // groups) * channels * height * width
        ends = np.cumsum(np.tile(inside.reshape(oh * ow, -1).sum(axis=1), out_channels))
        matrix = scipy.sparse.csr_array(
            (
                weight.reshape(out_channels, -1)[:, entries].reshape(-1),
                (columns.astype(np.int32) + group[:, None].astype(np.int32)).reshape(-1),
                np.concatenate([[0], ends]),
            ),
            shape=(self.out_size, self.in_size),
        )
        matrix.eliminate_zeros()
        return matrix

    def _forward(self, x: Array, weight: Array) -> Array:
        batch, (top, left, bottom, right) = x.shape[0], self.pads
        x = x.reshape(batch, *self.in_shape[1:])
        if is_torch_array(x):
            import torch.nn.functional as functional

            padding = (top, left)
            if padding != (bottom, right):
                x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
            x = functional.conv2d(x, weight, None, self.strides, padding, self.dilations, self.groups)
            return x.reshape(batch, *self.out_shape)
        out_channels, in_channels, kh, kw = weight.shape
        oh, ow = self.out_shape[2:]
        (sh, sw), (dh, dw), groups = self.strides, self.dilations, self.groups
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))) if any(self.pads) else x
        stride = padded.strides
        windows = np.lib.stride_tricks.as_strided(
            padded,
            (batch, oh, ow, groups, in_channels, kh, kw),
            (
                stride[0],
                stride[2] * sh,
                stride[3] * sw,
                stride[1] * in_channels,
                stride[1],
                stride[2] * dh,
                stride[3] * dw,
            ),
        )
        width = in_channels * kh * kw
        if groups == 1:
            y = product(windows.reshape(-1, width), weight.reshape(out_channels, width).T)
        else:
            columns = windows.reshape(-1, groups, width).transpose(1, 0, 2)
            y = product(columns, weight.reshape(groups, out_channels // groups, width).transpose(0, 2, 1))
            y = y.transpose(1, 0, 2)
        return np.ascontiguousarray(y.reshape(batch, oh * ow, out_channels).transpose(0, 2, 1)).reshape(
            batch, *self.out_shape
        )

    def _backward(self, a: Array, weight: Array) -> Array:
        rows = a.shape[0]
        a = a.reshape(rows, *self.out_shape[1:])
        if is_torch_array(a):
            import torch.nn.functional as functional

            a = functional.conv_transpose2d(a, weight, None, self.strides, 0, 0, self.groups, self.dilations)
            a = functional.pad(a, (0, self.padded_hw[1] - a.shape[3], 0, self.padded_hw[0] - a.shape[2]))
            return self._crop(a).reshape(rows, *self.in_shape)
        out = np.empty((rows, *self.in_shape[1:]), a.dtype)
        last, back = a.transpose(0, 2, 3, 1), out.transpose(0, 2, 3, 1)
        transposed_convolution(last, weight, back, self.strides, self.dilations, self.pads[:2])
        return out.reshape(rows, *self.in_shape)

    def _crop(self, full: Array) -> Array:
        top, left, _, _ = self.pads
        height, width = self.in_shape[2:]
        return full[:, :, top : top + height, left : left + width]
