"""Exact decimals and how they round to floats: the one place where a bound changes its representation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from numbers import Integral
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError

#: A number known exactly. Comparisons between the two types are exact; arithmetic is done on `Fraction` only,
#: because `Decimal` rounds to the precision of its context.
Exact: TypeAlias = Decimal | Fraction

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,9})?")
# Beyond any float, and small enough that a Fraction of it costs nothing: a float64 has at most 767 digits.
_LARGEST_EXPONENT = 5000
_WIDE = Context(prec=3 * _LARGEST_EXPONENT, Emin=-10 * _LARGEST_EXPONENT, Emax=10 * _LARGEST_EXPONENT)  # rounds nothing
_MOST_DIGITS = 2000
#: Size in bits of numerators and denominators at which arithmetic on numbers of a file ends.
MOST_BITS = 40_000


def parse_decimal(text: str) -> Decimal | None:
    """The exact value of a decimal literal, or None when `text` is none (names, `nan`, `inf`, absurd sizes)."""
    if len(text) > _MOST_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value == 0 or abs(value.adjusted()) <= _LARGEST_EXPONENT else None


def no_number(text: str) -> str:
    """Why `parse_decimal` gives None, in words."""
    if len(text) > _MOST_DIGITS or _NUMBER.fullmatch(text) is not None or _HUGE.fullmatch(text) is not None:
        limits = f"{_MOST_DIGITS} digits and exponents up to {_LARGEST_EXPONENT}"
        return f"{shorten(text)!r} is beyond the numbers that are read ({limits})"
    return f"{shorten(text)!r} is not a number"


_HUGE = re.compile(r"[-+.0-9]+[eE][-+]?[0-9]{5,}")


def parse_number(text: str) -> Fraction | None:
    """The exact value of a decimal or of a quotient of two, such as 8/255; None when `text` is neither."""
    numerator, slash, denominator = text.partition("/")
    above = parse_decimal(numerator.strip())
    below = parse_decimal(denominator.strip()) if slash else Decimal(1)
    if above is None or below is None or below == 0:
        return None
    return Fraction(above) / Fraction(below)


def exact_number(value: object, what: str) -> Fraction:
    """The number a user wrote, exactly: "0.1" and the float 0.1 both mean one tenth, "8/255" a quotient.

    A float is read as the shortest decimal that prints it, because that is what its author typed.

    Raises:
        InputError: `value` is no finite number; the message begins with `what`.
    """
    if isinstance(value, Fraction):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return Fraction(int(value))
    text = str(value).strip() if isinstance(value, str | Decimal) else ""
    if isinstance(value, float | np.floating):
        text = repr(value.item() if isinstance(value, np.floating) else value)
    number = parse_number(text)
    if number is None:
        raise InputError(f"{what} must be a finite number such as 0.1 or 8/255, not {shorten(repr(value))}")
    return number


def canonical(number: Fraction) -> str:
    """A number as text that is the same for equal numbers: 0.1 for 0.10 and 1e-1, 8/255 for 16/510."""
    decimal = _as_decimal(number)
    # Decimal: Python refuses to print whole numbers of more than 4300 digits.
    return f"{Decimal(number.numerator)}/{Decimal(number.denominator)}" if decimal is None else decimal


def _as_decimal(number: Fraction, most: int = _LARGEST_EXPONENT) -> str | None:
    """The decimal without superfluous zeros and exponent, or None where there is none of at most so many places."""
    rest, places = number.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1 or places > most:
        return None
    digits = str(Decimal(abs(number.numerator) * 10**places // number.denominator)).rjust(places + 1, "0")
    sign = "-" if number < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def shorten(text: str, most: int = 40) -> str:
    """Text for a message in one line, cut where a hostile file would make it long."""
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= most else f"{text[: most - 1]}… ({len(text)} characters)"


class Rounded(NamedTuple):
    """Exact numbers as floats, one array each: shapes (n,)."""

    down64: NDArray[np.float64]
    up64: NDArray[np.float64]
    down32: NDArray[np.float32]
    up32: NDArray[np.float32]
    near32: NDArray[np.float32]
    #: True where the float32 neighbours coincide because the number is a float32 itself.
    is_float32: NDArray[np.bool_]


def round_exact(values: Sequence[Exact]) -> Rounded:
    """Round exact numbers to their neighbours among the float64 and the float32, in both directions.

    The order of a number and a float32 follows from its nearest float64 unless these two are equal: no other float64,
    hence no other float32, lies between a number and its nearest float64. So one exact comparison a number suffices.
    Numbers beyond the largest finite float become infinite on the outer side and the largest finite one on the inner.
    """
    nearest = np.array([nearest_float(value) for value in values], dtype=np.float64) + 0.0  # no negative zeros
    order = np.array([_compare(value, float64) for value, float64 in zip(values, nearest.tolist(), strict=True)], int)
    with np.errstate(over="ignore", under="ignore"):
        return Rounded(
            np.where(order < 0, np.nextafter(nearest, -np.inf), nearest),
            np.where(order > 0, np.nextafter(nearest, np.inf), nearest),
            *_neighbours32(nearest.astype(np.float32), nearest, order),
        )


def _neighbours32(
    near32: NDArray[np.float32], nearest: NDArray[np.float64], order: NDArray[np.int_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    wide = near32.astype(np.float64)
    below = (nearest < wide) | ((nearest == wide) & (order < 0))
    above = (nearest > wide) | ((nearest == wide) & (order > 0))
    down = np.where(below, np.nextafter(near32, np.float32(-np.inf)), near32)
    up = np.where(above, np.nextafter(near32, np.float32(np.inf)), near32)
    return down, up, near32, ~(below | above)


def nearest_float(value: Exact) -> float:
    """The nearest float64; infinite beyond the largest."""
    try:
        return float(value)
    except OverflowError:  # Fraction only; Decimal gives an infinity
        return math.inf if value > 0 else -math.inf


def _compare(value: Exact, number: float) -> int:
    """Sign of `value - number`, exactly."""
    if isinstance(value, Fraction) and math.isfinite(number):
        numerator, denominator = number.as_integer_ratio()
        left, right = value.numerator * denominator, numerator * value.denominator
        return (left > right) - (left < right)
    return (value > number) - (value < number)


def decimal_between(lower: Exact, upper: Exact, lower_open: bool = False, upper_open: bool = False) -> str:
    """A short decimal from `lower` to `upper`; an open bound does not count.

    Where there is none, as for a bound of 1/3 on both sides, the one of 40 digits that is next to them.
    """
    low, high = Fraction(lower), Fraction(upper)
    if low == high:
        decimal = _as_decimal(low, 3 * _LARGEST_EXPONENT)
        rounded = Context(prec=40).divide(Decimal(low.numerator), Decimal(low.denominator))
        return str(rounded) if decimal is None else decimal
    gap = high - low
    digits = max(0, int(0.30103 * (gap.denominator.bit_length() - gap.numerator.bit_length())) - 2)
    while True:
        scaled = math.ceil(low * 10**digits)
        scaled += lower_open and scaled == low * 10**digits
        value = Fraction(scaled, 10**digits)
        if value < high or (value == high and not upper_open):
            return str(Decimal(scaled).scaleb(-digits, _WIDE).normalize(_WIDE))
        digits += 1


def show_exact(value: Exact) -> str:
    """The number for a message: the decimal that prints its nearest float where that is exact, else in full."""
    shortest = repr(nearest_float(value))
    number = parse_decimal(shortest)
    return shortest.removesuffix(".0") if number is not None and number == value else shorten(_digits(value))


def _digits(value: Exact) -> str:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > 4000:
        return f"about {Decimal(value.numerator) / Decimal(value.denominator):.6g}"
    return str(value)


def float_up(value: Fraction) -> float:
    """The smallest float64 that is not below `value`."""
    nearest = nearest_float(value) + 0.0
    return math.nextafter(nearest, math.inf) if _compare(value, nearest) > 0 else nearest


def float_if_exact(value: Fraction) -> float | None:
    """`value` as a float64, or None when no float64 equals it."""
    nearest = nearest_float(value)
    return nearest if math.isfinite(nearest) and _compare(value, nearest) == 0 else None


def domain_limits(domain: object) -> tuple[Fraction, Fraction] | None:
    """The smallest and the largest legal value, read exactly; None where there are no limits. Raises InputError."""
    if domain is None:
        return None
    pair = tuple(domain) if isinstance(domain, Iterable) and not isinstance(domain, str) else ()
    if len(pair) != 2:
        what = str(len(pair)) if pair else repr(domain)
        raise InputError(f"domain must be two numbers such as 0,1, or none, not {shorten(what)}")
    low, high = (exact_number(limit, "domain limit") for limit in pair)
    if low > high:
        raise InputError(f"domain is empty: {shorten(str(pair[0]))} exceeds {shorten(str(pair[1]))}")
    return low, high
