"""Cosine and sine with stated errors: of floats by IEEE arithmetic alone, and of rational numbers of degrees."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TERMS = 18  # of the Taylor series: the next ones are below 1e-17 up to an angle of pi
#: What `cosine_sine` may be off by, for angles up to pi. The absolute values of all terms sum to at most cosh(pi) < 12,
#: and Horner's scheme makes at most 3 TERMS + 2 roundings in each of them, those of coefficients and powers included:
#: below 56 * 12 * 2^-53 < 8e-14 in all, with what the series leaves out.
ERROR = 1e-13

_BITS = 160  # of exact numbers: what is cut off is far below half a step of any float32


def cosine_sine(angle: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of angles in radians, at most pi to either side, each off by at most ERROR."""
    square = angle * angle
    cosine, sine = np.zeros_like(square), np.zeros_like(square)
    for k in range(TERMS - 1, -1, -1):
        cosine = cosine * square + (-1) ** k / math.factorial(2 * k)
        sine = sine * square + (-1) ** k / math.factorial(2 * k + 1)
    return cosine, sine * angle


def exact_cosine_sine(degrees: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """Cosine and sine of an angle of at most 180 degrees, and a bound of what each is off by: 0 for the angle 0."""
    if degrees == 0:
        return Fraction(1), Fraction(0), Fraction(0)
    one = 1 << _BITS
    angle = math.floor(degrees * _pi() / 180 * one)
    term, cosine, sine = one, 0, 0
    for k in range(0, 100, 2):
        cosine += term
        term = term * angle // one // (k + 1)
        sine += term
        term = -(term * angle // one // (k + 2))
    # Each of 200 divisions is off by less than 1, times what later factors make of it, less than pi^3 / 3!; the angle
    # by less than 4: all of it is less than 2^20.
    return Fraction(cosine, one), Fraction(sine, one), Fraction(1 << 20, one)


@lru_cache(maxsize=1)
def _pi() -> Fraction:
    """Pi by Machin's formula, off by less than 2^-(_BITS + 20)."""
    return 16 * _arctan_of_inverse(5) - 4 * _arctan_of_inverse(239)


def _arctan_of_inverse(n: int) -> Fraction:
    total, power = Fraction(0), Fraction(1, n)
    for k in range(100):
        total += power / (2 * k + 1) * (-1) ** k
        power /= n * n
    return total
