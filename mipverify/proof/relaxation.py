"""The linear relaxation of ReLUs between proven bounds: a lower line through the origin and an upper line."""

from __future__ import annotations

from dataclasses import dataclass

from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array
from mipverify.proof.rounding import floor


@dataclass(frozen=True, eq=False)
class Relaxation:
    """`lower_slope x <= relu(x) <= upper_slope x + upper_offset` for every x within the bounds; all (B, *shape)."""

    lower_slope: Array
    upper_slope: Array
    upper_offset: Array


def relax(lower: Array, upper: Array) -> Relaxation:
    """The relaxation of CROWN [Zhang et al. 2018]: the upper line is the triangle's; the lower slope is 0 or 1.

    Sound in exact arithmetic: any lower slope in [0, 1] is, and the offset belongs to the rounded upper slope.
    """
    xp = array_namespace(lower)
    one = xp.ones_like(lower)
    zero = xp.zeros_like(lower)
    active, unstable = lower >= 0, (lower < 0) & (upper > 0)
    width = xp.where(unstable, upper - lower, one)
    slope = xp.where(unstable, xp.clip(upper / width, min=0, max=1), xp.where(active, one, zero))
    # relu is convex, so its distance to a line is largest at an end of the interval.
    gap = xp.maximum(upper - slope * upper, -slope * lower)
    roundoff = 4 * float(xp.finfo(lower.dtype).eps)
    offset = xp.where(unstable, gap * (1 + roundoff) + roundoff * xp.abs(upper) + floor(lower), zero)
    adaptive = xp.where(upper > -lower, one, zero)
    return Relaxation(xp.where(unstable, adaptive, slope), slope, offset)
