"""An l_2 ball for linear solvers: a share of the radius for each coordinate, bounded from below by tangents.

With w = (x - center) / (scale radius), the ball is sum w^2 <= 1. Each coordinate gets a column t >= w^2, the t add up
to at most 1, and t >= 2 d w - d^2 for any d [Vielma et al., Extended formulations in mixed integer conic quadratic
programming, 2017]. Tangents of one coordinate combine with those of all others, so that few rounds of them are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mipverify.formulation.milp import Milp
from mipverify.specification.regions import Ball, Region

CLOSE = 1e-7  # a point this little outside of the ball, relative to the radius, needs no tangents
NEGLIGIBLE = 1e-3  # of the radius of a coordinate's equal share: such a short way needs no tangent of its own


@dataclass(frozen=True, eq=False)
class BallColumns:
    """Coordinates (F,) of a ball that may move at all: columns `inputs` and `shares`, `center`, `width`, and the box.

    width: scale times radius, rounded upward. lower, upper: the box in units of w.
    """

    inputs: np.ndarray
    shares: np.ndarray
    center: np.ndarray
    width: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, ball: Ball, inputs: np.ndarray, first: int, low: np.ndarray, high: np.ndarray) -> BallColumns:
        """For input columns (n,) within low, high (n,); shares are columns from `first` on."""
        radius = np.nextafter(float(ball.radius), np.inf)
        free = np.flatnonzero((ball.scale > 0) & (high > low))
        width = np.nextafter(ball.scale[free] * radius, np.inf)
        center = ball.center[free]
        sides = ((side[free] - center) / width for side in (low, high))
        return cls(inputs[free], first + np.arange(len(free)), center, width, *sides)

    def start(self) -> tuple[sp.csr_array, np.ndarray]:
        """Tangents that make the l_1 ball around the l_2 ball, on the sides where the box has room."""
        middle = np.full(len(self.inputs), 1 / np.sqrt(max(len(self.inputs), 1)))
        up, down = self.tangents(middle), self.tangents(-middle)
        return sp.csr_array(sp.vstack([up[0], down[0]])), np.concatenate([up[1], down[1]])

    def place(self, v: np.ndarray) -> np.ndarray:
        """w (F,) of a point (columns,)."""
        return np.asarray((v[self.inputs] - self.center) / self.width)

    def tangents_outside(self, v: np.ndarray) -> tuple[sp.csr_array, np.ndarray] | None:
        """Tangents that cut off a point (columns,); None for a point that lies in the ball."""
        w = self.place(v)
        far = float(np.linalg.norm(w))
        return self.tangents(w / far) if far > 1 + CLOSE else None

    def tangents(self, touching: np.ndarray) -> tuple[sp.csr_array, np.ndarray]:
        """Rows `matrix @ v >= limit` for tangents at w = d, one d for each coordinate (F,); they hold on all the ball.

        In inputs: width t - 2 d x >= -2 d center - width d^2, whose right side is rounded downward.
        """
        room = np.where(touching > 0, self.upper > 0, self.lower < 0)
        used = np.flatnonzero(room & (np.abs(touching) > NEGLIGIBLE / np.sqrt(max(len(touching), 1))))
        d, width, center = touching[used], self.width[used], self.center[used]
        size = np.abs(2 * d * center) + width * d * d
        limit = -2 * d * center - width * d * d - 1e-15 * size
        rows = np.concatenate([np.arange(len(used))] * 2)
        columns = np.concatenate([self.shares[used], self.inputs[used]])
        entries = np.concatenate([width, -2 * d])
        count = int(self.shares.max(initial=-1)) + 1
        return sp.csr_array((entries, (rows, columns)), shape=(len(used), count)), limit


def confined(milp: Milp, inputs: np.ndarray, region: Region | None) -> tuple[Milp, BallColumns | None]:
    """A program with more rows and columns for what cuts the input set out of its box.

    inputs: the columns (n,) of the input. An l_2 ball, whose first tangents they are, is returned.
    """
    if region is None:
        return milp, None
    matrix, offset = region.rows
    if len(matrix):
        sparse = sp.coo_array(matrix)
        wide = sp.csr_array((sparse.data, (sparse.row, inputs[sparse.col])), shape=(len(matrix), milp.columns))
        milp = milp.with_rows(wide, np.full(len(offset), -np.inf), offset)
    if region.ball is None:
        return milp, None
    low, high = milp.lower[inputs], milp.upper[inputs]
    if region.ball.norm == "l2":
        ball = BallColumns.of(region.ball, inputs, milp.columns, low, high)
        milp = milp.with_columns(np.zeros(len(ball.shares)), np.ones(len(ball.shares)))
        milp = milp.with_rows(_sum(ball.shares, milp.columns), np.array([-np.inf]), np.array([1.0]))
        rows, limit = ball.start()
        return milp.with_rows(rows, limit, np.full(len(limit), np.inf)), ball
    free = np.flatnonzero(region.ball.scale > 0)
    scale, center = region.ball.scale[free], region.ball.center[free]
    radius = float(region.ball.radius) * (1 + 1e-12)
    sizes = milp.columns + np.arange(len(free))
    milp = milp.with_columns(np.zeros(len(free)), np.full(len(free), radius))
    index = np.tile(np.arange(len(free)), 2)
    for sign in (-1.0, 1.0):  # scale * size >= |x - center|
        entries = np.concatenate([scale, np.full(len(free), sign)])
        rows = sp.csr_array((entries, (index, np.concatenate([sizes, inputs[free]]))), (len(free), milp.columns))
        milp = milp.with_rows(rows, sign * center, np.full(len(free), np.inf))
    return milp.with_rows(_sum(sizes, milp.columns), np.array([-np.inf]), np.array([radius])), None


def _sum(columns: np.ndarray, count: int) -> sp.csr_array:
    return sp.csr_array((np.ones(len(columns)), (np.zeros(len(columns), int), columns)), shape=(1, count))


def widened(matrix: sp.csr_array, columns: int) -> sp.csr_array:
    """The same rows over more columns, which they do not read."""
    return sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))
