"""A set cut by linear inequalities between inputs: of a box, a polytope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, float_up
from mipverify.specification.linear_system import LinearSystem, widened
from mipverify.specification.sets.box import Box
from mipverify.specification.sets.input_set import Floats, InputSet, Proposal

SWEEPS = 3  # over the multipliers of several inequalities
TANGENT_ROUNDS = 30  # while a point deep within the inequalities is looked for
SHORT = 1e-4  # by which a point is drawn further than to the inequalities, relative to the way
PROJECTIONS = 4  # onto the inequalities and the set that they cut, in turn


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

    @cached_property
    def center(self) -> Floats:
        """The middle of the whole set where the inequalities hold there, else a point deep within them."""
        middle = self.whole.center
        if (self.matrix @ middle < self.offset).all():
            return middle
        deep = _deep_point(self.whole, self.matrix, self.offset)
        return middle if deep is None else deep

    def contains(self, x: ArrayLike) -> bool:
        flat = np.asarray(x).reshape(-1)
        return self.whole.contains(flat) and rows_hold(self.matrix, self.offset, flat)

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        x = self.whole.nearest_float32(points)
        for _ in range(PROJECTIONS):
            out = self._outside(x)
            if not len(out):
                return x
            x[out] = self.whole.nearest_float32(self._projected(x[out].astype(np.float64)))
        out = self._outside(x)
        if len(out):
            x[out] = self.whole.nearest_float32(self._drawn(x[out].astype(np.float64)))
        return x

    def _outside(self, x: NDArray[np.float32]) -> NDArray[np.intp]:
        """Which of some points (R, n) do not meet the inequalities, decided exactly."""
        wide = x.astype(np.float64)
        excess = wide @ self.matrix.T - self.offset
        error_bound = 2.0**-52 * (self.size + 2) * (np.abs(wide) @ np.abs(self.matrix).T + np.abs(self.offset))
        out = np.flatnonzero((excess > -error_bound).any(axis=1))
        sure = np.asarray((excess[out] > error_bound[out]).any(axis=1))
        held = [not far and rows_hold(self.matrix, self.offset, wide[k]) for k, far in zip(out, sure, strict=True)]
        return out[~np.array(held, bool)]

    @cached_property
    def _size(self) -> Floats:
        """What rounding a point to float32 may change in each row (m,), and twice that of float64."""
        low, high = self.box.float32_lower, self.box.float32_upper
        reach = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
        return np.asarray(2.0**-23 * (np.abs(self.matrix) @ reach) + 2.0**-50 * np.abs(self.offset))

    def _projected(self, x: Floats) -> Floats:
        """Points (R, n) moved onto each inequality in turn, a little further than rounding brings them back."""
        for row, limit, size in zip(self.matrix, self.offset, self._size, strict=True):
            square = float(row @ row)
            if square > 0:
                x = x - np.maximum(x @ row - limit + size, 0.0)[:, None] * (row / square)
        return x

    def _drawn(self, x: Floats) -> Floats:
        """Points (R, n) drawn toward the center until all inequalities hold."""
        room = self.offset - self.matrix @ self.center - 2 * self._size
        rise = (x - self.center) @ self.matrix.T
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(rise > 0, np.maximum(room, 0.0) / rise, 1.0).min(axis=1, initial=1.0) * (1 - SHORT)
        return np.asarray(self.center + share[:, None] * (x - self.center))

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
        return self.whole.linear_system(low, high).after_rows(scipy.sparse.csr_array(self.matrix), below, self.offset)

    def part(self, box: Box) -> Constrained:
        return Constrained(self.whole.part(box), self.matrix, self.offset)

    def __str__(self) -> str:
        return f"{self.whole}, cut by {len(self.offset)} linear inequalit{'y' if len(self.offset) == 1 else 'ies'}"


def _deep_point(whole: InputSet, matrix: Floats, offset: Floats) -> Floats | None:
    """A point (n,) of a set that lies as far within all rows as linear programs make it; None where they find none."""
    from scipy.optimize import LinearConstraint, milp

    low, high = whole.box.lower, whole.box.upper
    system = whole.linear_system(low, high)
    widest = float(np.max(high - low, initial=0.0))
    ends = np.concatenate([low, system.further_lower, [0.0]]), np.concatenate([high, system.further_upper, [widest]])
    more, depth = system.columns - whole.size, np.linalg.norm(matrix, axis=1)[:, None]
    rows = [
        LinearConstraint(
            scipy.sparse.hstack([matrix, scipy.sparse.csr_array((len(matrix), more)), depth], format="csr"),
            -np.inf,
            offset,
        ),
        LinearConstraint(widened(system.matrix, system.columns + 1), system.lower, system.upper),
    ]
    costs = np.append(np.zeros(system.columns), -1.0)
    point = None
    for _ in range(TANGENT_ROUNDS):
        solved = milp(costs, constraints=rows, bounds=np.column_stack(ends).T.tolist())
        if solved.status != 0:
            break
        point = solved.x[: whole.size]
        tangents = system.tangents(solved.x[:-1])
        if tangents is None:
            break
        rows.append(LinearConstraint(widened(tangents[0], system.columns + 1), tangents[1], np.inf))
    return None if point is None else np.asarray(point)


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
