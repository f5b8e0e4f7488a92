"""Comparisons of tensors that depend on the input, and what may be made of them."""

from __future__ import annotations

import numpy as np

from mipverify.network.builder import Builder, Comparison, Tensor
from mipverify.network.rewrites.choice import chosen
from mipverify.network.rewrites.indexing import masked
from mipverify.network.rewrites.linear import signed_sum
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@rewrite("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def comparison(builder: Builder, node: OnnxNode) -> Comparison:
    """Whether a - b (or b - a) is positive; zero may count as either, since only continuous choices are accepted."""
    sign = 1.0 if node.operator.startswith("Greater") else -1.0
    return Comparison(signed_sum(builder, [(node.present(0), sign), (node.present(1), -sign)]))


@rewrite("Not")
def negation(builder: Builder, node: OnnxNode) -> Comparison:
    """The opposite comparison."""
    return opposite(builder, node.comparison(0))


def opposite(builder: Builder, condition: Comparison) -> Comparison:
    """Whether the difference is negative."""
    return Comparison(builder.combine([(condition.difference, -1.0)]))


@rewrite("Where")
def where(builder: Builder, node: OnnxNode) -> Tensor:
    """Entries of one tensor where a condition holds, of another elsewhere."""
    one, other = node.present(1), node.present(2)
    if isinstance(node.inputs[0], np.ndarray):
        return masked(builder, node.inputs[0].astype(bool), one, other)
    return chosen(builder, node.comparison(0), one, other)
