"""Coefficients on windows: what rows of units of a convolutional network reach of an image, instead of all of it.

A unit at place (y, x) of its node reaches a window of each node below it, which begins at (y, x) * stride + offset: the
same stride, offset and size for all units of the node. Residual sums and concatenations lead to windows of one stride
again, and the window around both is taken. Where it has become half of the image, rows go on as whole ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mipverify.network import Affine, Input, Network, Node, Relu
from mipverify.network.convolution import Conv
from mipverify.network.operators import Identity, Index, Operator, product
from mipverify.network.transposed import transposed_convolution
from mipverify.proof.parts import RowCosts
from mipverify.proof.rounding import dot_terms, row_dot

MATRIX_ENTRIES = 2**22  # a convolution between windows is one dense product up to this size of its matrix
GATHERING = 20  # multiplications in the time that it takes to gather an entry for an ordinary product


@dataclass(frozen=True, eq=False)
class Windows:
    """Coefficients (R, h, w, C) of rows on a window of a node (1, C, H, W) each; beyond the border they mean nothing.

    The window of a row that stands for a unit at `place` begins at place * stride + offset.
    """

    coefficients: np.ndarray
    stride: tuple[int, int]
    offset: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.coefficients.shape[1], self.coefficients.shape[2]

    def dot(self, coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums (R,) of coefficients times values (R, h, w, C)."""
        return np.asarray(row_dot(coefficients, values))

    def with_negated(self) -> Windows:
        """The rows, and behind them the same with the other sign."""
        return self.replaced(np.concatenate([self.coefficients, -self.coefficients]))

    def replaced(self, coefficients: np.ndarray) -> Windows:
        """Other coefficients on the same windows."""
        return Windows(coefficients, self.stride, self.offset)


Passed: TypeAlias = Windows | np.ndarray  # rows on windows, or whole ones (R, *shape)


def windowed(network: Network, node: int) -> bool:
    """Whether rows of single units of a node are windows of what it reads."""
    current = network.nodes[node]
    if not isinstance(current, Affine) or _image(current) is None or _steps(network, current) is None:
        return False
    return any(isinstance(term.operator, Conv) for term in current.terms)


def _image(node: Node) -> tuple[int, ...] | None:
    """The shape (1, C, H, W) of a node that has channels, rows and columns; None for others."""
    return node.shape if len(node.shape) == 4 and node.shape[0] == 1 else None


_Step: TypeAlias = Conv | np.ndarray | None  # a convolution; for each channel the one of the source; as they are


def _steps(network: Network, node: Affine) -> list[_Step] | None:
    """How windows of an affine node become those of each term's source; None where they do not stay windows."""
    if node.error_bound is not None:
        return None
    found: list[_Step] = []
    for term in node.terms:
        source = network.nodes[term.source]
        if _image(source) is None:
            return None
        if isinstance(term.operator, Conv):
            if (term.operator.in_shape, term.operator.out_shape) != (source.shape, node.shape):
                return None  # the values are there in another shape
            found.append(term.operator)
        elif isinstance(term.operator, Identity) and source.shape == node.shape:
            found.append(None)
        else:
            channels = _channels(term.operator, source.shape, node.shape)
            if channels is None:
                return None
            found.append(channels)
    return found


