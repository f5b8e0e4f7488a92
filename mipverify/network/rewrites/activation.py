"""Piecewise-linear activations as ReLUs plus affine terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.builder import Builder, RewriteError, Tensor, multiple, scaling
from mipverify.network.operators import Array, Identity
from mipverify.network.rewrites.registry import OnnxNode, rewrite

_FAR = 2.0**24  # a bound in float32 beside which numbers of the size of 1 vanish


@rewrite("Relu")
def relu(builder: Builder, node: OnnxNode) -> Tensor:
    """max(0, x)."""
    return builder.relu(node.tensor(0))


@rewrite("LeakyRelu")
def leaky_relu(builder: Builder, node: OnnxNode) -> Tensor:
    """x where it is positive, alpha x elsewhere."""
    return leaky(builder, node.tensor(0), np.float64(np.float32(node.get("alpha", 0.01))))


@rewrite("PRelu")
def prelu(builder: Builder, node: OnnxNode) -> Tensor:
    """LeakyRelu with a slope for each entry."""
    x, slope = node.tensor(0), node.constant(1, "slope")
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise RewriteError(f"a slope of shape {list(slope.shape)} does not broadcast to {list(x.shape)}")
    return leaky(builder, x, slope)


def leaky(builder: Builder, x: Tensor, slope: Array) -> Tensor:
    """slope x + (1 - slope) relu(x); `slope` broadcasts to x, and 1 - slope is rounded at most once."""
    rest = 1.0 - (slope.double() if is_torch_array(slope) else np.asarray(slope, dtype=np.float64))
    active = builder.relu(x)
    terms = [(x, scaling(slope, x.shape)), (active, scaling(rest, x.shape, roundings=1))]
    return builder.affine(terms, x.shape)


@rewrite("HardSigmoid")
def hard_sigmoid(builder: Builder, node: OnnxNode) -> Tensor:
    """alpha x + beta, clipped to [0, 1]."""
    alpha, beta = (np.float64(np.float32(node.get(name, default))) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    x = node.tensor(0)
    return clipped(builder, builder.affine([(x, multiple(alpha, x.shape))], x.shape, np.asarray(beta)), 0.0, 1.0)


@rewrite("ThresholdedRelu")
def thresholded_relu(builder: Builder, node: OnnxNode) -> Tensor:
    """x where it is above alpha, else 0: it jumps by alpha."""
    if node.get("alpha", 1.0) != 0:
        raise RewriteError(f"it jumps from 0 to {node.get('alpha', 1.0):g} at its threshold")
    return builder.relu(node.tensor(0))


@rewrite("Shrink")
def shrink(builder: Builder, node: OnnxNode) -> Tensor:
    """x moved towards zero by bias where it is further from there than lambd, else 0."""
    x, limit, bias = node.tensor(0), float(node.get("lambd", 0.5)), float(node.get("bias", 0.0))
    if bias == 0 and limit <= 0:
        return x
    if bias != limit or limit < 0:
        raise RewriteError(f"it jumps from 0 to {limit - bias:g} at its threshold")
    return shrunk(builder, x, limit)


def shrunk(builder: Builder, x: Tensor, limit: float) -> Tensor:
    """x moved towards zero by `limit`, and no further than there."""
    above = builder.relu(builder.shift(x, _offset(-limit)))
    below = builder.relu(builder.combine([(x, -1.0)], _offset(-limit)))
    return builder.combine([(above, 1.0), (below, -1.0)])


@rewrite("Abs")
def absolute(builder: Builder, node: OnnxNode) -> Tensor:
    """|x|."""
    return absolute_value(builder, node.tensor(0))


def absolute_value(builder: Builder, x: Tensor) -> Tensor:
    """|x| = 2 relu(x) - x."""
    return builder.combine([(builder.relu(x), 2.0), (x, -1.0)])


@rewrite("Clip")
def clip(builder: Builder, node: OnnxNode) -> Tensor:
    """x moved into [min, max], two constants either of which may be missing; where they cross, max wins."""
    low, high = _bound(node, 1, "min"), _bound(node, 2, "max")
    low = None if low is None or never_acts(low, 1.0) else low
    high = None if high is None or never_acts(high, -1.0) else high
    return clipped(builder, node.tensor(0), *(None if bound is None else float(bound) for bound in (low, high)))


def _bound(node: OnnxNode, index: int, name: str) -> Any:
    """A bound as a number of its own type (attributes, which opsets before 11 have, are float32), or None."""
    constant = node.optional_constant(index, name)
    if constant is None:
        value = node.get(name)
        return None if value is None else np.float32(value)
    if constant.size != 1:
        raise RewriteError(f"{name} must be one number, not a tensor of shape {list(constant.shape)}")
    return constant.reshape(())[()]


def never_acts(bound: Any, sign: float) -> Any:
    """Where max(x, bound) for sign 1, min(x, bound) for sign -1, is x for every number of the type of `bound`.

    So it is for the lowest number of the type, or -infinity, in a maximum, and for the highest one in a minimum. The
    highest one in a maximum is a bound like all others.
    """
    limits = np.finfo(bound.dtype)
    return bound <= limits.min if sign > 0 else bound >= limits.max


def clipped(builder: Builder, x: Tensor, low: float | None, high: float | None) -> Tensor:
    """low + relu(x - low) - relu(x - high)."""
    if low is None and high is None:
        return x
    if low is not None and high is not None and low >= high:
        return builder.constant(np.full(x.shape, high))
    if low is not None and high is not None and max(abs(low), abs(high)) < _FAR:
        above_low = builder.relu(builder.shift(x, _offset(-low)) if low else x)
        above_high = builder.relu(builder.shift(x, _offset(-high)) if high else x)
        terms = [(above_low, Identity(x.shape)), (above_high, multiple(-1.0, x.shape))]
        return builder.affine(terms, x.shape, _offset(low))
    x = x if low is None else bounded(builder, x, _offset(low), 1.0)
    return x if high is None else bounded(builder, x, _offset(high), -1.0)


def bounded(builder: Builder, x: Tensor, bound: np.ndarray, sign: float) -> Tensor:
    """max(x, bound) for sign 1, min(x, bound) for sign -1: bound + relu(x - bound), or bound - relu(bound - x).

    Beside bounds far out, x would vanish in that difference: there, x + relu(bound - x) or x - relu(x - bound).
    """
    if np.abs(bound).min() >= _FAR:
        beyond = builder.relu(builder.combine([(x, -sign)], sign * bound))
        return builder.combine([(x, 1.0), (beyond, sign)])
    beyond = builder.relu(builder.combine([(x, sign)], -sign * bound if bound.any() else None))
    return builder.combine([(beyond, sign)], bound)


def _offset(value: float) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)
