"""The transposed convolution of numpy arrays as one matrix product for each phase of the stride.

Along one axis, output T = Y + origin of a transposed convolution with stride s and dilation d adds up taps i of inputs
y with y s + i d = T. Outputs with the same T mod s read the same taps, at inputs that move by one from output to
output: an ordinary convolution with these taps alone. Its windows are gathered, channels last, so that each is a few
runs of memory, and multiplied by the taps. Nothing is multiplied by the zeros between strides, and nothing is added up
outside of the products.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from mipverify.network.operators import product

BLOCK_BYTES = 2 * 2**20  # of gathered windows: with the outputs they stay in the second- and third-level cache
FEW_CHANNELS = 4  # of the result, up to which it is faster to add up products than to gather what they are made of
PRODUCT_BYTES = 2**20  # of one block of products that are added up: they stay in the second-level cache


@dataclass(frozen=True)
class _Phase:
    """Outputs first, first + s, ... (count of them) read `taps`, of which the first at input `begin`, each next one
    `step` further; for the next output all of these move by one."""

    first: int
    count: int
    taps: tuple[int, ...]
    begin: int
    step: int

    @property
    def end(self) -> int:
        """One past the last input that is read."""
        return self.begin + self.count + self.step * (len(self.taps) - 1)


def _phases(taps: int, size: int, stride: int, dilation: int, origin: int) -> list[_Phase]:
    """The phases of one axis of `size` outputs; those that read nothing have no taps."""
    found = []
    for first in range(min(stride, size)):
        at = first + origin
        own = tuple(i for i in reversed(range(taps)) if (at - i * dilation) % stride == 0)
        begin = (at - own[0] * dilation) // stride if own else 0
        count, step = -(-(size - first) // stride), dilation // math.gcd(dilation, stride)
        found.append(_Phase(first, count, own, begin, step))
    return found


def transposed_convolution(
    a: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Write out[r, Y, X, c] = sum of a[r, y, x, o] weight[o, c, i, j] over all y s + i d = (Y, X) + origin.

    a: rows (R, h, w, O); weight (O, C/groups, kh, kw); out (R, H, W, C). Any of these may be views. Where there are
    groups, o and c are of the same one.
    """
    groups = out.shape[3] // weight.shape[1]
    if groups > 1:
        _by_group(a, weight, out, strides, dilations, origin, groups)
        return
    if out.shape[3] <= FEW_CHANNELS:
        _scattered(a, weight, out, strides, dilations, origin)
        return
    rows, height, width, channels = a.shape
    phases = [
        _phases(weight.shape[axis + 2], out.shape[axis + 1], strides[axis], dilations[axis], origin[axis])
        for axis in (0, 1)
    ]
    used = [[p for p in axis if p.taps] for axis in phases]
    low = [max([0, *(-p.begin for p in axis)]) for axis in used]
    high = [max([0, *(p.end - size for p in axis)]) for axis, size in zip(used, (height, width), strict=True)]
    pairs = list(itertools.product(*phases))
    windows = max(y.count * x.count * len(y.taps) * len(x.taps) for y, x in pairs) * channels
    block = max(1, min(rows, BLOCK_BYTES // (a.itemsize * max(1, windows))))
    padded = np.zeros((block, height + low[0] + high[0], width + low[1] + high[1], channels), a.dtype)
    inside = padded[:, low[0] : low[0] + height, low[1] : low[1] + width]
    gathered = np.empty(block * windows, a.dtype)
    kernels = [
        np.ascontiguousarray(weight[:, :, y.taps][..., x.taps].transpose(2, 3, 0, 1)).reshape(-1, weight.shape[1])
        for y, x in pairs
    ]
    for begin in range(0, rows, block):
        count = min(block, rows - begin)
        inside[:count] = a[begin : begin + count]
        for (y, x), kernel in zip(pairs, kernels, strict=True):
            target = out[begin : begin + count, y.first :: strides[0], x.first :: strides[1]]
            if not len(kernel):
                target[...] = 0
                continue
            view = _windows(padded[:count], y, x, low)
            columns = gathered[: view.size].reshape(view.shape)
            np.copyto(columns, view)
            target[...] = product(columns.reshape(-1, len(kernel)), kernel).reshape(target.shape)


def _scattered(
    a: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    origin: tuple[int, int],
) -> None:
    """The same as one product for all taps, whose results are added up: images of a few channels, channels first."""
    rows, height, width, own = a.shape
    channels, taps = weight.shape[1], weight.shape[2:]
    kernel = np.ascontiguousarray(weight.reshape(own, -1).T)
    reach = [
        max((size - 1) * stride + dilation * (count - 1) + 1, at + extent)
        for size, stride, dilation, count, at, extent in zip(
            (height, width), strides, dilations, taps, origin, out.shape[1:3], strict=True
        )
    ]
    block = max(1, min(rows, PRODUCT_BYTES // (a.itemsize * len(kernel) * height * width)))
    full = np.empty((block, channels, *reach), a.dtype)
    for begin in range(0, rows, block):
        part = a[begin : begin + block]
        products = product(kernel, part.reshape(len(part), height * width, own).transpose(0, 2, 1))
        products = products.reshape(len(part), channels, *taps, height, width)
        target = full[: len(part)]
        target[...] = 0
        for i, j in np.ndindex(*taps):
            y, x = i * dilations[0], j * dilations[1]
            down, right = (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1
            target[:, :, y : y + down : strides[0], x : x + right : strides[1]] += products[:, :, i, j]
        inside = target[:, :, origin[0] : origin[0] + out.shape[1], origin[1] : origin[1] + out.shape[2]]
        out[begin : begin + block] = inside.transpose(0, 2, 3, 1)


def _by_group(
    a: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    origin: tuple[int, int],
    groups: int,
) -> None:
    own, others = weight.shape[0] // groups, weight.shape[1]
    if own == others == 1:
        _by_channel(a, weight, out, strides, dilations, origin)
        return
    for group in range(groups):
        part, back = slice(group * own, (group + 1) * own), slice(group * others, (group + 1) * others)
        transposed_convolution(a[..., part], weight[part], out[..., back], strides, dilations, origin)


def _by_channel(
    a: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    origin: tuple[int, int],
) -> None:
    """A group for each channel: no product of matrices, but one of vectors for each tap."""
    out[...] = 0
    for taps in np.ndindex(*weight.shape[2:]):
        source, target = [], []
        for axis in (0, 1):
            shift, stride = origin[axis] - taps[axis] * dilations[axis], strides[axis]
            first = max(0, -(-shift // stride))
            last = min(a.shape[axis + 1] - 1, (out.shape[axis + 1] - 1 + shift) // stride)
            source.append(slice(first, max(first, last + 1)))
            target.append(slice(first * stride - shift, max(first, last + 1) * stride - shift, stride))
        if source[0].start < source[0].stop and source[1].start < source[1].stop:
            out[:, target[0], target[1]] += a[:, source[0], source[1]] * weight[:, 0, taps[0], taps[1]]


def _windows(padded: np.ndarray, y: _Phase, x: _Phase, low: list[int]) -> np.ndarray:
    """What the outputs of a phase read: (R, outputs, outputs, taps, taps, O), a view."""
    at = padded[:, y.begin + low[0] :, x.begin + low[1] :]
    row, down, right, channel = at.strides
    return np.lib.stride_tricks.as_strided(
        at,
        (len(padded), y.count, x.count, len(y.taps), len(x.taps), padded.shape[3]),
        (row, down, right, down * y.step, right * x.step, channel),
        writeable=False,
    )
