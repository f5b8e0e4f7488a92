"""Conditions on what a sigmoid or softmax gives, turned into conditions on scores: met wherever the former are."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition, Row
from mipverify.specification.preimage import on_scores

EXACT = Context(prec=120)
TIGHT = Fraction(1, 10**40)
NUMBERS = st.one_of(
    st.fractions(-3, 3, max_denominator=1000),
    st.sampled_from([Fraction(1, 2), Fraction(0), Fraction(1), Fraction(1, 10**30), 1 - Fraction(1, 10**30)]),
)


def sigmoid(score: Fraction) -> Fraction:
    """To 100 digits."""
    value = EXACT.divide(Decimal(-score.numerator), Decimal(score.denominator))
    return 1 / (1 + Fraction(EXACT.exp(value)))


def log_sigmoid(score: Fraction) -> Fraction:
    value = sigmoid(score)
    return Fraction(EXACT.ln(EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))))


def given_by(function: str, scores: list[Fraction]) -> list[Fraction]:
    """What a function makes of one or two scores."""
    if function == "Sigmoid":
        return [sigmoid(score) for score in scores]
    of = sigmoid if function == "Softmax" else log_sigmoid
    return [of(scores[0] - scores[1]), of(scores[1] - scores[0])]


def met(row: Row, values: list[Fraction]) -> bool:
    total = sum((c * values[i] for i, c in row.outputs.items()), Fraction(0))
    return total < row.offset if row.strict else total <= row.offset


@given(
    function=st.sampled_from(["Sigmoid", "Softmax", "LogSoftmax"]),
    coefficient=st.sampled_from([Fraction(1), Fraction(-2), Fraction(1, 3)]),
    output=st.integers(0, 1),
    threshold=NUMBERS,
    strict=st.booleans(),
    scores=st.lists(st.fractions(-5, 5, max_denominator=50), min_size=2, max_size=2),
)
def test_a_threshold_on_values_is_one_on_scores(
    function: str, coefficient: Fraction, output: int, threshold: Fraction, strict: bool, scores: list[Fraction]
) -> None:
    stated = Row({output: coefficient}, {}, coefficient * threshold, strict)
    (row,) = on_scores(Condition.from_rows([stated], 1, 2), (function,), 2).rows
    values = given_by(function, scores)
    if abs(values[output] - threshold) > TIGHT:  # closer, the values above are not exact enough to tell
        assert met(row, scores) == met(stated, values)


@given(threshold=st.fractions(0, 1, max_denominator=10**6).filter(lambda t: 0 < t < 1), upper=st.booleans())
def test_thresholds_are_rounded_outward_by_next_to_nothing(threshold: Fraction, upper: bool) -> None:
    sign = 1 if upper else -1
    stated = Condition.from_rows([Row({0: Fraction(sign)}, {}, sign * threshold)], 1, 1)
    (row,) = on_scores(stated, ("Sigmoid",), 1).rows
    bound = row.offset / row.outputs[0]
    beyond = sigmoid(bound) - threshold
    assert beyond >= 0 if upper else beyond <= 0
    assert abs(beyond) < Fraction(1, 10**45)
    assert (bound == 0) == (threshold == Fraction(1, 2))


@given(a=NUMBERS, b=NUMBERS, offset=NUMBERS, strict=st.booleans(), difference=st.fractions(-4, 4, max_denominator=40))
def test_two_classes_add_up_to_one(
    a: Fraction, b: Fraction, offset: Fraction, strict: bool, difference: Fraction
) -> None:
    stated = Row({k: c for k, c in enumerate((a, b)) if c}, {}, offset, strict)
    (row,) = on_scores(Condition.from_rows([stated], 1, 2), ("Softmax",), 2).rows
    values = given_by("Softmax", [difference, Fraction(0)])
    if abs(sum((c * values[i] for i, c in stated.outputs.items()), Fraction(0)) - offset) > TIGHT:
        assert met(row, [difference, Fraction(0)]) == met(stated, values)


def test_order_is_kept_by_all() -> None:
    row = Row({0: Fraction(2), 2: Fraction(-2)}, {}, Fraction(0), True)
    for functions in (("Softmax",), ("Sigmoid",), ("LogSoftmax", "Sigmoid"), ("Softmax", "ArgMax")):
        assert on_scores(Condition.from_rows([row], 1, 3), functions, 3).rows == (row,)


def test_differences_of_logarithms_are_differences_of_scores() -> None:
    row = Row({0: Fraction(1), 2: Fraction(-1)}, {}, Fraction(5), True)
    assert on_scores(Condition.from_rows([row], 1, 3), ("LogSoftmax",), 3).rows == (row,)


@pytest.mark.parametrize(
    ("functions", "row"),
    [
        (("Softmax",), Row({0: Fraction(1)}, {}, Fraction(1, 2))),
        (("Softmax",), Row({0: Fraction(1), 1: Fraction(-1)}, {}, Fraction(1, 2))),
        (("Sigmoid",), Row({0: Fraction(1), 1: Fraction(-1)}, {}, Fraction(1, 2))),
        (("Sigmoid",), Row({0: Fraction(1), 1: Fraction(-2)}, {}, Fraction(0))),
        (("Sigmoid", "Sigmoid"), Row({0: Fraction(1)}, {}, Fraction(1, 2))),
        (("Softmax", "ArgMax"), Row({0: Fraction(1)}, {}, Fraction(1))),
        (("Sigmoid",), Row({0: Fraction(1)}, {0: Fraction(1)}, Fraction(1))),
    ],
)
def test_everything_else_is_refused(functions: tuple[str, ...], row: Row) -> None:
    with pytest.raises(InputError):
        on_scores(Condition.from_rows([row], 1, 3), functions, 3)
