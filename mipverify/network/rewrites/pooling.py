"""Average and maximum pooling over windows that may overlap, hang over the edge, or be dilated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mipverify.network.builder import Builder, RewriteError, Tensor, limited
from mipverify.network.convolution import Conv
from mipverify.network.rewrites.activation import absolute_value
from mipverify.network.rewrites.convolution import paired, resolved_pads, spatial
from mipverify.network.rewrites.maximum import tournament
from mipverify.network.rewrites.reduce import extreme, reduced
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@dataclass(frozen=True)
class Windows:
    """Pooling windows over an image of `in_hw`."""

    in_hw: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    ceil: bool

    def along(self, axis: int) -> np.ndarray:
        """Coordinates (outputs, kernel) that the windows touch along `axis`, counted from the image's first entry."""
        size, k, stride, dilation = self.in_hw[axis], self.kernel[axis], self.strides[axis], self.dilations[axis]
        before, after = self.pads[axis], self.pads[axis + 2]
        room = size + before + after - dilation * (k - 1) - 1
        if room < 0 and not self.ceil:
            raise RewriteError(f"the window {list(self.kernel)} does not fit into the image {list(self.in_hw)}")
        count = (math.ceil(room / stride) if self.ceil else room // stride) + 1
        if self.ceil and (count - 1) * stride >= size + before:
            count -= 1  # the last window would begin in the padding behind the image
        if count < 1:
            raise RewriteError(f"the window {list(self.kernel)} does not fit into the image {list(self.in_hw)}")
        limited([count, k])
        return np.arange(count)[:, None] * stride - before + np.arange(k)[None] * dilation

    def positions(self) -> np.ndarray:
        """Flat position in the image (H, W) of each window entry, (oh, ow, kh * kw); -1 outside the image."""
        rows, columns = self.along(0), self.along(1)
        height, width = self.in_hw
        limited([*rows.shape, *columns.shape])
        inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None]
        flat = np.where(inside, rows[:, None, :, None] * width + columns[None, :, None], -1)
        return flat.reshape(len(rows), len(columns), -1)

    def padded_counts(self) -> np.ndarray:
        """How many entries of each window lie inside the image or its padding, (oh, ow)."""
        counts = []
        for axis in (0, 1):
            where = self.along(axis)
            counts.append((where < self.in_hw[axis] + self.pads[axis + 2]).sum(1))
        return counts[0][:, None] * counts[1][None]


def windows_of(node: OnnxNode, x: Tensor) -> Windows:
    """The windows of a pooling node."""
    in_hw, count = spatial(x), len(x.shape) - 2
    shape = node.get("kernel_shape")
    if shape is None:
        raise RewriteError("kernel_shape is missing")
    kernel = paired(shape, 1, count)
    strides, dilations = paired(node.get("strides"), 1, count), paired(node.get("dilations"), 1, count)
    longer = any(stride > k for stride, k in zip(strides, kernel, strict=True))
    if node.get("auto_pad", "NOTSET").startswith("SAME") and dilations != (1, 1) and longer:
        raise RewriteError("auto_pad SAME with dilations and a stride longer than the window: set the pads")
    pads = resolved_pads(node, in_hw, kernel, strides)
    return Windows(in_hw, kernel, strides, pads, dilations, bool(node.get("ceil_mode", 0)))


def _out_shape(x: Tensor, hw: tuple[int, ...]) -> tuple[int, ...]:
    return (*x.shape[:2], hw[1]) if len(x.shape) == 3 else (*x.shape[:2], *hw)


@rewrite("AveragePool")
def average_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Mean over windows."""
    x = node.tensor(0)
    return averaged(builder, x, windows_of(node, x), bool(node.get("count_include_pad", 0)))


def averaged(builder: Builder, x: Tensor, windows: Windows, include_pad: bool, divisor: int | None = None) -> Tensor:
    """Mean over windows of x (1, C, [H,] W); padding counts as zeros if `include_pad`, else not at all."""
    where, channels = windows.positions(), x.shape[1]
    inside = (where >= 0).sum(-1)
    counts = windows.padded_counts() if include_pad else inside
    counts = np.full_like(counts, divisor) if divisor else counts
    if not counts.all():
        raise RewriteError("a window lies entirely in the padding")
    shape = _out_shape(x, where.shape[:2])
    size = int(counts.flat[0])
    rounding = 0 if (np.frexp(counts)[0] == 0.5).all() else 1  # 1 / count is rounded unless a power of two
    if (counts == size).all() and not windows.ceil:
        weight = np.full((channels, 1, *windows.kernel), 1.0 / size)
        operator = Conv(weight, windows.in_hw, windows.strides, windows.pads, windows.dilations, channels)
        operator.terms = math.prod(windows.kernel) + rounding
        return builder.affine([(x, operator)], shape)
    import scipy.sparse

    output, entry = np.nonzero(where.reshape(inside.size, -1) >= 0)
    column = where.reshape(inside.size, -1)[output, entry]
    one = scipy.sparse.csr_array(
        (1.0 / counts.reshape(-1)[output], (output, column)), shape=(inside.size, math.prod(windows.in_hw))
    )
    return builder.sparse(x, scipy.sparse.kron(scipy.sparse.eye_array(channels), one), shape, rounding)


@rewrite("GlobalAveragePool")
def global_average_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Mean over all positions of each channel."""
    x = node.tensor(0)
    return reduced(builder, x, range(2, len(x.shape)), keepdims=True, mean=True)


@rewrite("LpPool", "GlobalLpPool")
def norm_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """The 1-norm over windows; other norms are not piecewise linear."""
    if node.get("p", 2) != 1:
        raise RewriteError(f"the {node.get('p', 2)}-norm is not piecewise linear")
    x = absolute_value(builder, node.tensor(0))
    if node.operator == "GlobalLpPool":
        return reduced(builder, x, range(2, len(x.shape)), keepdims=True, mean=False)
    return averaged(builder, x, windows_of(node, x), include_pad=False, divisor=1)


@rewrite("MaxPool")
def max_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Maximum over windows; a second output, the indices of the maxima, jumps, and whatever reads it is refused."""
    x = node.tensor(0)
    return maximized(builder, x, windows_of(node, x))


def maximized(builder: Builder, x: Tensor, windows: Windows) -> Tensor:
    """Maximum over windows of x (1, C, [H,] W); padding takes no part."""
    where, channels = windows.positions(), x.shape[1]
    first = where[np.arange(where.shape[0])[:, None], np.arange(where.shape[1])[None], (where >= 0).argmax(-1)]
    if (first < 0).any():
        raise RewriteError("a window lies entirely in the padding")
    candidates = np.where(where < 0, first[..., None], where)  # a missing entry: another one twice changes nothing
    shape = _out_shape(x, where.shape[:2])
    per_channel = np.arange(channels)[None, :, None] * math.prod(windows.in_hw)
    entries = candidates.reshape(-1, candidates.shape[-1]).T[:, None, :] + per_channel
    return tournament(builder, x, entries.reshape(entries.shape[0], -1)).viewed(shape)


@rewrite("GlobalMaxPool")
def global_max_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Maximum over all positions of each channel."""
    x = node.tensor(0)
    return extreme(builder, x, range(2, len(x.shape)), keepdims=True, sign=1.0)
