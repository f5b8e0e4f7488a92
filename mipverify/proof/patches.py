"""Rows of convolutional units as patches: only the receptive field of each unit, for many units and boxes at once.

The rounding analysis is that of `pass_back`, with the largest magnitude of a node in place of each entry's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.convolution import Conv
from mipverify.network.operators import product
from mipverify.network.transposed import transposed_convolution
from mipverify.proof.backward import pick, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Lines
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.proof.parts import ROW_BYTES, ROW_WORK, never
from mipverify.proof.recording import entries_passed
from mipverify.proof.rounding import SLACK, constant_terms, floor, gamma, rounding_terms
from mipverify.proof.rows import functionals

CHUNK_BYTES = 4 * 2**20  # of coefficients in one pass
PATCH_WORK = 64  # multiplications in the time that arithmetic on an entry of a patch and its window takes
MATRIX_ENTRIES = 2**22  # a convolution between patches is a dense product up to this size of its matrix


Sides: TypeAlias = tuple[np.ndarray, np.ndarray]


def convolution(network: Network, node: int) -> Conv | None:
    """The convolution behind an affine node that is nothing but one (and a bias); None for any other node."""
    current = network.nodes[node]
    if not isinstance(current, Affine) or len(current.terms) != 1 or current.uncertainty is not None:
        return None
    operator = current.terms[0].operator
    if not isinstance(operator, Conv) or operator.groups > 1:
        return None
    return operator if network.nodes[current.terms[0].source].shape == operator.in_shape else None


def parallel_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> UnitBounds:
    """Bounds (R,), (R,) of single entries `units` of a convolution's output by parallel lines, both sides at once.

    From `stop` on they are infinite.
    """
    return _in_chunks(bounds, node, samples, units, _Walk.parallel, stop)


def adaptive_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> UnitBounds:
    """Bounds (R,), (R,) of single entries `units` of a convolution's output by CROWN's lines.

    From `stop` on they are infinite.
    """
    return _in_chunks(bounds, node, samples, units, _Walk.both, stop)


def _in_chunks(
    bounds: Bounds,
    node: int,
    samples: np.ndarray,
    units: np.ndarray,
    method: Callable[[_Walk], Sides],
    stop: Callable[[], bool],
) -> UnitBounds:
    lows, highs = np.full(len(units), -np.inf), np.full(len(units), np.inf)
    conv = convolution(bounds.network, node)
    assert conv is not None
    like = bounds.lower[0]
    size = CHUNK_BYTES // (conv.weight_as(like)[0].size * like.itemsize)
    size = max(1, min(size, _most_rows(bounds, node, conv, dense=method is _Walk.both)))
    for begin in range(0, len(units), size):
        if stop():
            break
        part = slice(begin, begin + size)
        walk = _Walk(bounds, node, conv, samples[part], units[part])
        lows[part], highs[part] = method(walk)
    how = None
    if bounds.derivation is not None:
        some = np.flatnonzero(np.isfinite(lows) | np.isfinite(highs))
        lines: Lines = "parallel" if method is _Walk.parallel else "adaptive"
        how = entries_passed(bounds, node, units[some], samples[some], lines)
    return UnitBounds(bounds.scope, node, samples, units, lows, highs, seal=SEAL, derivation=how)


def _most_rows(bounds: Bounds, node: int, conv: Conv, dense: bool) -> int:
    """How many units of a node may be passed back together, for the time that it takes and for the memory.

    dense: what no longer pays as patches goes on as whole rows.
    """
    network, current = bounds.network, bounds.network.nodes[node]
    size, work = (1, 1), 0
    while True:
        assert isinstance(current, Affine)
        size = conv.reach(size)
        entries, source = conv.in_shape[1] * size[0] * size[1], current.terms[0].source
        work += PATCH_WORK * entries
        step = _below(network, source, size)
        if step is None:
            break
        node, conv = step
        current = network.nodes[node]
        work += entries * math.prod(conv.weight.shape[1:])
    if not dense:
        return ROW_WORK // work
    work *= 3  # each side by itself, and in float64
    if isinstance(network.nodes[source], Input):
        return ROW_WORK // work
    # Whole rows are formed two or three times on their way.
    rows = ROW_BYTES // (8 * math.prod(network.nodes[source].shape))
    return min(ROW_WORK // (work + 2 * network.work[source]), rows)


def _below(network: Network, source: int, size: tuple[int, ...]) -> tuple[int, Conv] | None:
    """The affine node below a ReLU and its convolution, if patches of this size can stay patches on their way."""
    current = network.nodes[source]
    if not isinstance(current, Relu) or 2 * size[0] * size[1] > current.shape[-1] * current.shape[-2]:
        return None
    below = convolution(network, current.source)
    return None if below is None else (current.source, below)


class _Walk:
    """One chunk of units passed back from a convolution; units at the same place of a box share their windows."""

    def __init__(self, bounds: Bounds, node: int, conv: Conv, samples: np.ndarray, units: np.ndarray):
        self.bounds, self.node, self.conv = bounds, node, conv
        self.samples, self.units = samples, units
        _, _, height, width = conv.out_shape
        self.channel, place = units // (height * width), units % (height * width)
        keys, self.window = np.unique(samples * (height * width) + place, return_inverse=True)
        self.boxes = keys // (height * width)
        place = keys % (height * width)
        self.first = np.stack([place // width, place % width], axis=1)
        self.like = bounds.lower[0]

    def start(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Coefficients, constants, windows' origins in the source node, and that node."""
        affine = self.bounds.network.nodes[self.node]
        assert isinstance(affine, Affine)
        constant = np.zeros(len(self.units), self.like.dtype)
        if affine.bias is not None:
            constant = np.asarray(affine.bias, self.like.dtype).reshape(-1)[self.units]
        # The patch of one unit is its kernel, spread out by the dilation.
        weight = self.conv.weight_as(self.like)
        one = np.eye(len(weight), dtype=self.like.dtype)[:, :, None, None]
        coefficients = _spread(self.conv, one, weight, self.conv.reach((1, 1)))[self.channel]
        return coefficients, constant, _step(self.conv, self.first), affine.terms[0].source

    def parallel(self) -> tuple[np.ndarray, np.ndarray]:
        """Both sides at once, with the upper line's slope on both."""
        a, constant, origin, source = self.start()
        extra = np.zeros_like(constant)  # what the upper side has on top: all offsets
        error = _absolute_sum(constant[:, None], 1.0) * gamma(constant_terms(self.bounds.network), a)
        error = error + pick(self.bounds.underflow[self.node], self.samples)
        bounds, network = self.bounds, self.bounds.network
        while not isinstance(network.nodes[source], Input):
            step = _below(network, source, a.shape[2:])
            if step is None:  # dense from here: leave these to the second pass
                return np.full(len(a), -np.inf), np.full(len(a), np.inf)
            line = bounds.lines[source]
            slope, offset = (self._windows(v, origin, a)[self.window] for v in (line.upper_slope, line.upper_offset))
            error = error + self._error(a, source, step[0])
            negative = _dot(np.minimum(a, 0), offset)
            constant = constant + negative
            extra = extra + _dot(np.abs(a), offset)
            a = a * slope
            a, shift, origin, source, more = self._convolve(step, a, origin)
            constant, error = constant + shift, error + more
        lower, upper = bounds.lower[0], bounds.upper[0]
        low, high = (self._windows(v, origin, a)[self.window] for v in (lower, upper))
        positive = np.maximum(a, 0)
        negative_part = a - positive
        error = error + self._error(a, 0, None) + gamma(constant_terms(network), a) * extra
        lows = _dot(positive, low) + _dot(negative_part, high) + constant
        highs = _dot(positive, high) + _dot(negative_part, low) + constant + extra
        return _rounded(lows, error, -1.0), _rounded(highs, error, 1.0)

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """CROWN's lines, each side by itself."""
        return self._adaptive(1.0), -self._adaptive(-1.0)

    def _adaptive(self, sign: float) -> np.ndarray:
        a, constant, origin, source = self.start()
        a, constant = sign * a, sign * constant
        error = np.abs(constant) * gamma(constant_terms(self.bounds.network), a)
        error = error + pick(self.bounds.underflow[self.node], self.samples)
        bounds, network = self.bounds, self.bounds.network
        while not isinstance(network.nodes[source], Input):
            step = _below(network, source, a.shape[2:])
            if step is None:
                dense = _dense(a, origin[self.window], network.nodes[source].shape)
                found = row_minimum(bounds, functionals({source: dense}, self.samples, constant)).lower
                return np.asarray(found - SLACK * error)
            line = bounds.lines[source]
            below, above, offset = (
                self._windows(v, origin, a)[self.window]
                for v in (line.lower_slope, line.upper_slope, line.upper_offset)
            )
            error = error + self._error(a, source, step[0])
            positive = np.maximum(a, 0)
            negative = a - positive
            constant = constant + _dot(negative, offset)
            a = positive * below + negative * above
            a, shift, origin, source, more = self._convolve(step, a, origin)
            constant, error = constant + shift, error + more
        lower, upper = bounds.lower[0], bounds.upper[0]
        low, high = (self._windows(v, origin, a)[self.window] for v in (lower, upper))
        positive = np.maximum(a, 0)
        value = _dot(positive, low) + _dot(a - positive, high) + constant
        return _rounded(value, error + self._error(a, 0, None), -1.0)

    def _convolve(
        self, step: tuple[int, Conv], a: np.ndarray, origin: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | float, np.ndarray, int, np.ndarray]:
        """Through an affine node: new coefficients, what its bias adds, origins, source, and the error of it."""
        node, conv = step
        affine = self.bounds.network.nodes[node]
        assert isinstance(affine, Affine)
        shift: np.ndarray | float = 0.0
        if affine.bias is not None:
            bias = np.broadcast_to(np.asarray(affine.bias, a.dtype), affine.shape)
            shift = _dot(a, self._windows(bias[None], origin, a)[self.window])
        error = self._error(a, node, None)
        weight, full = conv.weight_as(a), conv.reach(a.shape[2:])
        entries = a[0].size * weight.shape[1] * full[0] * full[1]
        if entries <= MATRIX_ENTRIES and len(a) > 64:
            units = np.eye(a[0].size, dtype=a.dtype).reshape(-1, *a.shape[1:])
            matrix = _spread(conv, units, weight, full).reshape(a[0].size, -1)
            passed = product(a.reshape(len(a), -1), matrix).reshape(len(a), -1, *full)
        else:
            passed = _spread(conv, a, weight, full)
        return passed, shift, _step(conv, origin), affine.terms[0].source, error

    def _error(self, a: np.ndarray, node: int, below: int | None) -> np.ndarray:
        """Rounding errors of passing rows through a node, with the largest magnitude in it: coarse, but one sum."""
        network, nodes = self.bounds.network, [node] if below is None else [node, below]
        largest = np.zeros(len(self.boxes), a.dtype)
        for index in nodes:
            magnitude = self.bounds.magnitudes[index]
            peak = magnitude.reshape(len(magnitude), -1).max(axis=1)
            largest = np.maximum(largest, peak[self.boxes] if len(peak) > 1 else peak)
        current = network.nodes[node]
        own = rounding_terms(current) if isinstance(current, Affine) else 0
        terms = 2 * a[0].size + own + constant_terms(network) + 16
        return _absolute_sum(a, gamma(terms, a)) * largest[self.window]

    def _windows(self, values: np.ndarray, origin: np.ndarray, a: np.ndarray) -> np.ndarray:
        """The values (B, 1, C, H, W) under each window (P, C, h, w); zero beyond the border."""
        h, w = a.shape[2:]
        boxes = self.boxes if len(values) > 1 else np.zeros_like(self.boxes)
        begin, end = int(boxes.min()), int(boxes.max()) + 1
        low = np.minimum(origin.min(axis=0), 0)
        high = np.maximum(np.add(origin.max(axis=0), (h, w)), values.shape[-2:]) - values.shape[-2:]
        near = values[begin:end, 0]
        padded = np.zeros((*near.shape[:2], *(near.shape[-2:] + high - low)), values.dtype)
        padded[:, :, -low[0] : near.shape[2] - low[0], -low[1] : near.shape[3] - low[1]] = near
        windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(2, 3))
        return windows[boxes - begin, :, origin[:, 0] - low[0], origin[:, 1] - low[1]]


