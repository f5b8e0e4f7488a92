"""Conditions decide exactly, and their float arrays never describe less than the exact set."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipverify.specification import Condition, Row

F = Fraction
COEFFICIENTS = st.one_of(st.integers(-4, 4).map(F), st.fractions(-2, 2, max_denominator=50)).filter(bool)


def condition(*rows: Row, inputs: int = 2, outputs: int = 3) -> Condition:
    return Condition.from_rows(rows, inputs, outputs)


def test_a_tie_satisfies_unless_the_row_is_strict():
    y = np.float32([1, 1, 0])
    loose, strict = (condition(Row({0: F(1), 1: F(-1)}, {}, F(0), s)) for s in (False, True))
    assert loose.satisfied([0, 0], y)
    assert not strict.satisfied([0, 0], y)
    assert strict.strict.tolist() == [True]
    assert strict.margin(y).tolist() == [0.0]


def test_decided_exactly_where_float64_cannot():
    # 2^60 + 1 is no float64: the sum rounds to 2^60.
    row = Row({0: F(1), 1: F(1)}, {}, F(2**60))
    y = np.float32([2**60, 1, 0])
    assert condition(row).margin(y).tolist() == [0.0]
    assert not condition(row).satisfied([0, 0], y)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_satisfy_nothing(bad):
    always = condition()
    assert always.satisfied([0, 0], [0, 0, 0])
    assert not always.satisfied([0, 0], [0, bad, 0])
    assert not always.satisfied([0, bad], [0, 0, 0])


@given(st.dictionaries(st.integers(0, 2), COEFFICIENTS, min_size=1), st.fractions(-3, 3, max_denominator=70))
def test_arrays_contain_the_exact_set(coefficients, offset):
    made = condition(Row(coefficients, {}, offset))
    assert made.coefficients_exact
    row = [F(float(v)) for v in made.output_rows[0]]
    scale = {row[i] / c for i, c in coefficients.items()}
    assert len(scale) == 1
    (factor,) = scale
    assert F(1, 2) < factor < 2
    assert [i for i, c in enumerate(row) if c] == sorted(coefficients)
    rounded = F(float(made.offset[0]))
    assert rounded >= offset * factor > F(float(np.nextafter(made.offset[0], -np.inf)))


def test_coefficients_that_cannot_be_exact_are_flagged():
    huge = F(2**60 + 1, 3)
    assert not condition(Row({0: huge, 1: F(1, 7)}, {}, F(0))).coefficients_exact


def test_inputs_enter_rows_and_margins():
    mixed = condition(Row({0: F(1)}, {1: F(-2)}, F(3)), Row({2: F(1)}, {}, F(0)))
    assert mixed.input_rows.shape == (2, 2)
    x, y = np.array([[[0.0, 1.0]], [[0.0, -4.0]]]), np.array([[[5.0, 0, 0]], [[5.0, 0, 1]]])
    assert mixed.margin(y, x).tolist() == [[[0.0, 0.0]], [[10.0, 1.0]]]
    assert mixed.satisfied(x[0, 0], y[0, 0])
    assert not mixed.satisfied(x[1, 0], y[1, 0])
    with pytest.raises(ValueError, match="needs the inputs"):
        mixed.margin(y)


def test_wrong_number_of_outputs_is_no_answer():
    with pytest.raises(ValueError, match="4 outputs"):
        condition().satisfied([0, 0], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row({0: F(1), 4: F(-1)}, {}, F(0)), "Y_0 <= Y_4"),
        (Row({0: F(-1)}, {}, F(-3, 2)), "Y_0 >= 1.5"),
        (Row({0: F(-1)}, {}, F(-3, 2), True), "Y_0 > 1.5"),
        (Row({0: F(1, 10)}, {2: F(-3)}, F(1, 3), True), "0.1 Y_0 < 3 X_2 + 1/3"),
        (Row({}, {}, F(0)), "0 <= 0"),
    ],
)
def test_labels_read_like_the_property(row, text):
    assert str(row) == text
