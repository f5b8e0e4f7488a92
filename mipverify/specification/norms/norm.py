"""What a norm is asked for, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mipverify.specification.linear_system import LinearSystem

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Norm(ABC):
    """How far a step is. Two objects of one class are the same norm."""

    name: ClassVar[str]

    @abstractmethod
    def length(self, steps: Floats) -> Floats:
        """The norms (...,) of steps (..., n), up to rounding."""

    @abstractmethod
    def dual_length(self, rows: Floats) -> Floats:
        """What the value of rows (..., n) changes by at most over a step of length 1, (...,), up to rounding."""

    @abstractmethod
    def at_most(self, steps: Iterable[Fraction], radius: Fraction) -> bool:
        """Whether a step with these absolute entries is no longer than `radius`, exactly."""

    def scaled_length(self, steps: Floats, scale: Floats) -> Floats:
        """||steps / scale|| for steps (..., n) -> (...,); a step along a coordinate of scale 0 is infinitely far."""
        size = np.abs(steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.length(np.where(size > 0, size / scale, 0.0))


@dataclass(frozen=True)
class BallNorm(Norm):
    """A norm whose balls are no boxes."""

    @abstractmethod
    def split(self, worth: Floats, room: Floats, radius: float) -> tuple[Floats, Floats]:
        """How to spend a radius where it pays most, in units of the norm: a search, of which a proof believes nothing.

        worth, room: (R, n), not negative: what a step along each coordinate gains, and how far it may go.
        Returns the steps (R, n), and the part of `worth` (R, n) that the ball bounds, the box bounding the rest.
        """

    @abstractmethod
    def linear_system(self, center: Floats, scale: Floats, radius: Fraction, low: Floats, high: Floats) -> LinearSystem:
        """The ball ||(x - center) / scale|| <= radius, all (n,), for x within low, high."""
