"""What cuts an input set out of its box: a ball in some norm, and linear inequalities between inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, float_up, shorten
from mipverify.specification.normalization import Normalization

NORMS = ("linf", "l1", "l2")
LARGEST_RADIUS = 1e100  # far above any distance of float32 inputs; squares of it and sums of these are floats


@dataclass(frozen=True, eq=False)
class ExactBall:
    """Center, scale (n,) and radius of a ball that are no floats."""

    center: tuple[Fraction, ...]
    scale: tuple[Fraction, ...]
    radius: Fraction

    def enclosing(self, norm: str) -> Ball:
        """The ball of floats that holds this one, no larger than rounding makes it."""
        center, scale = (np.array([float(v) for v in side]) for side in (self.center, self.scale))
        return Ball(norm, center, self.radius + (self.radius + 1) * 2 * rounding(center, scale), scale, self)


def rounding(center: NDArray[np.float64], scale: NDArray[np.float64]) -> Fraction:
    """By how much scaled distances d from a rounded center differ from exact ones, at most, in units of d + 1.

    center, scale: float64 (n,), each the nearest to an exact number; coordinates of scale 0 are not moved.
    """
    moved = scale > 0
    shift = float(np.sum((np.abs(center[moved]) + np.finfo(float).tiny) / scale[moved])) * 2.0**-53
    return Fraction(2.0**-51 + 1.01 * shift)


@dataclass(frozen=True, eq=False)
class Ball:
    """All x with ||(x - center) / scale|| <= radius in the l_1 or l_2 norm; a scale of 0 fixes its coordinate.

    center, scale: float64 (n,), taken as exactly the numbers they are. radius: exact. exact: the set itself, where its
    center or scale are no floats; the fields are then those of a ball around it, which is what proofs are about.
    """

    norm: str
    center: NDArray[np.float64]
    radius: Fraction
    scale: NDArray[np.float64]
    exact: ExactBall | None = None

    @classmethod
    def around(cls, center: ArrayLike, radius: object, norm: str, normalization: Normalization | None = None) -> Ball:
        """The ball around a point of any shape, in the coordinates that a normalization gives.

        Raises InputError for another norm, and for a radius that is negative or beyond every float.
        """
        if norm not in ("l1", "l2"):
            raise InputError(f"norm {norm!r} is not one of l1, l2")
        exact = exact_number(radius, "eps")
        if exact < 0:
            raise InputError(f"eps must not be negative: {radius}")
        if exact > LARGEST_RADIUS:
            raise InputError(f"eps {shorten(str(radius))} is larger than a ball in the norm {norm} may be")
        flat = np.asarray(center, np.float64).reshape(-1)
        if normalization is None:
            return cls(norm, flat, exact, np.ones(len(flat)))
        pairs = [normalization.pairs[k] for k in normalization.which]
        middle = tuple((Fraction(v) - mean) / std for v, (mean, std) in zip(flat.tolist(), pairs, strict=True))
        return ExactBall(middle, tuple(1 / std for _, std in pairs), exact).enclosing(norm)

    @cached_property
    def inner_radius(self) -> float:
        """A radius, up to rounding of its float, at which a ball around `center` lies within the set."""
        return float(self.radius if self.exact is None else max(2 * self.exact.radius - self.radius, Fraction(0)))

    def distance(self, x: ArrayLike) -> NDArray[np.float64]:
        """The scaled norm of x - center, (..., n) -> (...,), in float64."""
        return distance(np.asarray(x, np.float64) - self.center, self.norm, self.scale)

    def contains(self, x: ArrayLike) -> bool:
        """Exact decision for one point (n,) of floats."""
        near = float(self.distance(x))
        radius = float(self.radius)
        if self.exact is not None:
            if near < self.inner_radius * (1 - 1e-9):
                return True
            return near <= radius * (1 + 1e-9) and self._contains_exactly(x, self.exact)
        if near < radius * (1 - 1e-9):
            return True
        if near > radius * (1 + 1e-9):
            return False
        center, scale = (tuple(map(Fraction, side.tolist())) for side in (self.center, self.scale))
        return self._contains_exactly(x, ExactBall(center, scale, self.radius))

    def _contains_exactly(self, x: ArrayLike, exact: ExactBall) -> bool:
        total = Fraction(0)
        for value, middle, scale in zip(np.asarray(x).tolist(), exact.center, exact.scale, strict=True):
            if value == middle:
                continue
            if scale == 0:
                return False
            step = abs(Fraction(value) - middle) / scale
            total += step if self.norm == "l1" else step * step
        return total <= (exact.radius if self.norm == "l1" else exact.radius**2)


def distance(step: NDArray[np.float64], norm: str, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """||step / scale|| for steps (..., n) -> (...,); a step along a coordinate of scale 0 is infinitely far."""
    size = np.abs(step)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(size > 0, size / scale, 0.0)
    if norm == "linf":
        return scaled.max(axis=-1, initial=0.0)
    return scaled.sum(axis=-1) if norm == "l1" else np.sqrt((scaled * scaled).sum(axis=-1))


@dataclass(frozen=True, eq=False)
class Region:
    """Constraints on the points of a box: a ball, and rows `matrix @ x <= offset` (m, n), (m,) of exact floats."""

    ball: Ball | None = None
    matrix: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None

    @property
    def rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The linear rows (m, n), (m,); m may be 0."""
        if self.matrix is None or self.offset is None:
            return np.zeros((0, 0)), np.zeros(0)
        return self.matrix, self.offset

    def holds(self, other: Region) -> bool:
        """Whether another region is seen to lie inside of this one: all that cuts this one out, cuts out the other."""
        if self.ball is not None:
            mine, ball = self.ball, other.ball
            if ball is None or mine.norm != ball.norm or ball.radius > mine.radius:
                return False
            if not (np.array_equal(mine.center, ball.center) and np.array_equal(mine.scale, ball.scale)):
                return False
        same = (np.array_equal(a, b) for a, b in zip(self.rows, other.rows, strict=True))
        return not len(self.rows[0]) or all(same)

    def contains(self, x: ArrayLike) -> bool:
        """Exact decision for one point (n,) of floats."""
        if self.ball is not None and not self.ball.contains(x):
            return False
        values = np.asarray(x, np.float64)
        for row, limit in zip(*self.rows, strict=True):
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

    def nearest(self, points: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> np.ndarray:
        """Float32 points (R, n) of the box, moved into the ball by shrinking; linear rows are not cared for."""
        if self.ball is None:
            return points
        step = points.astype(np.float64) - self.ball.center
        far = distance(step, self.ball.norm, self.ball.scale)[:, None]
        radius = self.ball.inner_radius
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(far > radius, radius * (1 - 1e-12) / far, 1.0)
        factor = np.where(np.isfinite(factor), factor, 0.0)
        wanted = self.ball.center + factor * step
        moved = wanted.astype(np.float32)
        # Rounded toward the center, so that no coordinate moves outward.
        outward = np.abs(moved - self.ball.center) > np.abs(wanted - self.ball.center)
        moved = np.where(outward, np.nextafter(moved, self.ball.center.astype(np.float32)), moved)
        return np.clip(moved, low, high)


def linear_rows(rows: Sequence[tuple[ArrayLike, object]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows `coefficients @ x <= limit` as arrays. Raises InputError where a row does not have `size` coefficients."""
    matrix, offset = np.zeros((len(rows), size)), np.zeros(len(rows))
    for r, (coefficients, limit) in enumerate(rows):
        flat = np.asarray(coefficients, np.float64).reshape(-1)
        if flat.size != size or not np.isfinite(flat).all():
            raise InputError(f"input constraint {r}: {flat.size} coefficients for {size} inputs, or one is not finite")
        matrix[r], offset[r] = flat, float_up(exact_number(limit, f"limit of input constraint {r}"))
    return matrix, offset
