"""The least value of linear rows over an input set (rule 8), and which sets are seen to lie in which (rule 2).

A ball: write the coefficients as a = b + c. Then a . d >= -radius ||b||_dual + min over the box of c . d, for every
split. Inequalities G x <= h: for any multipliers mu >= 0, a . x >= (a + mu G) . x - mu . h. So the search that an input
set makes for them, in `propose`, costs tightness when it is rough, never soundness.

A set of a kind that is not known here is taken for its box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mipverify.proof.rounding import SLACK, floor, gamma
from mipverify.specification.norms import L1, L2, Norm
from mipverify.specification.sets import Ball, BallInBox, Constrained, Image, InputSet, Product, Proposal
from mipverify.specification.sets.ball import BallSplit
from mipverify.specification.sets.constrained import Multipliers
from mipverify.specification.sets.product import PartProposals


@dataclass(frozen=True, eq=False)
class _Least:
    """What a rule has computed for rows (R, n): a lower bound `value` (R,), `magnitude` (R,), which the rounding errors
    of its sums are relative to, all others in `error` (R,), and `reach`, above what an error of 1 in every coefficient
    changes beyond the box."""

    value: np.ndarray
    magnitude: np.ndarray
    error: np.ndarray | float = 0.0
    reach: float = 0.0


def set_minimum(
    inputs: InputSet, a: np.ndarray, lower: np.ndarray, upper: np.ndarray, evidence: Proposal | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows a (R, n) over the parts of an input set in boxes lower, upper (R or 1, n).

    evidence: for these rows; by default what the set proposes. Returns a lower bound (R,) of a . x, and a bound (R,) of
    the rounding errors in it, not yet subtracted.
    """
    rows, lower, upper = (np.asarray(v, np.float64) for v in (a, lower, upper))
    found = _least(inputs, inputs.propose(rows, lower, upper) if evidence is None else evidence, rows, lower, upper)
    size = np.maximum(np.abs(lower), np.abs(upper))
    underflow = floor(rows) * (1 + size.sum(axis=1) + found.reach)
    error = found.error + gamma(6 * rows.shape[1] + 40, rows) * found.magnitude + underflow
    if a.dtype != np.float32:
        return found.value, SLACK * error
    # The value is rounded once more; where it underflows, `rounded_down` covers that.
    error = error + gamma(1, a) * np.abs(found.value)
    return found.value.astype(a.dtype), (SLACK * error).astype(a.dtype)


def _least(inputs: InputSet, evidence: Proposal, a: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Least:
    """The rule for the kind of set, from evidence of its kind."""
    match inputs, evidence:
        case Image(), _:
            return _least(inputs.parameters, evidence, a, lower, upper)
        case BallInBox(), BallSplit() if type(inputs.ball.norm) in DUALS:
            return _in_ball(inputs.ball, evidence.share, a, lower, upper)
        case Constrained(), Multipliers():
            return _constrained(inputs, evidence, a, lower, upper)
        case Product(), PartProposals():
            return _product(inputs, evidence, a, lower, upper)
    value = np.maximum(a, 0) * lower + np.minimum(a, 0) * upper
    return _Least(value.sum(axis=1), np.abs(value).sum(axis=1))


def _constrained(
    inputs: Constrained, evidence: Multipliers, a: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> _Least:
    """Inequalities with multipliers, of which the positive ones count."""
    matrix, offset = inputs.matrix, inputs.offset
    mu = np.maximum(evidence.multipliers, 0.0)
    constant = -(mu @ offset)
    a = a + mu @ matrix
    inner = _least(inputs.whole, evidence.within, a, lower, upper)
    size = np.maximum(np.abs(lower), np.abs(upper))
    terms = gamma(2 * len(matrix) + 8, a)
    error = terms * (((np.abs(a) + mu @ np.abs(matrix)) * size).sum(axis=1) + mu @ np.abs(offset))
    magnitude = inner.magnitude + np.abs(constant)
    return _Least(inner.value + constant, magnitude, error + inner.error, inner.reach)


def _product(inputs: Product, evidence: PartProposals, a: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Least:
    """The minimum of a sum over sets that do not depend on each other is the sum of the minima."""
    found = [
        _least(each, part, a[:, some], lower[:, some], upper[:, some])
        for each, part, some in zip(inputs.sets, evidence.parts, inputs.slices, strict=True)
    ]
    value, magnitude, error = (sum(getattr(part, name) for part in found) for name in ("value", "magnitude", "error"))
    return _Least(value, magnitude, error, sum(part.reach for part in found))


def _in_ball(ball: Ball, share: np.ndarray, a: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Least:
    """A split of the rows' absolute values, scaled, into what the ball bounds and what the box bounds."""
    radius = float(np.nextafter(float(ball.radius), np.inf))
    down, up = lower - ball.center, upper - ball.center
    room = np.where(a > 0, -down, up)  # how far each coordinate may go the way that pays; a scale of 0 fixes it
    scaled = np.abs(a) * ball.scale
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(ball.scale > 0, room / ball.scale, 0.0)
    inside = np.minimum(np.maximum(share, 0.0), scaled)
    dual = DUALS[type(ball.norm)](inside)
    value = a @ ball.center - (radius * dual + ((scaled - inside) * room).sum(axis=1))
    magnitude = np.abs(a) @ np.abs(ball.center) + radius * dual + (scaled * np.abs(room)).sum(axis=1)
    reach = float(ball.radius) * (1 + float(ball.scale.sum())) + float(np.abs(ball.center).sum())
    return _Least(value, magnitude, reach=reach)


def _largest(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.max(axis=1, initial=0.0))


def _euclidean(values: np.ndarray) -> np.ndarray:
    # In parts of a power of two just above the largest value: no square that matters underflows.
    exponent = np.frexp(values.max(axis=1, initial=0.0))[1][:, None]
    part = np.ldexp(values, -exponent)
    return np.asarray(np.ldexp(np.sqrt((part * part).sum(axis=1)), exponent[:, 0]))


# The dual norm (R,) of nonnegative values (R, n), up to the rounding of a sum of n products.
DUALS: Mapping[type[Norm], Callable[[np.ndarray], np.ndarray]] = MappingProxyType({L1: _largest, L2: _euclidean})


def lies_in(inner: InputSet | None, outer: InputSet | None) -> bool:
    """Whether what cuts `outer` out of its box is seen to cut `inner`, too; the boxes are not compared."""
    inner, outer = (each.parameters if isinstance(each, Image) else each for each in (inner, outer))
    if outer is inner or outer is None or outer.is_box:
        return True
    if isinstance(outer, Constrained):
        return _meets(inner, outer) and lies_in(inner, outer.whole)
    if isinstance(inner, Constrained):
        return lies_in(inner.whole, outer)
    if isinstance(outer, Product) and isinstance(inner, Product):
        alike = [each.size for each in outer.sets] == [each.size for each in inner.sets]
        return alike and all(map(lies_in, inner.sets, outer.sets))
    if isinstance(outer, BallInBox) and isinstance(inner, BallInBox):
        one, two = inner.ball, outer.ball
        same = np.array_equal(one.center, two.center) and np.array_equal(one.scale, two.scale)
        return type(one.norm) is type(two.norm) and same and one.radius <= two.radius
    return False


def _meets(inner: InputSet | None, outer: Constrained) -> bool:
    """Whether a set has been cut by just these inequalities."""
    while isinstance(inner, Constrained):
        if np.array_equal(inner.matrix, outer.matrix) and (inner.offset <= outer.offset).all():
            return True
        inner = inner.whole
    return False
