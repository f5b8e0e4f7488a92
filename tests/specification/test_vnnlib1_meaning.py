"""A VNN-LIB 1 file means what a direct evaluation of its assertions says, at every float32 point."""

from __future__ import annotations

import gzip
import hashlib
import time
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.specification import Specification, load_vnnlib
from mipverify.specification.vnnlib1 import parse_vnnlib1

INPUTS, OUTPUTS = 3, 2
VARIABLES = [f"X_{i}" for i in range(INPUTS)] + [f"Y_{j}" for j in range(OUTPUTS)]
DECLARATIONS = "".join(f"(declare-const {name} Real)\n" for name in VARIABLES)
BOX = "".join(f"(assert (and (<= X_{i} 2) (>= X_{i} -2)))\n" for i in range(INPUTS))
# Few values, so that ties, equal bounds and contradictions are common; all are float32.
NUMBERS = st.sampled_from(["0", "1", "-1.0", "2", "0.5", "-5e-1", "1.5E+0", ".25", "3."])
POINTS = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0])

Tree = list | str  # an S-expression


def text(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(map(text, tree))})"


def value(tree: Tree, point: dict[str, Fraction]) -> Fraction:
    if isinstance(tree, str):
        return point[tree] if tree in point else Fraction(tree)
    first, *rest = [value(part, point) for part in tree[1:]]
    if tree[0] == "+":
        return first + sum(rest)
    if tree[0] == "-":
        return first - sum(rest) if rest else -first
    for factor in rest:
        first *= factor
    return first


def holds(tree: Tree, point: dict[str, Fraction]) -> bool:
    if tree[0] == "and":
        return all(holds(part, point) for part in tree[1:])
    if tree[0] == "or":
        return any(holds(part, point) for part in tree[1:])
    left, right = value(tree[1], point), value(tree[2], point)
    return {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right, "=": left == right}[tree[0]]


CONSTANTS = st.recursive(NUMBERS, lambda inner: st.tuples(st.sampled_from("+-*"), inner).map(list), max_leaves=3)
LINEAR = st.recursive(
    st.one_of(NUMBERS, st.sampled_from(VARIABLES)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner).map(list),
        st.tuples(st.sampled_from("+-"), inner, inner).map(list),
        st.tuples(st.just("+"), inner, inner, inner).map(list),
        st.tuples(st.just("*"), CONSTANTS, inner).map(list),
        st.tuples(st.just("*"), inner, CONSTANTS).map(list),
    ),
    max_leaves=6,
)
RELATIONS = st.sampled_from(["<=", ">=", "<", ">", "="])
COMPARISONS = st.one_of(
    st.tuples(RELATIONS, st.sampled_from(VARIABLES), NUMBERS).map(list),
    st.tuples(RELATIONS, st.sampled_from(VARIABLES), st.sampled_from(VARIABLES)).map(list),
    st.tuples(RELATIONS, LINEAR, LINEAR).map(list),
)
PROPERTIES = st.recursive(
    COMPARISONS,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner).map(list),
    max_leaves=9,
)


def parse(content: str) -> Specification:
    return Specification(parse_vnnlib1(content, "p.vnnlib"), "vnnlib")


def parse_or_refuse(content: str) -> Specification | str:
    try:
        return parse(content)
    except InputError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(PROPERTIES, st.lists(st.lists(POINTS, min_size=5, max_size=5), min_size=4, max_size=20))
def test_random_trees_against_direct_evaluation(tree, points):
    full = [
        "and",
        tree,
        *([">=", f"X_{i}", "-2"] for i in range(INPUTS)),
        *(["<=", f"X_{i}", "2"] for i in range(INPUTS)),
    ]
    expected = [holds(full, dict(zip(VARIABLES, map(Fraction, point), strict=True))) for point in points]
    question = parse_or_refuse(f"{DECLARATIONS}{BOX}(assert {text(tree)})")
    if isinstance(question, str):
        no_output = "constrains no output" in question
        assert no_output or ("empty" in question and not any(expected))
        return
    found = []
    for point in points:
        x, y = np.float32(point[:INPUTS]), np.float32(point[INPUTS:])
        found.append(question.violated_by(x, y))
        if found[-1]:  # whatever violates lies in the float sets on which proofs and searches work
            case = next(c for c in question.cases if c.violated_by(x, y))
            assert (case.box.lower <= x).all()
            assert (x <= case.box.upper).all()
            assert any((c.margin(y, x) <= 1e-12).all() for c in case.conditions)
    assert found == expected


def test_equal_boxes_share_a_case():
    question = parse(
        f"{DECLARATIONS}{BOX}(assert (or (<= Y_0 0) (and (<= Y_1 0) (<= Y_0 Y_1)) (and (<= X_0 2.0) (> Y_0 5))))"
    )
    (case,) = question.cases
    assert [c.label for c in case.conditions] == ["Y_0 <= 0", "Y_1 <= 0 and Y_0 <= Y_1", "Y_0 > 5"]
    assert (question.num_inputs, question.num_outputs) == (3, 2)


