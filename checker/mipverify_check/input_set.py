"""Sets of inputs: boxes, and what a ball or linear inequalities leave of them; and the least value of rows on these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.maps import Coefficients
from mipverify_check.question import Ball

Split = tuple[np.ndarray, np.ndarray, np.ndarray]  # units, rows, and signs: 1 where the unit is >= 0, -1 where <= 0


@dataclass(frozen=True, eq=False)
class InputSet:
    """lower, upper: (inputs, columns). ball, matrix (m, inputs) and offset (m,): the same for all columns."""

    arithmetic: Arithmetic
    lower: Array
    upper: Array
    ball: Ball | None = None
    matrix: Array | None = None
    offset: Array | None = None

    def least_in(
        self, box: tuple[Array, Array, Split | None], rows: Coefficients, of: Callable[[Array], Array], *how: Any
    ) -> Any:
        """`least` where inputs that ReLUs read are known better: the box (inputs, columns) from lower to upper, and by
        row which of them are >= 0 or <= 0."""
        lower, upper, split = box
        narrower, by = replace(self, lower=lower, upper=upper), of
        if split is not None:
            low, high = (np.array(np.broadcast_to(of(side), (len(side), rows.values.shape[1]))) for side in box[:2])
            units, which, signs = split
            for side, sign, better in ((low, 1, np.maximum), (high, -1, np.minimum)):
                at = units[signs == sign], which[signs == sign]
                side[at] = better(side[at], self.arithmetic.array(0))
            narrower, by = replace(self, lower=low, upper=high), lambda values: values
        found, charged = narrower.least(rows, by, *how)
        narrowed = split is not None or lower is not self.lower or upper is not self.upper
        if self.ball is not None and narrowed:  # which may miss the center, and then the ball says less
            wide, more = self.least(rows, of, *how)
            found[0], found[1:] = np.maximum(found[0], wide[0]), np.minimum(found[1:], wide[1:])
            charged = np.maximum(charged, more)
        return found, charged

    def least(self, rows: Coefficients, of: Callable[[Array], Array], inequalities: Any, both: bool) -> Any:
        """Lower bounds (1, R) of rows over inputs, with `both` also upper ones (2, R); and sums of absolute values.

        `of` takes what is by column to what is by row. inequalities: multipliers (R, m) of matrix @ x <= offset.
        Errors of long sums are taken off here; the second result, times a few roundings, covers what comes later.
        """
        arithmetic, count = self.arithmetic, rows.values.shape[1]
        low, high = self.lower, self.upper
        size = np.maximum(np.abs(low), np.abs(high))
        shift, charged = arithmetic.zeros((count,)), arithmetic.zeros((count,))
        if inequalities is not None and self.matrix is not None and self.offset is not None:
            g: Array = np.maximum(arithmetic.array(inequalities).T, 0)
            weights = np.abs(self.matrix).T @ g
            rows = Coefficients(rows.dense() + self.matrix.T @ g)
            shift = -(self.offset @ g)
            charged = len(g) * ((weights * of(size)).sum(0) + np.abs(self.offset) @ g)
        # x lies in center -+ radius, of which the first is exact whatever it is, and the second rounded up
        center = (low + high) / 2
        radius = np.maximum(high - center, center - low) * (1 + arithmetic.gamma(4)) + arithmetic.floor
        steep = rows.with_values(np.abs(rows.values))
        middle, reach = rows.times(of(center)), steep.times(of(radius))
        charged = charged + len(low) * (steep.times(of(size)) + reach)
        ends = [middle - reach, middle + reach] if both else [middle - reach]
        if self.ball is not None:
            a = rows.dense()
            for i, sign in enumerate((1, -1)[: len(ends)]):
                value, more = self._within_ball(sign * a, of(low), of(high))
                ends[i] = sign * np.maximum(sign * ends[i], value)
                charged = charged + more
        lost = arithmetic.gamma(4) * charged
        found = np.stack([ends[0] + shift - lost] + [end + lost for end in ends[1:]])
        return found, charged / max(1, len(low))

    def _within_ball(self, a: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """a . x0 - R ||S b||* + min of (a - b) . (x - x0) over the box; any b will do (docs/proof-format.md, 4)."""
        ball, arithmetic = self.ball, self.arithmetic
        assert ball is not None
        center, scale = (arithmetic.array(v)[:, None] for v in (ball.center, ball.scale))
        inside = (low <= center) & (center <= high) & (scale > 0)
        steep = np.abs(a) * scale
        room = np.where(a > 0, center - low, high - center)
        room = np.where(inside, room / np.where(scale > 0, scale, arithmetic.array(1)), arithmetic.array(0))
        radius = arithmetic.above(ball.radius)
        level = _level(ball.norm, steep.astype(np.float64), room.astype(np.float64), float(radius))
        level = arithmetic.array(np.nan_to_num(level))
        wanted = np.minimum(steep, level) if ball.norm == "l1" else np.minimum(steep, level * room)
        b = np.where(inside, np.sign(a) * wanted, arithmetic.array(0))  # S b
        wide = arithmetic.gamma(a.shape[0] + 8)
        if ball.norm == "l1":
            dual = np.abs(b).max(0, initial=arithmetic.array(0))
        else:
            dual = _root(arithmetic, b) * (1 + wide) + arithmetic.floor
        c = a - b / np.where(scale > 0, scale, arithmetic.array(1))
        below, above = low - center, high - center
        reach = np.maximum(np.abs(below), np.abs(above))
        rest = np.maximum(c, 0) * below + np.minimum(c, 0) * above
        value = (a * center).sum(0) - radius * dual + rest.sum(0)
        charged = (np.abs(a) * (np.abs(center) + 4 * reach)).sum(0) + radius * dual + np.abs(rest).sum(0)
        # Scale 0 fixes a coordinate, which is left to its interval; so is a center outside of the box.
        return np.where(value == value, value, -np.inf), (a.shape[0] + 8) * charged


def _root(arithmetic: Arithmetic, b: Array) -> Array:
    """The l_2 norm of the columns of b, rounded up; scaled by the largest entry, so that no square underflows."""
    if not arithmetic.exact:
        largest = np.maximum(np.abs(b).max(0, initial=0.0), 2.0**-900)
        return np.asarray(np.sqrt(((b / largest) ** 2).sum(0)) * largest)
    found = []
    for total in (b * b).sum(0):
        guess = Fraction(float(total) ** 0.5)
        while guess * guess < total:
            guess = guess * (1 + Fraction(1, 2**50)) + Fraction(1, 2**1000)
        found.append(guess)
    return np.array(found, dtype=object)


def _level(norm: str, steep: np.ndarray, room: np.ndarray, radius: float) -> np.ndarray:
    """By row, how much of each coefficient the ball answers for; any number is sound."""
    if norm == "l1":
        order = np.argsort(-steep, axis=0)
        used = np.cumsum(np.take_along_axis(room, order, 0), axis=0)
        at = np.minimum((used < radius).sum(0), len(steep) - 1)
        return np.asarray(np.take_along_axis(steep, order, 0)[at, np.arange(steep.shape[1])])
    level = np.sqrt((steep**2).sum(0)) / max(radius, 1e-300)
    for _ in range(8):
        with np.errstate(all="ignore"):
            cut = steep > level * room
            rest = radius**2 - (np.where(cut, room, 0) ** 2).sum(0)
            free = np.sqrt((np.where(cut, 0, steep) ** 2).sum(0))
            level = np.where(rest > 0, free / np.sqrt(np.maximum(rest, 1e-300)), 0.0)
    return np.asarray(level)
