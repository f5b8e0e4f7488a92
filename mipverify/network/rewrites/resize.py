"""Resize and Upsample: nearest entries, or interpolation between two along each axis.

Coordinates are computed in float32, as ONNX Runtime does: which entry is nearest depends on how they are rounded, and
the weights of an interpolation are then exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipverify.network.builder import Builder, RewriteError, Tensor, limited, positions
from mipverify.network.rewrites.indexing import masked
from mipverify.network.rewrites.registry import OnnxNode, axis_of, rewrite

F = np.float32
HALF = F(0.5)


@dataclass(frozen=True)
class Axis:
    """How one axis of `size` entries becomes one of `count`, from a region of it between `start` and `end`."""

    size: int
    count: int
    scale: np.float32
    start: np.float32
    end: np.float32

    def coordinates(self, mode: str) -> np.ndarray:
        """Where in the original each new entry lies (count,), in float32."""
        if mode not in _COORDINATES:
            raise RewriteError(f"coordinate_transformation_mode {mode!r} is not supported")
        return np.asarray(_COORDINATES[mode](np.arange(self.count, dtype=F), self), dtype=F)


def _symmetric(x: np.ndarray, axis: Axis) -> np.ndarray:
    """Half-pixel coordinates moved so that the centres of both agree where the scale does not divide."""
    adjustment = F(axis.count) / (axis.scale * F(axis.size))
    offset = F(axis.size) / F(2) * (F(1) - adjustment)
    return np.float64(offset) + (x.astype(np.float64) + 0.5) / np.float64(axis.scale) - 0.5


def _cropped(x: np.ndarray, axis: Axis) -> np.ndarray:
    last = F(axis.size - 1)
    if axis.count == 1:
        return np.array([0.5 * np.float64(axis.start + axis.end) * np.float64(last)])
    return axis.start * last + x * (axis.end - axis.start) * last / F(axis.count - 1)


_COORDINATES: dict[str, Callable[[np.ndarray, Axis], np.ndarray]] = {
    "half_pixel": lambda x, axis: (x + HALF) / axis.scale - HALF,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda x, axis: (x + HALF) / axis.scale - HALF if axis.count > 1 else np.zeros(1),
    "align_corners": lambda x, axis: x * F(axis.size - 1) / F(axis.count - 1) if axis.count > 1 else np.zeros(1),
    "asymmetric": lambda x, axis: x / axis.scale,
    "tf_half_pixel_for_nn": lambda x, axis: (x + HALF) / axis.scale,
    "tf_crop_and_resize": _cropped,
}
_NEAREST: dict[str, Callable[[np.ndarray, bool], np.ndarray]] = {
    "round_prefer_floor": lambda x, shrinks: np.where(x == np.trunc(x) + HALF, np.floor(x), _rounded(x)),
    "round_prefer_ceil": lambda x, shrinks: _rounded(x),
    "floor": lambda x, shrinks: np.floor(x),
    "ceil": lambda x, shrinks: np.ceil(x),
    "simple": lambda x, shrinks: np.ceil(x) if shrinks else np.trunc(x),
}


def _rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero."""
    to_half = np.abs(np.abs(x - np.trunc(x)) - HALF)
    if np.any((to_half > 0) & (to_half < F(1e-5) * np.maximum(F(1), np.abs(x)))):
        raise RewriteError("a coordinate lies so close to the middle of two entries that rounding decides between them")
    return np.trunc(x) + np.where(np.abs(x - np.trunc(x)) >= HALF, np.sign(x), F(0))


@rewrite("Resize", "Upsample")
def resize(builder: Builder, node: OnnxNode) -> Tensor:
    """The tensor in another size, axis by axis."""
    x, mode = node.tensor(0), str(node.get("mode", "nearest"))
    if mode not in ("nearest", "linear"):
        raise RewriteError(f"mode {mode!r} is not supported: only nearest and linear are")
    if node.get("antialias", 0):
        raise RewriteError("antialias is not supported")
    recent = node.operator == "Resize" and node.opset >= 11  # before, there was one way to find coordinates
    transformation = str(node.get("coordinate_transformation_mode", "half_pixel")) if recent else "asymmetric"
    axes = _axes(node, x.shape, transformation == "tf_crop_and_resize")
    if all(axis.count == axis.size for axis in axes):
        return x  # ONNX Runtime does not look at coordinates then
    changed = [i for i, axis in enumerate(axes) if axis.scale != 1]
    limited([axis.count for axis in axes])
    if transformation == "align_corners" and any(axis.count not in (1, axis.scale * F(axis.size)) for axis in axes):
        raise RewriteError("corners cannot be aligned where a scale does not give a whole size: give sizes instead")
    places = {i: axes[i].coordinates(transformation) for i in changed}
    if mode == "nearest":
        way = str(node.get("nearest_mode", "round_prefer_floor")) if recent else "simple"
        if way not in _NEAREST:
            raise RewriteError(f"nearest_mode {way!r} is not known")
        indices = positions(x.shape)
        for i, place in places.items():
            nearest = _NEAREST[way](place, bool(axes[i].scale < 1)).astype(np.int64)
            indices = np.take(indices, np.clip(nearest, 0, axes[i].size - 1), axis=i)
        y = builder.move(x, indices)
    else:
        if len(x.shape) > 2 and sum(axis.scale != 1 for axis in axes) > 3:
            raise RewriteError("interpolation along more than three axes is not supported")
        y = x
        for i, place in places.items():
            y = interpolated(builder, y, i, place)
    if transformation != "tf_crop_and_resize":
        return y
    outside = np.zeros(y.shape, bool)
    for i, place in places.items():
        beyond = (place < 0) | (place > axes[i].size - 1)
        outside |= beyond.reshape([-1 if axis == i else 1 for axis in range(len(axes))])
    return masked(builder, outside, np.asarray(node.get("extrapolation_value", 0.0), F), y)


