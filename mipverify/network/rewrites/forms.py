"""Tensors as exact sums of multiples of others, entry by entry: what tells that two of them agree somewhere.

Coefficients are exact: whether two branches of a Where meet must not depend on rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.builder import Builder, RewriteError, Tensor, Value
from mipverify.network.graph import Affine
from mipverify.network.operators import Identity, Index, Operator, Scale
from mipverify.network.rewrites.exact import ONE, ZERO, Exact

LARGEST_FORM = 1000  # nodes that are looked through
UNIT = Exact(np.asarray(2.0**-53))  # relative error of one rounding in float64


@dataclass
class Multiple:
    """The entries `indices` (n,) of a node times `factor`; the true factor differs from that by at most `slack`."""

    node: int
    indices: np.ndarray
    factor: Exact
    slack: Exact = field(default_factory=lambda: ZERO)

    @property
    def key(self) -> tuple[int, bytes]:
        return self.node, self.indices.tobytes()


@dataclass
class Form:
    """The sum of `parts` and `constant`, which is exact up to `slack`."""

    parts: dict[tuple[int, bytes], Multiple] = field(default_factory=dict)
    constant: Exact = field(default_factory=lambda: ZERO)
    slack: Exact = field(default_factory=lambda: ZERO)

    def add(self, part: Multiple) -> None:
        """Add one multiple, in place."""
        known = self.parts.get(part.key)
        if known is not None:
            factor, slack = known.factor + part.factor, known.slack + part.slack
            part = Multiple(part.node, part.indices, factor, slack)
        if part.factor.is_zero() and part.slack.is_zero():
            self.parts.pop(part.key, None)
        else:
            self.parts[part.key] = part

    def plus(self, other: Form, factor: Exact) -> Form:
        """self + factor * other."""
        size = abs(factor)
        slack = self.slack + size * other.slack
        total = Form(dict(self.parts), self.constant + factor * other.constant, slack)
        for part in other.parts.values():
            total.add(Multiple(part.node, part.indices, factor * part.factor, size * part.slack))
        return total

    def shared_part(self, other: Form) -> tuple[int, bytes] | None:
        """What this form and `other`, in all its entries, both hold a multiple of; None if there is nothing."""
        return next((k for k, part in other.parts.items() if k in self.parts and np.all(part.factor.values != 0)), None)


def form_of(builder: Builder, value: Value, rounded: bool = False, entries: np.ndarray | None = None) -> Form:
    """The flat `entries` of a value (all of them if None) as a form over inputs, ReLUs, and sums that mix entries.

    Products with factors that stand for numbers which are no float64 are looked through only if `rounded`.
    """
    if not isinstance(value, Tensor):
        return Form(constant=Exact.of(value if entries is None else value.reshape(-1)[entries]))
    form, pending = Form(), Form()
    pending.add(Multiple(value.node, np.arange(value.size) if entries is None else entries, ONE))
    for _ in range(LARGEST_FORM):
        if not pending.parts:
            return form
        key = max(pending.parts, key=lambda key: key[0])  # what reads it has been looked through
        part = pending.parts.pop(key)
        node = builder.nodes[part.node]
        if isinstance(node, Affine) and all(_entrywise(t.operator, rounded) for t in node.terms):
            if any(is_torch_array(p) for t in node.terms for p in t.operator.parameters()) or is_torch_array(node.bias):
                raise RewriteError("a choice between tensors with parameters is not supported")
            if node.bias is not None:
                bias = Exact.of(node.bias.reshape(-1)[part.indices])
                form.constant = form.constant + part.factor * bias
                form.slack = form.slack + part.slack * abs(bias)
            for term in node.terms:
                for found in _through(part, term.operator):
                    pending.add(Multiple(term.source, found.indices, found.factor, found.slack))
        else:
            form.add(part)
    raise RewriteError("too many nodes lie between the comparison and what it compares")


def _entrywise(operator: Operator, rounded: bool) -> bool:
    if isinstance(operator, Scale):
        return rounded or not operator.roundings
    return isinstance(operator, (Identity, Index))


def _through(part: Multiple, operator: Operator) -> list[Multiple]:
    """A multiple of the result of an entrywise operator as one of what it reads."""
    if isinstance(operator, Scale):
        factor = Exact.of(np.asarray(operator.weight).reshape(-1)[part.indices])
        product = part.factor * factor
        slack = part.slack * abs(factor)
        if operator.roundings:
            slack = slack + abs(product) * Exact.of(2 * operator.roundings) * UNIT
        return [Multiple(part.node, part.indices, product, slack)]
    if isinstance(operator, Identity):
        return [part]
    assert isinstance(operator, Index)
    indices = operator.indices[part.indices]
    kept = indices >= 0
    if kept.all():
        return [Multiple(part.node, indices, part.factor, part.slack)]
    if not kept.any():
        return []
    return [Multiple(part.node, np.maximum(indices, 0), part.factor.only(kept), part.slack.only(kept))]
