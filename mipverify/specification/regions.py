"""What cuts an input set out of its box: a ball in some norm, and linear inequalities between inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, float_up

NORMS = ("linf", "l1", "l2")


@dataclass(frozen=True, eq=False)
class Ball:
    """All x with ||(x - center) / scale|| <= radius in the l_1 or l_2 norm; a scale of 0 fixes its coordinate.

    center, scale: float64 (n,), taken as exactly the numbers they are. radius: exact.
    """

    norm: str
    center: NDArray[np.float64]
    radius: Fraction
    scale: NDArray[np.float64]

    @classmethod
    def around(cls, center: ArrayLike, radius: object, norm: str, scale: ArrayLike | None = None) -> Ball:
        """The ball around a point of any shape. Raises InputError for a negative radius or another norm."""
        if norm not in ("l1", "l2"):
            raise InputError(f"norm {norm!r} is not one of l1, l2")
        exact = exact_number(radius, "eps")
        if exact < 0:
            raise InputError(f"eps must not be negative: {radius}")
        flat = np.asarray(center, np.float64).reshape(-1)
        sizes = np.ones(len(flat)) if scale is None else np.asarray(scale, np.float64).reshape(-1)
        return cls(norm, flat, exact, sizes)

    def distance(self, x: ArrayLike) -> NDArray[np.float64]:
        """The scaled norm of x - center, (..., n) -> (...,), in float64."""
        return distance(np.asarray(x, np.float64) - self.center, self.norm, self.scale)

    def contains(self, x: ArrayLike) -> bool:
        """Exact decision for one point (n,) of floats."""
        near = float(self.distance(x))
        radius = float(self.radius)
        if near < radius * (1 - 1e-9):
            return True
        if near > radius * (1 + 1e-9):
            return False
        total = Fraction(0)
        for value, middle, scale in zip(np.asarray(x).tolist(), self.center.tolist(), self.scale.tolist(), strict=True):
            if value == middle:
                continue
            if scale == 0:
                return False
            step = abs(Fraction(value) - Fraction(middle)) / Fraction(scale)
            total += step if self.norm == "l1" else step * step
        return total <= (self.radius if self.norm == "l1" else self.radius**2)


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
        radius = float(self.ball.radius)
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
