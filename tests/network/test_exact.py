"""Arithmetic that does not round equals that of fractions, whatever the sizes."""

from __future__ import annotations

import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify.network.builder import RewriteError
from mipverify.network.rewrites.exact import Exact

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 0.1, 3.0, 5e-324, -(2.0**-1074), 2.0**-537, 1.7e308, 2.0**53 + 2, 1 + 2.0**-52]),
)
ARRAYS = st.lists(NUMBERS, min_size=1, max_size=3)


OPERATIONS = {"sum": operator.add, "difference": operator.sub, "product": operator.mul, "quotient": operator.truediv}


@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_fractions(name: str) -> None:
    operation = OPERATIONS[name]

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(ARRAYS, NUMBERS.filter(lambda number: name != "quotient" or number != 0))
    def check(left: list[float], right: float) -> None:
        found = operation(Exact.of(left), Exact.of(right))
        expected = [operation(Fraction(number), Fraction(right)) for number in left]
        assert np.broadcast_to(found.fractions, len(left)).tolist() == expected
        assert np.broadcast_to((-abs(found)).fractions, len(left)).tolist() == [-abs(number) for number in expected]

    check()


def test_large_arrays_of_few_bits_stay_doubles() -> None:
    numbers = Exact.of(np.random.default_rng(0).normal(size=1000).astype(np.float32))
    assert (Exact.of(1.0) - numbers * numbers / numbers).values.dtype == np.float64


def test_equal_numbers_are_one() -> None:
    assert Exact.of(np.full(9, 0.1)).values.shape == ()
    assert Exact.of([1.0, 2.0]).values.shape == (2,)


def test_parts() -> None:
    third = Exact.of([1.0, 2.0]) / Exact.of(3.0)
    assert third.only(np.array([True, False])).fractions.tolist() == [Fraction(1, 3), 0]
    assert not third.is_zero()
    assert (third - third).is_zero()
    np.testing.assert_array_equal(third.rounded(), [1 / 3, 2 / 3])


def test_infinity_is_refused() -> None:
    with pytest.raises(RewriteError, match="infinity"):
        Exact.of([1.0, np.inf])
