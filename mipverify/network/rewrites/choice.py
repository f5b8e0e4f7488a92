"""The choice between two tensors by a comparison: ReLUs, where the two meet as the comparison turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.network.builder import Builder, Comparison, RewriteError, Tensor, Value, scaling
from mipverify.network.graph import Relu
from mipverify.network.operators import Identity, Operator
from mipverify.network.rewrites.exact import ONE, ZERO, Exact
from mipverify.network.rewrites.forms import UNIT, Form, Multiple, form_of


def chosen(builder: Builder, condition: Comparison, one: Value, other: Value) -> Tensor:
    """`one` where `condition` holds, else `other`; all broadcast. With d the difference that is compared, this is

        other + [d > 0] (one - other),

    and if one - other = k d + relu(a_1 d + b_1) + ..., each product with [d > 0] is a ReLU again or a jump. Raises
    RewriteError at a jump, or where the branches have no such form.
    """
    shape = np.broadcast_shapes(condition.shape, one.shape, other.shape)
    d = builder.broadcast(condition.difference, shape)
    one, other = (_broadcast(builder, value, shape) for value in (one, other))
    try:
        split = _split(builder, d, one, other, rounded=False)
    except RewriteError:
        split = _split(builder, d, one, other, rounded=True)
    terms: list[tuple[Tensor, Operator]] = [(other, Identity(shape))] if isinstance(other, Tensor) else []
    if not split.slope.is_zero():
        terms.append((builder.relu(d), _scaling(split.slope, split.slack, shape)))
    for part in split.kept:
        terms.append((builder.move(builder.value(part.node), part.indices), _scaling(part.factor, part.slack, shape)))
    for bend in split.bends:
        line = builder.affine([(d, _scaling(bend.slope, ZERO, shape))], shape, _offset(bend.offset, shape))
        terms.append((builder.relu(line), _scaling(bend.factor, ZERO, shape)))
    return builder.affine(terms, shape, None if isinstance(other, Tensor) else other)


def _broadcast(builder: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    return builder.broadcast(value, shape) if isinstance(value, Tensor) else np.broadcast_to(value, shape)


def _split(builder: Builder, d: Tensor, one: Value, other: Value, rounded: bool) -> _Split:
    """[d > 0] (one - other) taken apart; with `rounded`, also through factors that are no exact numbers (x / 3)."""
    gap = form_of(builder, one, rounded).plus(form_of(builder, other, rounded), -ONE)
    split = _Split(builder, form_of(builder, d, rounded))
    split.take(gap)
    return split


@dataclass
class _Bend:
    """factor * relu(slope d + offset)."""

    factor: Exact
    slope: Exact
    offset: Exact


class _Split:
    """[d > 0] times a form, taken apart: slope relu(d), ReLUs that vanish for d <= 0 anyway, and new ReLUs of d."""

    def __init__(self, builder: Builder, difference: Form):
        self.builder, self.difference = builder, difference
        self.slope, self.slack = ZERO, ZERO
        self.kept: list[Multiple] = []
        self.bends: list[_Bend] = []

    def take(self, gap: Form) -> None:
        """Take all of `gap`; raises RewriteError if something is left over."""
        gap = self._without_multiple(gap)
        for part in list(gap.parts.values()):
            if isinstance(self.builder.nodes[part.node], Relu):
                gap = self._without_relu(gap, part)
        gap = self._without_multiple(gap)
        if gap.parts:
            raise RewriteError("its branches are not known to meet where the comparison turns")
        if not gap.constant.is_zero() or not gap.slack.is_zero():
            jump = float(np.max(abs(gap.constant.rounded())))
            raise RewriteError(f"its branches do not meet where the comparison turns: it jumps by up to {jump:g}")

    def _without_multiple(self, gap: Form) -> Form:
        """`gap` without the multiple of d in it, which is exact unless d is a multiple of one tensor itself."""
        key = gap.shared_part(self.difference)
        if key is None:
            return gap
        ours, theirs = gap.parts[key], self.difference.parts[key]
        factor = ours.factor / theirs.factor
        rest = gap.plus(self.difference, -factor)
        if not ours.slack.is_zero():
            if len(self.difference.parts) > 1 or not self.difference.constant.is_zero() or not theirs.slack.is_zero():
                return gap
            self.slack = self.slack + ours.slack / abs(theirs.factor)
            rest.parts.pop(key)
        self.slope = self.slope + factor
        return rest

    def _without_relu(self, gap: Form, part: Multiple) -> Form:
        """`gap` without one multiple of a ReLU, if that reads a line a d + b; what bends beyond d = 0 is put aside."""
        source = self.builder.nodes[part.node]
        assert isinstance(source, Relu)
        line = form_of(self.builder, self.builder.value(source.source), False, part.indices)
        key = line.shared_part(self.difference)
        a = ZERO if key is None else line.parts[key].factor / self.difference.parts[key].factor
        rest = line.plus(self.difference, -a)
        if rest.parts or not rest.slack.is_zero() or not part.slack.is_zero():
            return gap
        b, factor = rest.constant, part.factor
        rises, falls, before = a.values > 0, a.values < 0, b.values > 0
        late, early = rises & (b.values < 0), falls & before  # begins, or ends, somewhere in d > 0
        linear = (~falls & (b.values >= 0)) | early  # a line near d = 0
        if np.any(late):
            self.kept.append(Multiple(part.node, part.indices, factor.only(late)))
        if np.any(early):
            self.bends.append(_Bend(factor.only(early), (-a).only(early), (-b).only(early)))
        near = factor.only(linear)
        gap = Form(dict(gap.parts), gap.constant + near * b, gap.slack)
        gap.add(Multiple(part.node, part.indices, -part.factor))
        self.slope = self.slope + near * a
        return gap


def _shaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers for all entries of a tensor of `shape`, or one for all, so that they broadcast."""
    return values.reshape(shape if values.ndim else ())


def _offset(values: Exact, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that float64 holds as they are."""
    rounded = values.rounded()
    if not (Exact(rounded) - values).is_zero():
        raise RewriteError("a bend of its result lies at a place that float64 does not hold")
    return _shaped(rounded, shape)


def _scaling(factor: Exact, slack: Exact, shape: tuple[int, ...]) -> Operator:
    """Multiplication by `factor`, whose roundings are counted with what it is uncertain by."""
    rounded = factor.rounded()
    missing = abs(Exact(rounded) - factor) + slack
    roundings = 0
    if not missing.is_zero():
        lost, size = np.broadcast_arrays(missing.values, abs(factor).values)
        some = np.flatnonzero(lost != 0)
        if np.any(size.reshape(-1)[some] == 0):
            raise RewriteError("its branches are not known to differ where the comparison turns")
        ratio = Exact(lost.reshape(-1)[some]) / (Exact(size.reshape(-1)[some]) * UNIT)
        roundings = 1 + int(max(ratio.fractions))
    return scaling(_shaped(rounded, shape), shape, roundings)
