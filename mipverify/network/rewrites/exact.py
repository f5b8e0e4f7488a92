"""Arithmetic without rounding on arrays of numbers that are, mostly, floating-point numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from mipverify.network.builder import RewriteError

_SPLIT = 2.0**27 + 1  # cuts the 53 bits of a double into two halves [Dekker, 1971]
_SMALL, _LARGE = 2.0**-400, 2.0**400  # between them, no part of a product is lost or overflows


class Exact:
    """Real numbers, of shape () where all entries are the same, else (n,).

    They are doubles as long as those hold every result of the arithmetic as it is, and fractions from then on:
    constants of networks have few bits, and large arrays of fractions are slow.
    """

    def __init__(self, values: np.ndarray):
        self.values = values  # float64, or fractions as objects

    @staticmethod
    def of(values: Any) -> Exact:
        """Floating-point numbers as they are."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        if not np.isfinite(flat).all():
            raise RewriteError("a constant holds infinity or NaN")
        return Exact(flat[0].reshape(()) if (flat == flat[0]).all() else flat)

    @property
    def fractions(self) -> np.ndarray:
        """The numbers as fractions, in an array of objects."""
        if self.values.dtype == object:
            return self.values
        return np.array([Fraction(v) for v in self.values.reshape(-1).tolist()], dtype=object).reshape(
            self.values.shape
        )

    def rounded(self) -> np.ndarray:
        """The nearest doubles."""
        return self.values.astype(np.float64)

    def is_zero(self) -> bool:
        """Whether all of them are."""
        return not np.any(self.values != 0)

    def only(self, kept: Any) -> Exact:
        """The numbers where `kept` is set, zero elsewhere."""
        return Exact(np.where(kept, self.values, np.zeros((), self.values.dtype)))

    def __add__(self, other: Exact) -> Exact:
        return _result(_sum, np.add, self, other)

    def __sub__(self, other: Exact) -> Exact:
        return self + -other

    def __mul__(self, other: Exact) -> Exact:
        return _result(_product, np.multiply, self, other)

    def __truediv__(self, other: Exact) -> Exact:
        return _result(_quotient, np.true_divide, self, other)

    def __neg__(self) -> Exact:
        return Exact(np.asarray(-self.values, dtype=self.values.dtype))

    def __abs__(self) -> Exact:
        return Exact(np.asarray(abs(self.values), dtype=self.values.dtype))


ZERO = Exact(np.zeros(()))
ONE = Exact(np.ones(()))

Fast = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _result(fast: Fast, slow: Callable[[Any, Any], Any], a: Exact, b: Exact) -> Exact:
    if a.values.dtype == b.values.dtype == np.float64:
        with np.errstate(all="ignore"):
            values, held = fast(a.values, b.values)
        if np.all(held):
            return Exact(np.asarray(values))
    return Exact(np.asarray(slow(a.fractions, b.fractions), dtype=object))


def _sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum, and whether it is exact [Knuth, TAOCP 2, 4.2.2]."""
    total = a + b
    part = total - a
    return total, np.isfinite(total) & ((a - (total - part)) + (b - part) == 0)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product, and whether it is exact [Dekker, 1971]."""
    product = a * b
    a_high, b_high = a * _SPLIT - (a * _SPLIT - a), b * _SPLIT - (b * _SPLIT - b)
    a_low, b_low = a - a_high, b - b_high
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    inside = (abs(a) < _LARGE) & (abs(b) < _LARGE) & (abs(a) > _SMALL) & (abs(b) > _SMALL)
    return product, (a == 0) | (b == 0) | (inside & (error == 0))


def _quotient(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The quotient, and whether it is exact: whether it times the divisor gives the dividend without rounding."""
    quotient = a / b
    product, held = _product(quotient, b)
    return quotient, (b != 0) & held & (product == a)