def interpolated(builder: Builder, x: Tensor, axis: int, places: np.ndarray) -> Tensor:
    """x at the float32 coordinates `places` along `axis`, between two entries by their distances."""
    import scipy.sparse

    size, count = x.shape[axis], len(places)
    places = np.clip(places, F(0), F(size - 1)).astype(np.float64)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    weights = [np.where(low == high, 0.5, distance) for distance in (high - places, places - low)]
    where = (np.concatenate([low, high]), np.tile(np.arange(count), 2))
    return weighted(builder, x, axis, scipy.sparse.coo_array((np.concatenate(weights), where), shape=(size, count)))


def weighted(builder: Builder, x: Tensor, axis: int, weights: Any) -> Tensor:
    """Sums along `axis` with `weights` (size, count), dense or sparse: the axis gets `count` entries."""
    import scipy.sparse

    entries = scipy.sparse.csr_array(weights).tocoo()  # what is named twice adds up
    shape = (*x.shape[:axis], entries.shape[1], *x.shape[axis + 1 :])
    limited([*x.shape[:axis], entries.nnz, *x.shape[axis + 1 :]])
    rows = np.take(positions(shape), entries.col, axis=axis)
    columns = np.take(positions(x.shape), entries.row, axis=axis)
    line = [-1 if i == axis else 1 for i in range(len(shape))]
    values = np.broadcast_to(entries.data.reshape(line), rows.shape)
    where = (rows.reshape(-1), columns.reshape(-1))
    matrix = scipy.sparse.csr_array((values.reshape(-1), where), shape=(math.prod(shape), x.size))
    matrix.eliminate_zeros()
    return builder.sparse(x, matrix, shape)


def _axes(node: OnnxNode, shape: tuple[int, ...], cropped: bool) -> list[Axis]:
    """What becomes of each axis of a tensor of `shape`."""
    rank = len(shape)
    named = node.integers("axes") or list(range(rank))
    where = [axis_of(axis, rank) for axis in named]
    recent = node.operator == "Resize" and node.opset >= 11
    given = node.get("scales") if node.opset < 9 else node.optional_constant(2 if recent else 1, "scales")
    sizes = node.optional_constant(3, "sizes") if recent else None
    scales, counts = [F(1)] * rank, list(shape)
    if given is not None and np.size(given):
        _check_count(given, where, "scales")
        for axis, scale in zip(where, np.asarray(given, dtype=F).reshape(-1), strict=True):
            if not 0 < scale < math.inf:
                raise RewriteError(f"a scale is {scale}")
            scales[axis], counts[axis] = scale, int(scale * F(shape[axis]))
    elif sizes is not None and sizes.size:
        _check_count(sizes, where, "sizes")
        for axis, count in zip(where, sizes.reshape(-1).tolist(), strict=True):
            scales[axis], counts[axis] = F(count) / F(shape[axis]), int(count)
        policy = str(node.get("keep_aspect_ratio_policy", "stretch"))
        if policy not in ("stretch", "not_larger", "not_smaller"):
            raise RewriteError(f"keep_aspect_ratio_policy {policy!r} is not known")
        if policy != "stretch":
            common = (min if policy == "not_larger" else max)(scales[axis] for axis in where)
            for axis in where:
                scales[axis], counts[axis] = common, int(np.floor(common * F(shape[axis]) + HALF))
    else:
        raise RewriteError("neither scales nor sizes are given")
    if min(counts) < 1:
        raise RewriteError(f"the result would be empty: {counts}")
    region = _region(node, where, rank) if cropped else [(F(0), F(1))] * rank
    return [Axis(shape[i], counts[i], scales[i], *region[i]) for i in range(rank)]


def _check_count(values: Sequence[float] | np.ndarray, where: list[int], what: str) -> None:
    if np.size(values) != len(where):
        raise RewriteError(f"{np.size(values)} {what} for {len(where)} axes")


def _region(node: OnnxNode, where: list[int], rank: int) -> list[tuple[np.float32, np.float32]]:
    """Start and end of the region along each axis, as shares of it."""
    roi = node.constant(1, "the region").reshape(-1).astype(F)
    if len(roi) != 2 * len(where):
        raise RewriteError(f"the region has {len(roi)} numbers for {len(where)} axes")
    region = [(F(0), F(1))] * rank
    for i, axis in enumerate(where):
        region[axis] = (roi[i], roi[len(where) + i])
    return region
