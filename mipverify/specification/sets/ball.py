"""A ball in a box: all inputs within a radius of a point in some norm, and within the limits of their domain."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, shorten
from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.normalization import Normalization
from mipverify.specification.norms import BallNorm
from mipverify.specification.sets.box import Box
from mipverify.specification.sets.input_set import Floats, InputSet, Proposal

LARGEST_RADIUS = 1e100  # far above any distance of float32 inputs; squares of it and sums of these are floats


@dataclass(frozen=True, eq=False)
class ExactBall:
    """Center, scale (n,) and radius of a ball that are no floats."""

    center: tuple[Fraction, ...]
    scale: tuple[Fraction, ...]
    radius: Fraction

    def enclosing(self, norm: BallNorm) -> Ball:
        """The ball of floats that holds this one, no larger than rounding makes it."""
        center, scale = (np.array([float(v) for v in side]) for side in (self.center, self.scale))
        return Ball(norm, center, self.radius + (self.radius + 1) * 2 * rounding(center, scale), scale, self)


def rounding(center: Floats, scale: Floats) -> Fraction:
    """By how much scaled distances d from a rounded center differ from exact ones, at most, in units of d + 1.

    center, scale: float64 (n,), each the nearest to an exact number; coordinates of scale 0 are not moved.
    """
    moved = scale > 0
    shift = float(np.sum((np.abs(center[moved]) + np.finfo(float).tiny) / scale[moved])) * 2.0**-53
    return Fraction(2.0**-51 + 1.01 * shift)


@dataclass(frozen=True, eq=False)
class Ball:
    """All x with ||(x - center) / scale|| <= radius; a scale of 0 fixes its coordinate.

    center, scale: float64 (n,), taken as exactly the numbers they are. radius: exact. exact: the set itself, where its
    center or scale are no floats; the fields are then those of a ball around it, which is what proofs are about.
    """

    norm: BallNorm
    center: Floats
    radius: Fraction
    scale: Floats
    exact: ExactBall | None = None

    @classmethod
    def around(
        cls, center: ArrayLike, radius: object, norm: BallNorm, normalization: Normalization | None = None
    ) -> Ball:
        """The ball around a point of any shape, in the coordinates that a normalization gives.

        Raises InputError for a radius that is negative or beyond every float.
        """
        exact = exact_number(radius, "eps")
        if exact < 0:
            raise InputError(f"eps must not be negative: {radius}")
        if exact > LARGEST_RADIUS:
            raise InputError(f"eps {shorten(str(radius))} is larger than a ball in the norm {norm.name} may be")
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

    def distance(self, x: ArrayLike) -> Floats:
        """The scaled norm of x - center, (..., n) -> (...,), in float64."""
        return self.norm.scaled_length(np.asarray(x, np.float64) - self.center, self.scale)

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
        steps = []
        for value, middle, scale in zip(np.asarray(x).tolist(), exact.center, exact.scale, strict=True):
            if value == middle:
                continue
            if scale == 0:
                return False
            steps.append(abs(Fraction(value) - middle) / scale)
        return self.norm.at_most(steps, exact.radius)

    def shrunk(self, points: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        """Float32 points (R, n) of a box, moved into the ball on the way to its center."""
        step = points.astype(np.float64) - self.center
        far = self.norm.scaled_length(step, self.scale)[:, None]
        radius = self.inner_radius
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(far > radius, radius * (1 - 1e-12) / far, 1.0)
        factor = np.where(np.isfinite(factor), factor, 0.0)
        wanted = self.center + factor * step
        moved = wanted.astype(np.float32)
        # Rounded toward the center, so that no coordinate moves outward.
        outward = np.abs(moved - self.center) > np.abs(wanted - self.center)
        moved = np.where(outward, np.nextafter(moved, self.center.astype(np.float32)), moved)
        return np.clip(moved, box.float32_lower, box.float32_upper)


@dataclass(frozen=True, eq=False)
class BallSplit(Proposal):
    """For rows a (R, n): of |a| times the ball's scale the part `share` (R, n) that the ball bounds, for rule 8."""

    share: Floats


@dataclass(frozen=True, eq=False)
class BallInBox(InputSet):
    """The points of a ball that lie in a box."""

    ball: Ball
    limits: Box

    @property
    def box(self) -> Box:
        return self.limits

    @property
    def center(self) -> Floats:
        return self.ball.center

    def contains(self, x: ArrayLike) -> bool:
        flat = np.asarray(x).reshape(-1)
        return self.limits.contains(flat) and self.ball.contains(flat)

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        return self.ball.shrunk(self.limits.nearest_float32(points), self.limits)

    def propose(self, rows: Floats, lower: Floats, upper: Floats) -> BallSplit:
        ball = self.ball
        radius = float(np.nextafter(float(ball.radius), np.inf))
        down, up = lower - ball.center, upper - ball.center
        room = np.where(rows > 0, -down, up)  # how far each coordinate may go the way that pays
        scaled = np.abs(rows) * ball.scale
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(ball.scale > 0, room / ball.scale, 0.0)
        # The ball says nothing about a coordinate whose limits miss its center.
        worth = np.where((down <= 0) & (up >= 0), scaled, 0.0)
        step, share = ball.norm.split(worth, np.maximum(room, 0.0), radius)
        point = ball.center - np.sign(rows) * step * ball.scale
        return BallSplit(np.clip(point, lower, upper), share)

    def linear_system(self, low: Floats, high: Floats) -> LinearSystem:
        ball = self.ball
        return ball.norm.linear_system(ball.center, ball.scale, ball.radius, low, high)

    def part(self, box: Box) -> BallInBox:
        return BallInBox(self.ball, self.limits.part(box))

    def __str__(self) -> str:
        return f"ball of radius {float(self.ball.radius):.6g} in the norm {self.ball.norm.name}, in {self.limits}"