def _channels(operator: Operator, source: tuple[int, ...], target: tuple[int, ...]) -> np.ndarray | None:
    """For each channel of the target that of the source which an operator copies to it, or -1 for zeros; else None."""
    if not isinstance(operator, Index) or operator.terms > 1 or source[2:] != target[2:]:
        return None
    size = math.prod(source[2:])
    indices = operator.indices.reshape(target[1], size)
    channels = np.where(indices[:, 0] < 0, -1, indices[:, 0] // size)
    whole = np.where(channels[:, None] < 0, -1, channels[:, None] * size + np.arange(size))
    return channels if np.array_equal(indices, whole) else None


class Images(RowCosts):
    """What windows of the units of one node share: node values with channels last, and matrices of convolutions."""

    def __init__(self, network: Network, node: int):
        self.network, self.node = network, node
        super().__init__()
        self._padded: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
        self._matrices: dict[tuple[int, int], np.ndarray] = {}
        self._known: dict[int, list[_Step] | None] = {}
        self._largest: dict[int, np.ndarray] = {}

    def field(self, samples: np.ndarray | None, units: np.ndarray) -> Field:
        """Some units on their way; samples: the entry of each, None where all share one."""
        return Field(self, samples, units)

    def steps(self, node: int) -> list[_Step] | None:
        """How windows pass through an affine node; None where they do not."""
        if node not in self._known:
            current = self.network.nodes[node]
            assert isinstance(current, Affine)
            self._known[node] = _steps(self.network, current)
        return self._known[node]

    def padded(self, node: int, name: str, values: np.ndarray, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, 1, C, H, W) as (B, H', W', C) with zeros around for all windows, and how many before (2,)."""
        if (node, name) not in self._padded:
            extent, size = np.array(values.shape[-2:]), np.array(windows.size)
            places = np.array(self.network.nodes[self.node].shape[-2:])
            low = np.maximum(-np.array(windows.offset), 0)
            end = (places - 1) * windows.stride + windows.offset + size
            high = np.maximum(end - extent, 0)
            padded = np.zeros((len(values), *(low + extent + high), values.shape[2]), values.dtype)
            inside = padded[:, low[0] : low[0] + extent[0], low[1] : low[1] + extent[1]]
            inside[...] = values[:, 0].transpose(0, 2, 3, 1)
            self._padded[node, name] = padded, low
        return self._padded[node, name]

    def largest(self, node: int, magnitudes: np.ndarray) -> np.ndarray:
        """The largest magnitude of a node in each entry (B,)."""
        if node not in self._largest:
            self._largest[node] = magnitudes.reshape(len(magnitudes), -1).max(axis=1)
        return self._largest[node]

    def matrix(self, node: int, term: int, conv: Conv, windows: Windows, full: tuple[int, int]) -> np.ndarray | None:
        """The convolution between windows as one matrix, where that pays; None elsewhere."""
        a = windows.coefficients
        count, target = a[0].size, full[0] * full[1] * conv.in_shape[1]
        taps = conv.weight.shape[2] * conv.weight.shape[3] / (conv.strides[0] * conv.strides[1])
        channels = conv.in_shape[1]
        worth = windows.size[0] * windows.size[1] * channels <= taps * (channels + GATHERING)
        if conv.groups > 1 or count * target > MATRIX_ENTRIES or not worth:
            return None
        if (node, term) not in self._matrices:
            units = np.eye(count, dtype=a.dtype).reshape(-1, *a.shape[1:])
            self._matrices[node, term] = _spread(conv, units, full).reshape(count, -1)
        return self._matrices[node, term]

    def first(self, term: int, conv: Conv, like: np.ndarray) -> np.ndarray:
        """The windows of one unit of each channel (O, kh, kw, C): the kernel, spread out by the dilation."""
        if (self.node, term) not in self._matrices:
            out = conv.out_shape[1]
            one = np.eye(out, dtype=like.dtype).reshape(out, 1, 1, out)
            self._matrices[self.node, term] = _spread(conv, one, conv.reach((1, 1)))
        return self._matrices[self.node, term]


class Field:
    """Rows of some units of a node on their way: where their windows are, and how these pass through nodes.

    units (R,): flat indices into the node; samples (R,): the entry of each, None where all share one. sides: rows of
    each unit.
    """

    def __init__(self, images: Images, samples: np.ndarray | None, units: np.ndarray, sides: int = 1):
        self.images, self.network, self.samples, self.units, self.sides = images, images.network, samples, units, sides
        _, _, height, width = self.network.nodes[images.node].shape
        self.channel, place = units // (height * width), units % (height * width)
        self.places = np.stack([place // width, place % width], axis=1)

    def twice(self) -> Field:
        """For the same rows, and behind them the same once more."""
        samples = None if self.samples is None else np.tile(self.samples, 2)
        return Field(self.images, samples, np.tile(self.units, 2), 2)

    def start(self, like: np.ndarray) -> dict[int, Passed]:
        """The units as windows of what their node reads, in the dtype of `like`."""
        node = self.network.nodes[self.images.node]
        steps = self.images.steps(self.images.node)
        assert isinstance(node, Affine)
        assert steps is not None
        found: dict[int, Passed] = {}
        for place, (term, step) in enumerate(zip(node.terms, steps, strict=True)):
            if isinstance(step, Conv):
                top, left = step.pads[:2]
                own = self.images.first(place, step, like)[self.channel]
                windows = Windows(own, step.strides, (-top, -left))
            else:
                one = np.zeros((len(self.channel), 1, 1, self.network.nodes[term.source].shape[1]), like.dtype)
                channel = self.channel if step is None else step[self.channel]
                one[channel >= 0, 0, 0, channel[channel >= 0]] = 1
                windows = Windows(one, (1, 1), (0, 0))
            both = found.get(term.source)
            found[term.source] = windows if both is None else self.add(both, windows, term.source)
        return found

    def arrived(self, index: int, rows: Passed) -> Passed:
        """Rows that reached a node, as whole ones where windows no longer pay, or do not go on from there."""
        node = self.network.nodes[index]
        if isinstance(rows, Windows) and not self._stays(index, node, rows):
            rows = self.whole(index, rows)
        if isinstance(rows, Windows) and isinstance(node, Affine):
            rows = self._inside(index, rows)
        entries, work = math.prod((rows.coefficients if isinstance(rows, Windows) else rows).shape[1:]), 0
        for term in node.terms if isinstance(node, Affine) else ():
            operator = term.operator
            if isinstance(rows, Windows) and isinstance(operator, Conv):
                work += entries * math.prod(operator.weight.shape[1:])
            else:
                work += entries if isinstance(rows, Windows) else operator.work
        self.images.count(index, self.sides * entries, self.sides * work)
        return rows

    def _stays(self, index: int, node: Node, rows: Windows) -> bool:
        height, width = node.shape[-2:]
        if 2 * rows.size[0] * rows.size[1] > height * width:
            return False
        if isinstance(node, Relu):
            return self.network.nodes[node.source].shape == node.shape
        return isinstance(node, Input) or self.images.steps(index) is not None

    def _inside(self, index: int, rows: Windows) -> Windows:
        """Zeros beyond the border, where a convolution would make coefficients within it of what stands there.

        After a ReLU, zeros are there already: beyond the border there are no lines.
        """
        at = self.places * rows.stride + rows.offset
        extent, size = self.network.nodes[index].shape[-2:], rows.size
        beyond = np.flatnonzero(((at < 0) | (at + size > extent)).any(axis=1))
        if not len(beyond):
            return rows
        y, x = (at[beyond, axis, None] + np.arange(size[axis]) for axis in (0, 1))
        inside = ((y >= 0) & (y < extent[0]))[:, :, None] & ((x >= 0) & (x < extent[1]))[:, None]
        coefficients = rows.coefficients.copy()
        coefficients[beyond] = np.where(inside[..., None], coefficients[beyond], 0)
        return rows.replaced(coefficients)

    def add(self, one: Passed, other: Passed, index: int) -> Passed:
        """The sum of rows at a node."""
        if isinstance(one, Windows) and isinstance(other, Windows) and one.stride == other.stride:
            return _sum(one, other)
        return np.asarray(self.whole(index, one) + self.whole(index, other))

    def through(self, index: int, node: Affine, windows: Windows) -> list[tuple[int, Passed]]:
        """Windows of an affine node as those of what it reads."""
        steps, found = self.images.steps(index), list[tuple[int, Passed]]()
        assert steps is not None
        for place, (term, step) in enumerate(zip(node.terms, steps, strict=True)):
            if isinstance(step, Conv):
                back = self._convolved(index, place, step, windows)
            elif step is None:
                back = windows
            else:
                moved = np.zeros((*windows.coefficients.shape[:3], self.network.nodes[term.source].shape[1]))
                moved = moved.astype(windows.coefficients.dtype)
                moved[..., step[step >= 0]] = windows.coefficients[..., step >= 0]
                back = windows.replaced(moved)
            found.append((term.source, back))
        return found

    def _convolved(self, index: int, term: int, conv: Conv, windows: Windows) -> Windows:
        a, full = windows.coefficients, conv.reach(windows.size)
        matrix = self.images.matrix(index, term, conv, windows, full)
        if matrix is None:
            passed = _spread(conv, a, full)
        else:
            passed = product(a.reshape(len(a), -1), matrix).reshape(len(a), *full, -1)
        (sh, sw), (top, left) = conv.strides, conv.pads[:2]
        stride = windows.stride[0] * sh, windows.stride[1] * sw
        return Windows(passed, stride, (windows.offset[0] * sh - top, windows.offset[1] * sw - left))

    def under(self, index: int, name: str, values: np.ndarray, windows: Windows) -> np.ndarray:
        """The values (B, 1, C, H, W) of a node under the window of each row (R, h, w, C); zero beyond the border.

        name: what these values are, for whoever asks again.
        """
        padded, low = self.images.padded(index, name, values, windows)
        y, x = (self.places * windows.stride + windows.offset + low).T
        sample = 0 if self.samples is None or len(padded) == 1 else self.samples
        return np.asarray(_sliding(padded, windows.size)[sample, y, x])

    def error(self, index: int, magnitudes: np.ndarray, rows: Windows) -> tuple[np.ndarray, int]:
        """Absolute values of rows times the largest magnitude of a node (R,), and how many roundings that takes."""
        a = rows.coefficients
        entries = math.prod(a.shape[1:])
        largest = self.images.largest(index, magnitudes)
        own = largest if self.samples is None or len(largest) == 1 else largest[self.samples]
        return row_dot(np.abs(a), np.ones((1, entries), a.dtype)) * own, dot_terms(entries)

    def whole(self, index: int, rows: Passed) -> np.ndarray:
        """Rows as whole ones (R, *shape)."""
        if not isinstance(rows, Windows):
            return rows
        shape, a = self.network.nodes[index].shape, rows.coefficients
        origin = self.places * rows.stride + rows.offset
        low = np.minimum(origin.min(axis=0), 0)
        height, width = (int(n) for n in np.maximum(origin.max(axis=0) + rows.size, shape[-2:]) - low)
        out = np.zeros((len(a), height, width, a.shape[3]), a.dtype)
        _sliding(out, rows.size)[np.arange(len(a)), origin[:, 0] - low[0], origin[:, 1] - low[1]] = a
        out = out[:, -low[0] : -low[0] + shape[-2], -low[1] : -low[1] + shape[-1]]
        return np.ascontiguousarray(out.transpose(0, 3, 1, 2)).reshape(len(a), *shape)


def _sliding(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """All windows of a size of images (B, H, W, C): a view (B, rows, columns, h, w, C)."""
    batch, height, width, channels = images.shape
    strides = images.strides
    return np.lib.stride_tricks.as_strided(
        images,
        (batch, height - size[0] + 1, width - size[1] + 1, *size, channels),
        (*strides[:3], strides[1], strides[2], strides[3]),
    )


def _spread(conv: Conv, a: np.ndarray, full: tuple[int, int]) -> np.ndarray:
    """Windows (R, h, w, O) of the output of a convolution as windows (R, *full, C) of its input."""
    out = np.empty((len(a), *full, conv.in_shape[1]), a.dtype)
    transposed_convolution(a, conv.weight_as(a), out, conv.strides, conv.dilations)
    return out


def _sum(one: Windows, other: Windows) -> Windows:
    """The sum of windows of one stride, on the windows around both."""
    if (one.offset, one.size) == (other.offset, other.size):
        return one.replaced(one.coefficients + other.coefficients)
    low = np.minimum(one.offset, other.offset)
    size = np.maximum(np.add(one.offset, one.size), np.add(other.offset, other.size)) - low
    total = np.zeros(
        (len(one.coefficients), *(int(n) for n in size), one.coefficients.shape[3]), one.coefficients.dtype
    )
    for own in (one, other):
        (y, x), (h, w) = np.subtract(own.offset, low), own.size
        total[:, y : y + h, x : x + w] += own.coefficients
    return Windows(total, one.stride, (int(low[0]), int(low[1])))
