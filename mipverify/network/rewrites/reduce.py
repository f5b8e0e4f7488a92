"""Sums, means and extrema over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipverify.network.builder import Builder, Tensor, positions
from mipverify.network.operators import Dense
from mipverify.network.rewrites.activation import absolute_value
from mipverify.network.rewrites.maximum import tournament
from mipverify.network.rewrites.registry import OnnxNode, axis_of, rewrite


@rewrite("ReduceSum", "ReduceMean", "ReduceL1", "ReduceMax", "ReduceMin")
def reduce(builder: Builder, node: OnnxNode) -> Tensor:
    """Sum, mean, sum of absolute values, maximum or minimum over axes."""
    x, operator, keepdims = node.tensor(0), node.operator, node.get("keepdims", 1) == 1  # any other number is none
    axes = reduced_axes(node, x)
    x = absolute_value(builder, x) if operator == "ReduceL1" else x
    if axes is None:
        return x
    if operator in ("ReduceMax", "ReduceMin"):
        return extreme(builder, x, axes, keepdims, sign=1.0 if operator == "ReduceMax" else -1.0)
    return reduced(builder, x, axes, keepdims, mean=operator == "ReduceMean")


def reduced_axes(node: OnnxNode, x: Tensor) -> list[int] | None:
    """The axes a Reduce operator runs over, or None if it does nothing."""
    axes = node.integers("axes", 1)
    if not axes:
        return None if node.get("noop_with_empty_axes", 0) == 1 else list(range(len(x.shape)))
    return sorted({axis_of(axis, len(x.shape)) for axis in axes})


def gathered(builder: Builder, x: Tensor, axes: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """x as (kept entries, entries along `axes`), and the shape with `axes` set to 1."""
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    count = math.prod(x.shape[axis] for axis in axes)
    order = np.transpose(positions(x.shape), [*kept, *axes]).reshape(-1, count)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return builder.move(x, order), shape


def reduced(builder: Builder, x: Tensor, axes: Sequence[int], keepdims: bool, mean: bool) -> Tensor:
    """Sum or mean of x over `axes`."""
    rows, kept = gathered(builder, x, axes)
    count = rows.shape[1]
    weight = np.full((1, count), 1.0 / count if mean else 1.0)
    operator = Dense(weight, rows.shape[:1] if rows.shape[0] > 1 else ())
    if mean and count & (count - 1):
        operator.terms += 1  # the weight 1 / count is itself rounded
    shape = kept if keepdims else tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return builder.affine([(rows, operator)], shape)


def extreme(builder: Builder, x: Tensor, axes: Sequence[int], keepdims: bool, sign: float) -> Tensor:
    """Maximum (sign 1) or minimum (sign -1) of x over `axes`."""
    rows, kept = gathered(builder, x if sign > 0 else builder.combine([(x, -1.0)]), axes)
    y = tournament(builder, rows, positions(rows.shape).T)
    y = y if sign > 0 else builder.combine([(y, -1.0)])
    return y.viewed(kept if keepdims else [size for axis, size in enumerate(x.shape) if axis not in axes])


@rewrite("CumSum")
def cumulative_sum(builder: Builder, node: OnnxNode) -> Tensor:
    """Sums of all entries up to each along an axis, by doubling: log2(n) nodes of two terms each."""
    x, reverse = node.tensor(0), bool(node.get("reverse", 0))
    axis = axis_of(int(node.constant(1, "the axis").reshape(())), len(x.shape))
    indices, count = positions(x.shape), x.shape[axis]

    def moved(y: Tensor, step: int) -> Tensor:
        from_, to = (slice(None, count - step), slice(step, None))
        from_, to = (to, from_) if reverse else (from_, to)
        places = np.full(x.shape, -1)
        lead = (slice(None),) * axis
        places[(*lead, to)] = indices[(*lead, from_)]
        return builder.move(y, places)

    y = moved(x, 1) if node.get("exclusive", 0) else x
    step = 1
    while step < count:
        y = builder.combine([(y, 1.0), (moved(y, step), 1.0)])
        step *= 2
    return y
