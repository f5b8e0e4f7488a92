"""Piecewise-linear activations as ReLUs plus affine terms."""

from __future__ import annotations

import numpy as np
from array_api_compat import is_torch_array

from mipverify.network.builder import Builder, RewriteError, Tensor, multiple, scaling
from mipverify.network.operators import Array, Identity
from mipverify.network.rewrites.registry import OnnxNode, rewrite

_LARGEST = float(np.finfo(np.float32).max)  # a bound of a clip at or beyond it never acts on float32 values


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


@rewrite("Abs")
def absolute(builder: Builder, node: OnnxNode) -> Tensor:
    """|x|."""
    return absolute_value(builder, node.tensor(0))


def absolute_value(builder: Builder, x: Tensor) -> Tensor:
    """|x| = 2 relu(x) - x."""
    return builder.combine([(builder.relu(x), 2.0), (x, -1.0)])


@rewrite("Clip")
def clip(builder: Builder, node: OnnxNode) -> Tensor:
    """x moved into [min, max], two constants either of which may be missing."""
    bounds = []
    for index, name in ((1, "min"), (2, "max")):
        constant = node.optional_constant(index, name)
        value = node.get(name) if constant is None else float(np.asarray(constant).reshape(()))
        bounds.append(None if value is None or abs(value) >= _LARGEST else float(np.float32(value)))
    return clipped(builder, node.tensor(0), bounds[0], bounds[1])


def clipped(builder: Builder, x: Tensor, low: float | None, high: float | None) -> Tensor:
    """low + relu(x - low) - relu(x - high)."""
    if low is not None and high is not None and low > high:
        low = high  # ONNX: the upper bound wins
    if low is None and high is None:
        return x
    if low is None or high is None:
        bound = low if low is not None else high
        sign = 1.0 if high is None else -1.0  # bound + relu(x - bound), or bound - relu(bound - x)
        beyond = builder.relu(builder.combine([(x, sign)], _offset(-sign * bound) if bound else None))
        return builder.combine([(beyond, sign)], _offset(bound))
    above_low = builder.relu(builder.shift(x, _offset(-low)) if low else x)
    above_high = builder.relu(builder.shift(x, _offset(-high)) if high else x)
    terms = [(above_low, Identity(x.shape)), (above_high, multiple(-1.0, x.shape))]
    return builder.affine(terms, x.shape, _offset(low))


def _offset(value: float | None) -> np.ndarray:
    return np.asarray(value or 0.0, dtype=np.float64)
