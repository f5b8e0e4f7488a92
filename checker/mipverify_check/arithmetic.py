"""The two arithmetics of a check: float64 with error bounds, and rational numbers.

All rules are written once, over numpy arrays. With `FLOATS` these hold float64, every operation is rounded to nearest,
and what that may lose is bounded beforehand: a sum of n products is off by at most `gamma(n)` times the sum of their
absolute values, whatever the order and with or without fused multiply-add [Higham 2002, 3.1], and by `floor` where
numbers underflow. With `EXACT` the arrays hold `fractions.Fraction`, and both are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Array = Any  # numpy arrays of float64, or of Fractions (dtype object)

_fractions = np.frompyfunc(Fraction, 1, 1)


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are held. exact: as Fractions."""

    exact: bool

    @property
    def dtype(self) -> Any:
        return np.dtype(object) if self.exact else np.dtype(np.float64)

    @property
    def floor(self) -> float:
        """More than underflow loses in the sum of any row, even where subnormal numbers are flushed to zero."""
        return 0 if self.exact else 2.0**-800  # an integer: a Fraction and a float make a float

    def gamma(self, n: int) -> float:
        """Bound of the relative error of n roundings; the factor 4 covers errors in the bound's own computation."""
        if self.exact:
            return 0
        return n * 2.0**-53 / (1 - 4 * n * 2.0**-53)

    def array(self, values: Any) -> Array:
        """Numbers as they are, in this arithmetic. Raises ValueError for integers that float64 does not hold."""
        given = np.asarray(values)
        if self.exact:
            if given.dtype == object:
                return given
            return np.asarray(_fractions(given.astype(np.float64) if given.dtype.kind == "f" else given.astype(object)))
        held = given.astype(np.float64)
        if given.dtype.kind in "iu" and np.abs(held).max(initial=0.0) > 2.0**53:
            raise ValueError("an integer is beyond 2^53")
        return held

    def zeros(self, shape: tuple[int, ...]) -> Array:
        return np.full(shape, Fraction(0), dtype=object) if self.exact else np.zeros(shape)

    def below(self, value: Fraction) -> Any:
        """The largest number held that is at most `value`."""
        if self.exact:
            return value
        near = _nearest(value)
        return (
            near if (not np.isinf(near) and Fraction(near) <= value) or near == -np.inf else np.nextafter(near, -np.inf)
        )

    def above(self, value: Fraction) -> Any:
        """The smallest number held that is at least `value`."""
        return -self.below(-value)

    def checked(self, values: Array) -> Array:
        """The same values. Raises TypeError where floats have slipped in among rational numbers."""
        if self.exact and any(isinstance(value, float) for value in values.flat):
            raise TypeError("a float among rational numbers")
        return values

    def finite(self, values: Array) -> bool:
        return self.exact or bool(np.isfinite(values).all())


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


FLOATS, EXACT = Arithmetic(False), Arithmetic(True)
