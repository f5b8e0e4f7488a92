"""Clamps, thresholds, comparisons and choices of torch on symbolic tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mipverify.network.builder import Builder, Comparison, RewriteError, Tensor, Value
from mipverify.network.rewrites.activation import bounded, clipped, never_acts, shrunk
from mipverify.network.rewrites.choice import chosen
from mipverify.network.rewrites.indexing import masked
from mipverify.network.rewrites.linear import divided, signed_sum
from mipverify.network.rewrites.maximum import extremum_of


def operand(builder: Builder, value: Any) -> Value:
    """A tensor as it is; a constant as an array, Python numbers in the type that the module computes in."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    if isinstance(value, Comparison):
        raise RewriteError("a comparison jumps: only torch.where and products can take it")
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise RewriteError("not supported for parameters: only for constants")
        return value.cpu().numpy()
    return np.asarray(builder.number(value))


def extremum(builder: Builder, a: Any, b: Any, sign: float) -> Tensor:
    """The maximum (sign 1) or minimum (sign -1) of two tensors, or of one and a constant."""
    return extremum_of(builder, [operand(builder, value) for value in (a, b)], sign)


def clamp(builder: Builder, x: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    """torch.clamp: bounds are numbers or tensors; where they cross, the upper one wins."""
    if isinstance(min, (torch.Tensor, Tensor)) or isinstance(max, (torch.Tensor, Tensor)):
        x = x if min is None else extremum(builder, x, min, 1.0)
        return x if max is None else extremum(builder, x, max, -1.0)
    low, high = (None if bound is None else builder.number(bound) for bound in (min, max))
    low = None if low is None or never_acts(low, 1.0) else float(low)
    high = None if high is None or never_acts(high, -1.0) else float(high)
    return clipped(builder, x, low, high)


def hardtanh(builder: Builder, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: Any = None) -> Tensor:
    """torch.nn.functional.hardtanh."""
    return clamp(builder, x, min_val, max_val)


def hardsigmoid(builder: Builder, x: Tensor, inplace: Any = None) -> Tensor:
    """torch.nn.functional.hardsigmoid: x + 3 clipped to [0, 6], over 6."""
    return divided(builder, clipped(builder, builder.shift(x, np.float64(3)), 0.0, 6.0), np.float64(6))


def softshrink(builder: Builder, x: Tensor, lambd: float = 0.5) -> Tensor:
    """torch.nn.functional.softshrink."""
    return shrunk(builder, x, float(builder.number(lambd)))


def threshold(builder: Builder, x: Tensor, threshold: float, value: float, inplace: Any = None) -> Tensor:
    """torch.nn.functional.threshold, which jumps unless `value` is the threshold."""
    limit, other = builder.number(threshold), builder.number(value)
    if limit != other:
        raise RewriteError(f"it jumps from {other:g} to {limit:g} at its threshold")
    return bounded(builder, x, np.asarray(limit, np.float64), 1.0)


def compared(builder: Builder, a: Any, b: Any, sign: float) -> Comparison:
    """a > b for sign 1, a < b for sign -1; equality may count as either."""
    return Comparison(signed_sum(builder, [(operand(builder, a), sign), (operand(builder, b), -sign)]))


def where(builder: Builder, condition: Any, one: Any, other: Any) -> Tensor:
    """torch.where, behind a comparison or a constant mask."""
    one, other = operand(builder, one), operand(builder, other)
    if isinstance(condition, Comparison):
        return chosen(builder, condition, one, other)
    if not isinstance(condition, torch.Tensor):
        raise RewriteError("the condition must be a comparison or a constant mask")
    return masked(builder, condition.cpu().numpy().astype(bool), one, other)


def masked_fill(builder: Builder, x: Tensor, mask: Any, value: Any) -> Tensor:
    """torch.masked_fill."""
    return where(builder, mask, value, x)