def _step(conv: Conv, origin: np.ndarray) -> np.ndarray:
    """Where in the input of a convolution the window begins that an output window at `origin` reaches."""
    return origin * np.array(conv.strides) - np.array(conv.pads[:2])


def _spread(conv: Conv, a: np.ndarray, weight: np.ndarray, full: tuple[int, int]) -> np.ndarray:
    out = np.empty((len(a), weight.shape[1], *full), a.dtype)
    transposed_convolution(a.transpose(0, 2, 3, 1), weight, out.transpose(0, 2, 3, 1), conv.strides, conv.dilations)
    return out


def _absolute_sum(a: np.ndarray, factor: float) -> np.ndarray:
    return factor * np.abs(a.reshape(len(a), -1)).sum(axis=1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ri,ri->r", a.reshape(len(a), -1), b.reshape(len(b), -1))


def _rounded(value: np.ndarray, error: np.ndarray, side: float) -> np.ndarray:
    """The value moved outward (side -1 down, +1 up) by its error, in float64; infinite where it is not finite."""
    error = SLACK * error.astype(np.float64) + 64 * gamma(1, value) * np.abs(value) + floor(value)
    bound = value.astype(np.float64) + side * error
    return np.where(np.isfinite(bound), bound, side * np.inf)


def _dense(a: np.ndarray, origin: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Patches as dense rows (R, *shape); what lies beyond the border multiplies zeros and is dropped."""
    rows, channels, h, w = a.shape
    low = np.minimum(origin.min(axis=0), 0)
    size = np.maximum(np.add(origin.max(axis=0), (h, w)), shape[-2:]) - low
    out = np.zeros((rows, channels, int(size[0]), int(size[1])), a.dtype)
    y = (origin[:, 0] - low[0])[:, None, None, None] + np.arange(h)[None, None, :, None]
    x = (origin[:, 1] - low[1])[:, None, None, None] + np.arange(w)[None, None, None, :]
    out[np.arange(rows)[:, None, None, None], np.arange(channels)[None, :, None, None], y, x] = a
    out = out[:, :, -low[0] : -low[0] + shape[-2], -low[1] : -low[1] + shape[-1]]
    return np.ascontiguousarray(out).reshape(rows, *shape)
