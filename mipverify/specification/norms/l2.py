"""The l_2 norm: the root of the sum of squares.

For linear solvers, with w = (x - center) / (scale radius), the ball is sum w^2 <= 1. Each coordinate gets a column
t >= w^2, the t add up to at most 1, and t >= 2 d w - d^2 for any d [Vielma et al., Extended formulations in mixed
integer conic quadratic programming, 2017]. Tangents of one coordinate combine with those of all others, so that few
rounds of them are enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import scipy

from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.norms.norm import BallNorm, Floats

CLOSE = 1e-7  # a point this little outside of the ball, relative to the radius, needs no tangents
NEGLIGIBLE = 1e-3  # of the radius of a coordinate's equal share: such a short way needs no tangent of its own
LEVEL_STEPS = 6  # of the search for a split


@dataclass(frozen=True)
class L2(BallNorm):
    """Balls of it are round."""

    name: ClassVar[str] = "l2"

    def length(self, steps: Floats) -> Floats:
        return np.asarray(np.sqrt((steps * steps).sum(axis=-1)))

    def dual_length(self, rows: Floats) -> Floats:
        return self.length(rows)

    def at_most(self, steps: Iterable[Fraction], radius: Fraction) -> bool:
        return sum((step * step for step in steps), Fraction(0)) <= radius**2

    def split(self, worth: Floats, room: Floats, radius: float) -> tuple[Floats, Floats]:
        """Coordinates move in proportion to what they are worth, until they meet their room."""
        exponent = np.frexp(worth.max(axis=1, initial=0.0))[1][:, None]  # no square that matters underflows
        part = np.ldexp(worth, -exponent)
        with np.errstate(over="ignore", invalid="ignore"):
            level = _level(part, room, radius)[:, None]
            step = np.minimum(part / np.maximum(level, 1e-300), room)
            share = level * step
        # Any share will do; one that is no number is replaced by that of the box.
        return step, np.minimum(np.ldexp(np.where(np.isfinite(share), share, 0.0), exponent), worth)

    def linear_system(self, center: Floats, scale: Floats, radius: Fraction, low: Floats, high: Floats) -> LinearSystem:
        """A share of the radius for each coordinate that may move, bounded from below by tangents."""
        shares = Shares.of(center, scale, radius, low, high)
        count, total = len(shares.inputs), shares.columns
        whole = scipy.sparse.csr_array(
            (np.ones(count), (np.zeros(count, int), len(center) + np.arange(count))), (1, total)
        )
        rows, limit = shares.first()
        matrix = scipy.sparse.csr_array(scipy.sparse.vstack([whole, rows], format="csr"))
        lower, upper = np.append(-np.inf, limit), np.append(1.0, np.full(len(limit), np.inf))
        return LinearSystem(matrix, lower, upper, np.zeros(count), np.ones(count), (shares,))


def _level(worth: Floats, room: Floats, radius: float) -> Floats:
    """The level (R,) at which the step min(worth / level, room) has norm `radius`, from above; 0 where none does.

    Coordinates that meet their room leave the rest of the radius to the others: their set grows step by step.
    """
    level = np.sqrt((worth * worth).sum(axis=1)) / max(radius, 1e-300)
    for _ in range(LEVEL_STEPS):
        met = worth >= level[:, None] * room
        rest = radius * radius - np.where(met, room * room, 0.0).sum(axis=1)
        free = np.where(met, 0.0, worth * worth).sum(axis=1)
        level = np.where(rest > 0, np.sqrt(free / np.where(rest > 0, rest, 1.0)), 0.0)
    return np.asarray(level)


@dataclass(frozen=True, eq=False)
class Shares:
    """The surface of a ball of `size` inputs: coordinates (F,) that may move at all, and a share of the radius of each.

    inputs: which of the inputs they are; their shares are the columns behind all inputs. center: (F,). width: scale
    times radius, rounded upward. lower, upper: the box in units of w.
    """

    size: int
    inputs: np.ndarray
    center: Floats
    width: Floats
    lower: Floats
    upper: Floats

    @classmethod
    def of(cls, center: Floats, scale: Floats, radius: Fraction, low: Floats, high: Floats) -> Shares:
        """For inputs (n,) within low, high (n,)."""
        reach = np.nextafter(float(radius), np.inf)
        free = np.flatnonzero((scale > 0) & (high > low))
        width, middle = np.nextafter(scale[free] * reach, np.inf), center[free]
        return cls(len(center), free, middle, width, (low[free] - middle) / width, (high[free] - middle) / width)

    @property
    def columns(self) -> int:
        """Number of inputs and shares."""
        return self.size + len(self.inputs)

    def first(self) -> tuple[Any, Floats]:
        """Tangents that make the l_1 ball around the l_2 ball, on the sides where the box has room."""
        middle = np.full(len(self.inputs), 1 / np.sqrt(max(len(self.inputs), 1)))
        up, down = self.touching(middle), self.touching(-middle)
        return scipy.sparse.csr_array(scipy.sparse.vstack([up[0], down[0]])), np.concatenate([up[1], down[1]])

    def place(self, point: Floats) -> Floats:
        """w (F,) of a point (columns,)."""
        return np.asarray((point[self.inputs] - self.center) / self.width)

    def tangents(self, point: Floats) -> tuple[Any, Floats] | None:
        """Tangents that cut off a point (columns,); None for a point that lies in the ball."""
        w = self.place(point)
        far = float(np.linalg.norm(w))
        return self.touching(w / far) if far > 1 + CLOSE else None

    def touching(self, at: Floats) -> tuple[Any, Floats]:
        """Rows `matrix @ v >= limit` for tangents at w = d, one d for each coordinate (F,); they hold on all the ball.

        In inputs: width t - 2 d x >= -2 d center - width d^2, whose right side is rounded downward.
        """
        room = np.where(at > 0, self.upper > 0, self.lower < 0)
        used = np.flatnonzero(room & (np.abs(at) > NEGLIGIBLE / np.sqrt(max(len(at), 1))))
        d, width, center = at[used], self.width[used], self.center[used]
        size = np.abs(2 * d * center) + width * d * d
        limit = -2 * d * center - width * d * d - 1e-15 * size
        rows = np.concatenate([np.arange(len(used))] * 2)
        columns = np.concatenate([self.size + used, self.inputs[used]])
        entries = np.concatenate([width, -2 * d])
        return scipy.sparse.csr_array((entries, (rows, columns)), shape=(len(used), self.columns)), limit
