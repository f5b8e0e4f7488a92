"""Property files that are huge, deep or absurd are read in time linear in their size, or refused in one short line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from mipverify.errors import InputError
from mipverify.specification import Specification, load_vnnlib

DECLARED = "".join(f"(declare-const {v}_{i} Real)\n" for v in "XY" for i in range(2))
BOX = "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(2))
HEAD = DECLARED + BOX
MANY = 100_000


def load(folder, content: str | bytes) -> Specification:
    path = folder / "p.vnnlib"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_vnnlib(path)


def nested(operator: str, leaf: str, depth: int) -> str:
    return f"({operator} {leaf} " * depth + leaf + ")" * depth


def test_many_boxes(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.random((5000, 2))
    parts = [
        f"(and (>= X_0 {a!r}) (<= X_0 2) (>= X_1 {b!r}) (<= X_1 2) (<= Y_0 {i}))"
        for i, (a, b) in enumerate(low.tolist())
    ]
    question = load(tmp_path, DECLARED + f"(assert (or {' '.join(parts)}))")
    assert len(question.cases) == 5000
    found = np.array([case.box.lower for case in question.cases])
    assert ((found <= low) & (low <= np.nextafter(found, 1))).all()
    assert [case.conditions[0].offset[0] for case in question.cases[:3]] == [0, 1, 2]


def test_many_conditions(tmp_path):
    parts = [f"(and (<= Y_0 0.{i}) (>= Y_1 {i}))" for i in range(20_000)]
    (case,) = load(tmp_path, HEAD + f"(assert (or {' '.join(parts)}))").cases
    assert len(case.conditions) == 20_000
    assert case.conditions[7].output_rows.tolist() == [[1, 0], [0, -1]]
    assert case.conditions[7].offset.tolist() == [0.7000000000000001, -7]
    assert str(case.conditions[7]) == "Condition(Y_0 <= 0.7 and Y_1 >= 7)"


def test_of_many_bounds_on_an_output_the_tightest_remains(tmp_path):
    lines = [f"(assert (<= Y_0 {10 + i}))(assert (> Y_0 -{10 + i}))" for i in range(MANY)]
    (condition,) = load(tmp_path, HEAD + "(assert (<= Y_1 3))" + "".join(lines)).cases[0].conditions
    assert {str(row) for row in condition.rows} == {"Y_1 <= 3", "Y_0 <= 10", "Y_0 > -10"}
    assert condition.satisfied([0, 0], [-9, 3])
    assert not condition.satisfied([0, 0], [-10, 3])


@pytest.mark.parametrize(
    ("expression", "conditions"),
    [
        (nested("and", "(<= Y_0 Y_1)", 20_000), 1),
        (nested("or", "(<= Y_0 Y_1)", MANY - 1), MANY),
        ("(and " * MANY + "(<= Y_0 Y_1)" + ")" * MANY, 1),
        (f"(<= {nested('+', 'Y_1', MANY)} 1)", 1),
        (f"(<= {nested('-', 'Y_1', MANY)} 1)", 1),
    ],
    ids=["and", "or", "parentheses", "sum", "difference"],
)
def test_deep_expressions(tmp_path, expression, conditions):
    assert len(load(tmp_path, HEAD + f"(assert {expression})").cases[0].conditions) == conditions


PRIMES = [p for p in range(2, 30_000) if all(p % q for q in range(2, int(p**0.5) + 1))]
REFUSED = {
    "digits": (
        f"(assert (<= Y_0 0.{'9' * MANY}))",
        r"line 7: '0\.9+… .*beyond the numbers that are read \(2000 digits",
    ),
    "digits of an input": (f"(assert (<= X_0 {'9' * MANY}))", "line 7: '9+… .*beyond the numbers"),
    "exponent": ("(assert (<= Y_0 1e99999999999999999999))", "beyond the numbers"),
    "divisor of many digits": (f"(assert (<= Y_0 (/ 1 {'7' * MANY})))", "beyond the numbers"),
    "chain of large factors": (f"(assert (<= (* {'1e4999 ' * 2000} Y_0) 1))", "line 7: a number has too many digits"),
    "chain of small factors": (f"(assert (<= (* {'1e-4999 ' * 2000} Y_0) 1))", "too many digits"),
    "sum of unlike fractions": (
        f"(assert (<= (+ Y_0 {' '.join(f'(/ 1 {p})' for p in PRIMES)}) 1))",
        "line 7: a number has too many digits",
    ),
    "large coefficient": (
        "(assert (<= (* 1e4999 Y_0) 1e-4999))",
        r"line 7: a coefficient of about 1\.0*e\+4999, which no float64 stands for",
    ),
    "small coefficient": ("(assert (<= (+ Y_1 (* 1e-400 Y_0)) 1))", "no float64 stands for"),
    "unlike coefficients": ("(assert (<= (+ (* 1e300 Y_1) (* 1e-320 Y_0)) 1))", "no float64 stands for"),
    "offset": ("(assert (<= Y_0 1e400))", "no float64 stands for"),
    "division by zero": ("(assert (<= (/ Y_0 0.0) 1))", "line 7: a division by zero"),
    "division by a variable": ("(assert (<= (/ 1 Y_0) 1))", "line 7: a division by a variable"),
    "name": (f"(declare-const {'Q' * 10 * MANY} Real)", "line 7: a declaration must read"),
    "word": (f"(assert (<= Y_0 {'Q' * 10 * MANY}))", "line 7: 'Q+…"),
    "operator": (f"(assert ({'Q' * 10 * MANY} Y_0 1))", "line 7: 'Q+…"),
    "command": (f"({'Q' * 10 * MANY})", "line 7: unknown command 'Q+…"),
    "assertion in an assertion": ("(assert (and (assert (<= Y_0 1)) (<= Y_1 1)))", "line 7: 'assert' is not supported"),
    "NUL": ("(assert (<= Y_0 1))\n\0", "line 8: not a text file: it holds a NUL byte"),
    "too many": (f"(assert {nested('or', '(<= Y_0 Y_1)', MANY)})", "100001 conjunctions"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_short_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, HEAD + content + "\n(assert (<= Y_1 3))\n")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_characters_are_named(tmp_path, encoding):
    with pytest.raises(InputError, match=r"UTF-16|NUL"):
        load(tmp_path, (HEAD + "(assert (<= Y_0 Y_1))").encode(encoding))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-8-sig"])
def test_comments_may_be_written_in_any_language(tmp_path, encoding):
    question = load(tmp_path, ("; Größe é ß\n" + HEAD + "(assert (<= Y_0 Y_1)) ; à\n").encode(encoding))
    assert question.num_inputs == 2


def test_quotients_are_exact(tmp_path):
    case = load(tmp_path, HEAD + "(assert (<= X_0 (/ 1 3)))(assert (<= (* (/ 1 3) Y_0) (/ 2 -3.5)))").cases[0]
    assert case.box.upper[0] == np.nextafter(1 / 3, 1), "1/3 as a float is below it"
    (row,) = case.conditions[0].rows
    assert str(row) == "Y_0 <= -12/7"


def test_a_declared_tensor_of_any_size_ends_soon(tmp_path):
    head = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X Real [{}]) (declare-output Y Real [{}]))\n"
    with pytest.raises(InputError, match=r"input X\[0,0\] has no lower bound \(nor have 9999999999 other"):
        load(tmp_path, head.format("100000,100000", 2) + "(assert (<= Y[0] -5.0))")
    box = "(assert (and (<= X[0] 1.0) (>= X[0] 0.0)))"
    with pytest.raises(InputError, match="output Y has 10000000000 elements"):
        load(tmp_path, head.format(1, "100000,100000") + box + "(assert (<= Y[0,0] -5.0))")


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "p.vnnlib.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(300):
            file.write(b" " * 2**20)
    with pytest.raises(InputError, match="expand to more than"):
        load_vnnlib(path)


V2 = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X Real [1]) (declare-output Y Real [1]))\n"
V2_BOX = "(assert (and (<= X[0] 1.0) (>= X[0] 0.0)))\n"
V2_REFUSED = {
    "digits": (V2 + V2_BOX + f"(assert (<= Y[0] 0.{'9' * MANY}))", "beyond the numbers that are read"),
    "digits of an input": (V2 + f"(assert (<= X[0] 0.{'9' * MANY}))", "beyond the numbers that are read"),
    "name": (V2 + V2_BOX + f"(assert (<= {'Q' * 10 * MANY} 1.0))", "Undeclared variable: Q+…"),
    "deep": (V2 + V2_BOX + "(assert " + "(and " * MANY + "(<= Y[0] 1.0)" + ")" * MANY + ")", "nested deeper"),
    "NUL": (V2 + V2_BOX + "(assert (<= Y[0] 1.0))\0", "NUL byte"),
    "unclosed": (V2 + V2_BOX + "(assert", "syntax error"),
}


@pytest.mark.parametrize(("content", "message"), V2_REFUSED.values(), ids=V2_REFUSED)
def test_version_2_is_refused_in_one_short_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, content)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_many_assertions_of_version_2(tmp_path):
    lines = [f"(assert (<= Y[0] {5 + i}.5))\n" for i in range(50_000)]
    (condition,) = load(tmp_path, V2 + V2_BOX + "".join(lines)).cases[0].conditions
    assert str(condition) == "Condition(Y_0 <= 5.5)"
