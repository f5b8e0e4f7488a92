"""Tensors as exact sums of multiples of others, entry by entry: what tells that two of them agree somewhere.

Coefficients are fractions in object arrays, of shape () where all entries have the same and (n,) elsewhere: constants
of networks are floating-point numbers, and whether two branches of a Where meet must not depend on rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from mipverify.network.builder import Builder, RewriteError, Tensor, Value
from mipverify.network.graph import Affine
from mipverify.network.operators import Identity, Index, Operator, Scale

Exact = np.ndarray  # of fractions, shape () or (n,)
ZERO = np.array(Fraction(0), dtype=object)
LARGEST_FORM = 1000  # nodes that are looked through
UNIT = Fraction(1, 2**53)  # relative error of one rounding in float64


def exact(values: Any) -> Exact:
    """Numbers as fractions; of shape () if they are all the same."""
    flat = np.asarray(values).reshape(-1)
    if flat.dtype == object:
        same = all(value == flat[0] for value in flat[1:])
    else:
        same = bool((flat == flat[0]).all())
        if not np.isfinite(flat).all():
            raise RewriteError("a constant holds infinity or NaN")
    if same:
        return _array(Fraction(flat[0] if flat.dtype == object else flat[0].item()))
    return np.array([Fraction(value) for value in flat.tolist()], dtype=object)


def _array(value: Any) -> Exact:
    """The result of arithmetic on object arrays, which numpy unpacks where it has no axes."""
    return np.asarray(value, dtype=object)


def zero(values: Exact) -> bool:
    """Whether all of them are."""
    return not np.any(values != 0)


def only(kept: Any, values: Exact) -> Exact:
    """The values where `kept` is set, zero elsewhere."""
    return exact(np.where(kept, values, ZERO))


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
            factor, slack = _array(known.factor + part.factor), _array(known.slack + part.slack)
            part = Multiple(part.node, part.indices, factor, slack)
        if zero(part.factor) and zero(part.slack):
            self.parts.pop(part.key, None)
        else:
            self.parts[part.key] = part

    def plus(self, other: Form, factor: Exact) -> Form:
        """self + factor * other."""
        size = abs(factor)
        slack = _array(self.slack + size * other.slack)
        total = Form(dict(self.parts), _array(self.constant + factor * other.constant), slack)
        for part in other.parts.values():
            total.add(Multiple(part.node, part.indices, _array(factor * part.factor), _array(size * part.slack)))
        return total

    def shared_part(self, other: Form) -> tuple[int, bytes] | None:
        """What this form and `other`, in all its entries, both hold a multiple of; None if there is nothing."""
        return next((k for k, part in other.parts.items() if k in self.parts and np.all(part.factor != 0)), None)


def form_of(builder: Builder, value: Value, rounded: bool = False, entries: np.ndarray | None = None) -> Form:
    """The flat `entries` of a value (all of them if None) as a form over inputs, ReLUs, and sums that mix entries.

    Products with factors that stand for numbers which are no float64 are looked through only if `rounded`.
    """
    if not isinstance(value, Tensor):
        return Form(constant=exact(value if entries is None else value.reshape(-1)[entries]))
    form, pending = Form(), Form()
    pending.add(Multiple(value.node, np.arange(value.size) if entries is None else entries, exact(1)))
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
                bias = exact(node.bias.reshape(-1)[part.indices])
                form.constant = _array(form.constant + part.factor * bias)
                form.slack = _array(form.slack + part.slack * abs(bias))
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
        factor = exact(np.asarray(operator.weight).reshape(-1)[part.indices])
        slack = _array(part.slack * abs(factor) + abs(part.factor * factor) * operator.roundings * 2 * UNIT)
        return [Multiple(part.node, part.indices, _array(part.factor * factor), slack)]
    if isinstance(operator, Identity):
        return [part]
    assert isinstance(operator, Index)
    indices = operator.indices[part.indices]
    kept = indices >= 0
    if kept.all():
        return [Multiple(part.node, indices, part.factor, part.slack)]
    if not kept.any():
        return []
    return [Multiple(part.node, np.maximum(indices, 0), only(kept, part.factor), only(kept, part.slack))]
