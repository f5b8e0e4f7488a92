"""VNN-LIB properties, read exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from mipverify_check.errors import BadInputError
from mipverify_check.vnnlib import Row, parse

HEAD = "(declare-const X_0 Real)(declare-fun X_1 () Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"


def row(key: dict[int, int | str], constant: int | str, strict: bool = False) -> Row:
    return Row(tuple((k, Fraction(v)) for k, v in sorted(key.items())), Fraction(constant), strict)


def clauses(text: str) -> list[list[Row]]:
    found = parse(HEAD + text, "p")
    return [found.common + clause for clause in found.clauses]


def test_bounds_are_the_decimals_of_the_file() -> None:
    (clause,) = clauses("(assert (<= X_0 0.1)) ; a comment )\n(assert (>= X_0 -1e-3))(assert (< X_1 2.50))")
    assert clause == [row({0: 1}, "-1/10"), row({0: -1}, "-1/1000"), row({1: 1}, "-5/2", True)]


def test_a_comment_ends_with_its_line() -> None:
    ((*_, found),) = clauses("(assert (<= Y_0 1)); a comment\r(assert (<= Y_1 1))")
    assert found == row({-2: 1}, -1)


def test_disjunctions_become_clauses() -> None:
    found = clauses("(assert (or (and (<= Y_0 Y_1) (>= X_0 1)) (> Y_1 0.5)))(assert (<= X_1 3))")
    common = row({1: 1}, -3)
    assert found == [
        [common, row({-2: -1, -1: 1}, 0), row({0: -1}, 1)],
        [common, row({-2: -1}, "1/2", True)],
    ]


def test_expressions_are_linear_and_rows_are_scaled() -> None:
    ((found,),) = clauses("(assert (<= (+ (* 2 Y_0) (- Y_1) (/ X_0 4)) (- (* Y_0 3.0) 1)))")
    # -Y_0 - Y_1 + X_0 / 4 + 1 <= 0
    assert found == row({-2: -1, -1: -1, 0: "1/4"}, 1)


def test_an_equation_is_two_rows_and_chains_are_pairs() -> None:
    assert clauses("(assert (= X_0 1))") == [[row({0: 1}, -1), row({0: -1}, 1)]]
    assert clauses("(assert (<= 0 X_0 1))") == [[row({0: -1}, 0), row({0: 1}, -1)]]


def test_what_holds_anyway_is_dropped_and_what_cannot_hold_ends_a_clause() -> None:
    assert clauses("(assert (<= 1 2))(assert (or false (<= 2 1) (<= X_0 1)))") == [[row({0: 1}, -1)]]


def test_version_2() -> None:
    text = """(vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1, 2]) (declare-output Y Real [1,3]))
    (assert (and (<= X[0,0] 0.5) (<= -1 X[0, 1])))
    (assert (<= (* 2.0 Y[0,2]) Y[0,1]))"""
    found = parse(text, "p")
    assert (found.inputs, found.outputs) == (2, 3)
    assert found.clauses == [[]]
    assert found.common == [row({0: 1}, "-1/2"), row({1: -1}, -1), row({-3: 1, -2: "-1/2"}, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "(assert (<= X_2 1))",
        "(assert (<= X_0 0x10))",
        "(assert (<= X_0 nan))",
        "(assert (<= X_0 1)",
        "(assert (<= X_0 1)))",
        "(assert (<= (* X_0 X_1) 1))",
        "(assert (<= (/ X_0 0) 1))",
        "(assert (not (<= X_0 1)))",
        "(assert (forall X_0))",
        "(assert)",
        "(push 1)",
        "(declare-const X_0 Real)",
        "(declare-const X_7 Real)",
        "(declare-const Z_0 Real)",
        "(declare-const X_2 Int)",
        "()",
        ")",
        "(assert (<= X_0 1e99999999))",
        "(assert " + "(and " * 500 + ")" * 501,
        "(assert (and" + " (or (<= X_0 1) (<= X_0 2))" * 40 + "))",
        "assert",
    ],
)
def test_refuses_what_it_does_not_read(text: str) -> None:
    with pytest.raises(BadInputError):
        parse(HEAD + text, "p")