def test_alternatives_over_inputs_become_cases_and_empty_ones_vanish():
    alternatives = "(and (<= X_0 0) (<= Y_0 0)) (and (>= X_0 1) (<= Y_0 0)) (and (>= X_0 3) (<= Y_0 0))"
    question = parse(f"{DECLARATIONS}{BOX}(assert (or {alternatives}))")
    assert [(c.box.lower[0], c.box.upper[0]) for c in question.cases] == [(-2, 0), (1, 2)]


def test_relations_between_inputs_stay_linear_rows():
    question = parse(f"{DECLARATIONS}{BOX}(assert (<= (+ X_0 (* 2 X_1)) Y_0))")
    (condition,) = question.cases[0].conditions
    assert condition.input_rows.toarray().tolist() == [[1, 2, 0]]
    assert condition.output_rows.tolist() == [[-1, 0]]


@pytest.mark.parametrize("order", list(permutations(["<= X_0 1.0", "< X_0 1", "<= X_0 1.5", ">= X_0 -1"])))
def test_the_tightest_bound_counts_in_any_order(order):
    upper = [f"(assert ({bound}))" for bound in order]
    mirrored = str.maketrans("<>", "><")
    lower = [line.translate(mirrored).replace("X_0 ", "X_1 -").replace("--", "") for line in upper]
    question = parse(f"{DECLARATIONS}{''.join(upper + lower)}{BOX}(assert (<= Y_0 0))")
    (box,) = [case.box for case in question.cases]
    assert (box.lower.tolist(), box.upper.tolist()) == ([-1, -1, -2], [1, 1, 2])
    assert box.float32_upper[0] == np.nextafter(np.float32(1), np.float32(0)), "1 itself is excluded"
    assert box.float32_lower[1] == np.nextafter(np.float32(-1), np.float32(0)), "-1 itself is excluded"
    assert (box.float32_lower[0], box.float32_upper[1]) == (-1, 1)


def test_bounds_are_divided_exactly():
    box = parse(f"{DECLARATIONS}{BOX}(assert (<= (* 3 X_0) 1))(assert (<= Y_0 0))").cases[0].box
    below = np.nextafter(box.upper[0], -np.inf)
    assert Fraction(float(below)) < Fraction(1, 3) < Fraction(float(box.upper[0]))


def test_comments_layout_and_commands_do_not_matter():
    plain = parse(f"{DECLARATIONS}{BOX}(assert (<= Y_0 1e-1))")
    odd = parse(
        "; (assert (<= 1 0))\n(set-logic QF_LRA)\n(declare-fun X_0 () Real)"
        + DECLARATIONS.replace("(declare-const X_0 Real)", "")
        + BOX.replace(" ", "\n\t ").replace("\n\t -2", " ; a comment )\n -2.00")
        + "( assert\n(\n<= Y_0(* 0.1 1)))(check-sat)"
    )  # fmt: skip
    assert odd.cases[0].box.key() == plain.cases[0].box.key()
    assert odd.cases[0].conditions[0].rows == plain.cases[0].conditions[0].rows


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_comment_ends_with_its_line(end: str):
    """An assertion behind it counts, whatever ends lines on the machine that the file comes from."""
    text = f"{DECLARATIONS}{BOX}; smaller{end}(assert (<= X_0 0.5)){end}(assert (<= Y_0 0))"
    assert parse(text).cases[0].box.upper[0] == 0.5


def long_file(inputs: int, classes: int) -> str:
    rng = np.random.default_rng(0)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [
        f"(declare-const Y_{j} Real)" for j in range(classes)
    ]
    for i, low in enumerate(rng.random(inputs).tolist()):
        lines += [f"(assert (<= X_{i} {low + 0.05!r}))", f"(assert (>= X_{i} {low!r}))", ""]
    lines += ["(assert (or", *(f"    (and (>= Y_{j} Y_0))" for j in range(1, classes)), "))"]
    return "\n".join(lines)


@pytest.mark.parametrize("compress", [False, True])
def test_a_long_file_loads_quickly_compressed_or_not(tmp_path, compress):
    content = long_file(3072, 10).encode()
    path = tmp_path / ("p.vnnlib.gz" if compress else "p.vnnlib")
    path.write_bytes(gzip.compress(content) if compress else content)
    start = time.perf_counter()
    question = load_vnnlib(path)
    assert time.perf_counter() - start < 1.5, "measured 0.09 s"
    assert (question.num_inputs, len(question.cases), len(question.cases[0].conditions)) == (3072, 1, 9)
    assert question.path == str(path)
    assert question.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_many_boxes_with_outputs_load():
    one = "(and {} (<= Y_0 {}))"
    box = " ".join(f"(<= X_{i} {{0}}.5) (>= X_{i} {{0}})" for i in range(50))
    content = "".join(f"(declare-const X_{i} Real)" for i in range(50)) + "(declare-const Y_0 Real)"
    content += f"(assert (or {' '.join(one.format(box.format(k), k) for k in range(200))}))"
    assert len(parse(content).cases) == 200
