"""A box encloses its exact decimals as float64 and is enclosed by them as float32."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.specification import Box, EmptyBoxError

# Decimals near float32 and float64 values, exact ties and neighbours of them, and arbitrary ones.
LITERALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=12),
    st.floats(-(2.0**100), 2.0**100, width=32).map(Decimal),
    st.floats(-1e30, 1e30).map(Decimal),
    st.floats(-2, 2, width=32).map(lambda v: Decimal(v) + Decimal("1e-25")),
    st.floats(-2, 2).map(lambda v: Decimal(repr(v))),
    st.sampled_from(["1e-400", "-1e-400", "1e-45", "7e-46", "-0.0", "0.1", "1e38", "-3.4028235e38"]).map(Decimal),
)
NUMBERS = st.one_of(LITERALS, LITERALS.map(Fraction), st.fractions(-3, 3, max_denominator=1000))


def above(value: np.floating) -> np.floating:
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(value, type(value)(np.inf))


def below(value: np.floating) -> np.floating:
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(value, type(value)(-np.inf))


@given(NUMBERS, NUMBERS, st.booleans(), st.booleans())
def test_outward_in_float64_inward_in_float32_and_both_tight(a, b, lower_open, upper_open):
    low, high = sorted([Fraction(a), Fraction(b)])
    if low == high and (lower_open or upper_open):
        with pytest.raises(EmptyBoxError, match="X_0"):
            Box.from_exact([low], [high], lower_open=lower_open, upper_open=upper_open)
        return
    exact = (a, b) if Fraction(a) == low else (b, a)
    box = Box.from_exact([exact[0]], [exact[1]], lower_open=lower_open, upper_open=upper_open)

    assert Fraction(float(box.lower[0])) <= low < Fraction(float(above(box.lower[0])))
    assert Fraction(float(below(box.upper[0]))) < high <= Fraction(float(box.upper[0]))

    def inside(value: np.float32) -> bool:
        if not math.isfinite(value):
            return False
        v = Fraction(float(value))
        return (low < v or (low == v and not lower_open)) and (v < high or (v == high and not upper_open))

    first, last = box.float32_lower[0], box.float32_upper[0]
    assert first.dtype == last.dtype == np.float32
    if inside(first):
        assert inside(last)
        assert not inside(below(first))
        assert not inside(above(last))
    else:  # no float32 lies between
        assert first == last
        near = np.float32(float(low))
        assert first == near
        assert not any(inside(v) for v in (below(near), near, above(near)))


def test_a_pinned_decimal_becomes_the_nearest_float32():
    box = Box.from_exact([Decimal("0.1")], [Decimal("0.1")])
    assert box.float32_lower[0] == box.float32_upper[0] == np.float32(0.1)
    assert box.lower[0] < box.upper[0] == above(box.lower[0])
    assert box.contains_float32([np.float32(0.1)])
    assert not box.contains_float32([above(np.float32(0.1))])


def test_floats_are_taken_exactly():
    box = Box.from_floats(np.float32([[0.1, -1.0]]), np.float32([[0.1, 1.0]]))
    assert box.lower.tolist() == [float(np.float32(0.1)), -1.0]
    assert box.upper.tolist() == [float(np.float32(0.1)), 1.0]
    assert box.float32_lower.tolist() == box.lower.tolist()


def test_membership_and_clipping_in_batches():
    box = Box.from_exact([Decimal("0.1"), Decimal(-1)], [Decimal("0.3"), Decimal(1)])
    points = np.array([[0.0, 0.0], [0.2, 5.0], [np.nan, -np.inf], [1e300, 0.5]])
    clipped = box.nearest_float32(points)
    assert clipped.dtype == np.float32
    assert clipped.shape == points.shape
    assert box.contains_float32(clipped).all()
    assert box.contains_float32(np.float32([[0.2, 0.0], [0.2, np.nan], [0.4, 0.0]])).tolist() == [True, False, False]
    assert Fraction(float(clipped[0, 0])) >= Fraction(1, 10)
    assert not box.contains_float32(np.array([0.15, 0.0])), "0.15 as float64 is no float32"


def test_bounds_beyond_float32_are_refused_only_where_no_input_is_left():
    wide = Box.from_exact([Decimal("-1e39")], [Decimal("1e39")])
    assert wide.float32_upper[0] == np.finfo(np.float32).max
    for low, high in (("1e39", "1e40"), ("-1e400", "0")):
        with pytest.raises(InputError, match="X_0"):
            Box.from_exact([Decimal(low)], [Decimal(high)])
    with pytest.raises(InputError, match="X_1"):
        Box.from_floats([0.0, math.nan], [1.0, 1.0])


def test_an_empty_box_names_its_variable():
    with pytest.raises(EmptyBoxError, match=r"pixel 1 .* 1e-30 and 0"):
        Box.from_exact([Decimal(0), Decimal("1e-30")], [Decimal(0), Decimal(0)], name="pixel {}".format)


def test_boxes_cannot_be_changed():
    box = Box.from_floats([0.0], [1.0])
    with pytest.raises(ValueError, match="read-only"):
        box.lower[0] = -1.0


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        ("0.1", "0.1", "0.1"),
        ("-0.10", "-0.1", "-0.1"),
        ("0.10000000001", "0.10000000002", "0.10000000001"),
        ("1e-50", "1.5e-50", "1E-50"),
        ("123456789.5", "123456789.75", "123456789.5"),
        ("123456789e3", "123456789000", "123456789000"),
        ("1.50e-9", "0.0000000015", "0.0000000015"),
        ("1.2345e-5001", "1.2345e-5001", f"0.{'0' * 5000}12345"),
        (Fraction(1, 3), Fraction(1, 3), "0.3333333333333333333333333333333333333333"),
        (Fraction(0.1), Fraction(0.1), "0.1000000000000000055511151231257827021181583404541015625"),
    ],
)
def test_coordinates_without_a_float32_are_stated_as_decimals(low: Any, high: Any, shown: str) -> None:
    bounds = [Fraction(low) if isinstance(low, Fraction) else Decimal(low), Decimal(0)]
    other = [Fraction(high) if isinstance(high, Fraction) else Decimal(high), Decimal(1)]
    box = Box.from_exact(bounds, other)
    assert [(i, pinned.name, pinned.decimal) for i, pinned in box.stated.items()] == [(0, "X_0", shown)]
    if low != Fraction(1, 3):
        assert bounds[0] <= Decimal(shown) <= other[0]
    several = box.spread(np.array([1, 0, 0]))
    assert [(i, pinned.name, pinned.decimal) for i, pinned in several.stated.items()] == [
        (1, "X_1", shown),
        (2, "X_2", shown),
    ]


def test_open_bounds_are_not_stated() -> None:
    low, high = Decimal("0.10000000001"), Decimal("0.10000000002")
    for lower_open, upper_open in ((True, False), (False, True), (True, True)):
        box = Box.from_exact([low], [high], lower_open=lower_open, upper_open=upper_open)
        value = Decimal(box.stated[0].decimal)
        assert low < value if lower_open else low <= value
        assert value < high if upper_open else value <= high


def test_ordinary_boxes_state_nothing() -> None:
    assert not Box.from_exact([Decimal("0.1"), Decimal("0.5")], [Decimal("0.2"), Decimal("0.5")]).stated
