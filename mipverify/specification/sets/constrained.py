"""A set cut by linear inequalities between inputs: of a box, a polytope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, float_up
from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.sets.box import Box
from mipverify.specification.sets.input_set import Floats, InputSet, Proposal

SWEEPS = 3  # over the multipliers of several inequalities


@dataclass(frozen=True, eq=False)
class Multipliers(Proposal):
    """For rows a (R, n) multipliers (R, m) of the inequalities, the positive ones count; within: the evidence for
    a + multipliers @ matrix over the set that they cut, for rule 8."""

    multipliers: Floats
    within: Proposal


@dataclass(frozen=True, eq=False)
class Constrained(InputSet):
    """The points of a set with `matrix @ x <= offset` (m, n), (m,), floats that are taken as exactly what they are."""

    whole: InputSet
    matrix: Floats
    offset: Floats

    @classmethod
    def by(cls, whole: InputSet, rows: Sequence[tuple[ArrayLike, object]]) -> Constrained:
        """By rows `coefficients . x <= limit`, each limit read exactly and rounded up.

        Raises InputError where a row does not fit the set.
        """
        return cls(whole, *linear_rows(rows, whole.size))

    @property
    def box(self) -> Box:
        return self.whole.box

    @property
    def center(self) -> Floats:
        return self.whole.center

    def contains(self, x: ArrayLike) -> bool:
        flat = np.asarray(x).reshape(-1)
        return self.whole.contains(flat) and rows_hold(self.matrix, self.offset, flat)

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        return self.whole.nearest_float32(points)

    def propose(self, rows: Floats, lower: Floats, upper: Floats) -> Multipliers:
        mu = np.zeros((len(rows), len(self.matrix)))
        for _ in range(SWEEPS if len(self.matrix) > 1 else 1):
            for r, row in enumerate(self.matrix):
                rest = rows + mu @ self.matrix - mu[:, [r]] * row
                mu[:, r] = _multiplier(rest, row, float(self.offset[r]), lower, upper)
        within = self.whole.propose(rows + mu @ self.matrix, lower, upper)
        return Multipliers(within.points, mu, within)

    def linear_system(self, low: Floats, high: Floats) -> LinearSystem:
        below = np.full(len(self.offset), -np.inf)
        return self.whole.linear_system(low, high).after_rows(sp.csr_array(self.matrix), below, self.offset)

    def part(self, box: Box) -> Constrained:
        return Constrained(self.whole.part(box), self.matrix, self.offset)

    def __str__(self) -> str:
        return f"{self.whole}, cut by {len(self.offset)} linear inequalit{'y' if len(self.offset) == 1 else 'ies'}"


def linear_rows(rows: Sequence[tuple[ArrayLike, object]], size: int) -> tuple[Floats, Floats]:
    """Rows `coefficients @ x <= limit` as arrays. Raises InputError where a row does not have `size` coefficients."""
    matrix, offset = np.zeros((len(rows), size)), np.zeros(len(rows))
    for r, (coefficients, limit) in enumerate(rows):
        flat = np.asarray(coefficients, np.float64).reshape(-1)
        if flat.size != size or not np.isfinite(flat).all():
            raise InputError(f"input constraint {r}: {flat.size} coefficients for {size} inputs, or one is not finite")
        matrix[r], offset[r] = flat, float_up(exact_number(limit, f"limit of input constraint {r}"))
    return matrix, offset


def rows_hold(matrix: Floats, offset: Floats, x: ArrayLike) -> bool:
    """Whether matrix @ x <= offset at a point (n,) of floats, decided exactly."""
    values = np.asarray(x, np.float64)
    for row, limit in zip(matrix, offset, strict=True):
        near = float(row @ values) - float(limit)
        size = 1e-12 * (float(np.abs(row) @ np.abs(values)) + abs(float(limit)))
        if near > size:
            return False
        if near > -size:
            used = np.flatnonzero(row)
            total = sum((Fraction(float(row[j])) * Fraction(float(values[j])) for j in used), Fraction(0))
            if total > Fraction(float(limit)):
                return False
    return True


def _multiplier(a: Floats, row: Floats, offset: float, lower: Floats, upper: Floats) -> Floats:
    """The multiplier (R,) of one row that raises the bound most: its derivative row . x - offset falls through 0.

    The minimizer's coordinates switch sides one by one, each at its own multiplier, and lower the derivative by what
    their switch changes in row . x.
    """
    used = np.flatnonzero(row)
    if not len(used):
        return np.zeros(len(a))
    own, slopes = row[used], a[:, used]
    low, high = (np.broadcast_to(side[:, used], slopes.shape) for side in (lower, upper))
    with np.errstate(over="ignore"):
        switch = -slopes / own
    ahead = switch > 0
    derivative = (np.where(np.where(switch == 0, own, slopes) > 0, low, high) * own).sum(axis=1) - offset
    drop = np.where(ahead, np.abs(own) * (high - low), 0.0)
    order = np.argsort(np.where(ahead, switch, np.inf), axis=1)
    left = derivative[:, None] - np.cumsum(np.take_along_axis(drop, order, axis=1), axis=1)
    crossing = np.where((left <= 0).any(axis=1), (left <= 0).argmax(axis=1), np.maximum(ahead.sum(axis=1) - 1, 0))
    found = np.take_along_axis(switch, order, axis=1)[np.arange(len(a)), crossing]
    return np.where((derivative > 0) & (found > 0) & np.isfinite(found), found, 0.0)
