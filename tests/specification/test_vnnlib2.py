"""VNN-LIB 2 files are recognized, flattened in row-major order, and mean the same as their VNN-LIB 1 counterparts."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
import pytest

from mipverify.errors import InputError
from mipverify.network import Affine, Input, Network, Term
from mipverify.network.operators import Dense
from mipverify.specification import Specification, load_vnnlib

NETWORK = """(vnnlib-version <2.0>)
(declare-network f
  (declare-input X float32 [1,2,2])
  (declare-output Y float32 [1,2])
)
"""
INDICES = ["0,0,0", "0,0,1", "0,1,0", "0,1,1"]
BOX = "".join(f"(assert (and (<= X[{index}] {i + 1}.1) (>= X[{index}] -{i}.0)))\n" for i, index in enumerate(INDICES))
OUTPUT = "(assert (or (<= (+ (* 2.0 Y[0,0]) (- Y[0,1] 3.0)) (- 1.5)) (and (> Y[0,1] 0.1) (!= Y[0,0] 0.0))))\n"

V1 = (
    "".join(f"(declare-const X_{i} Real)" for i in range(4))
    + "(declare-const Y_0 Real)(declare-const Y_1 Real)"
    + "".join(f"(assert (and (<= X_{i} {i + 1}.1) (>= X_{i} -{i}.0)))" for i in range(4))
    + "(assert (or (<= (+ (* 2.0 Y_0) (- Y_1 3.0)) (- 1.5)) (and (> Y_1 0.1) (or (< Y_0 0) (> Y_0 0)))))"
)


def load(folder, content: str) -> Specification:
    path = folder / "p.vnnlib"
    path.write_text(content)
    return load_vnnlib(path)


def test_both_versions_mean_the_same(tmp_path):
    new, old = load(tmp_path, NETWORK + BOX + OUTPUT), load(tmp_path, V1)
    (new_case,), (old_case,) = new.cases, old.cases
    assert new_case.box.key() == old_case.box.key()
    assert [c.rows for c in new_case.conditions] == [c.rows for c in old_case.conditions]
    assert new_case.conditions[0].rows[0].offset == Fraction(3, 2)


def test_constants_on_the_left_and_the_type_real(tmp_path):
    less = "(assert (>= 0.5 X[0,1,0]))"
    assert load(tmp_path, NETWORK + BOX + OUTPUT + less).cases[0].box.upper[2] == 0.5
    # The parser takes no constant on the left of a variable of type Real.
    real = NETWORK.replace("float32", "Real") + BOX + less.replace(">= 0.5 X[0,1,0]", "<= X[0,1,0] 0.5")
    question = load(tmp_path, real + "(assert (== Y[0,0] Y[0,1]))")
    assert question.cases[0].box.upper[2] == 0.5
    assert question.violated_by([0, 0, 0.5, 0], [2, 2])
    assert not question.violated_by([0, 0, 0.5, 0], [2, 1])
    assert not question.violated_by([0, 0, 0.75, 0], [2, 2])


def test_a_scalar_output_has_no_indices(tmp_path):
    question = load(tmp_path, NETWORK.replace("Y float32 [1,2]", "Y float32 []") + BOX + "(assert (<= Y 0.0))")
    assert question.num_outputs == 1


SECOND = "(declare-network g (declare-input A float32 [1]) (declare-output B float32 [1]))\n"
ERRORS = {
    "another network's input without bounds": (NETWORK + SECOND + BOX + OUTPUT, r"input A\[0\] has no lower bound"),
    "integers": (NETWORK.replace("X float32", "X int8") + BOX + OUTPUT, "X has type I8|line"),
    "nonlinear": (NETWORK + BOX + "(assert (<= (* Y[0,0] Y[0,1]) 1.0))", r"not linear: \(\*"),
    "syntax": (NETWORK + BOX + "(assert (xor))", "line 10, column"),
    "exponent": (NETWORK + BOX + "(assert (<= Y[0,0] 1.0e-3))", "no exponent"),
    "index": (NETWORK + BOX + "(assert (<= Y[0,2] 1.0))", "line 10: Index out of bounds"),
    "negative index of an output": (NETWORK + BOX + "(assert (<= Y[0,-1] 1.0))", r"line 10: Y\[0,-1\] is no element"),
    "negative index of an input": (
        NETWORK + BOX + "(assert (<= X[0,1,-2] 1.0))",
        r"line 10: X\[0,1,-2\] is no element",
    ),
    "negative index of inputs that are equal": (
        NETWORK + BOX + OUTPUT + "(assert (== X[0,0,0] X[0,-1,0]))",
        r"X\[0,-1,0\] is no element",
    ),
    "huge index": (NETWORK + BOX + f"(assert (<= Y[0,{'9' * 30}] 1.0))", "too many digits"),
    "huge size": (NETWORK.replace("[1,2]", f"[1,{'9' * 30}]") + BOX, "too many digits"),
    "huge whole number": (NETWORK + BOX + f"(assert (<= Y[0,0] {'9' * 30}))", "too many digits"),
    "a dash that is no minus": (
        NETWORK + BOX + "; \u2212\n(assert (<= Y[0,0] \u22121.0))",
        "line 11: a character that is",
    ),
    "a name that is not ASCII": (NETWORK.replace("Y", "\u00dc") + BOX, "line 4: a character that is none of ASCII"),
    "undeclared": (NETWORK + BOX + "(assert (<= Z 1.0))", "line 10: Undeclared variable: Z"),
    "version": (NETWORK.replace("2.0", "3.0") + BOX + OUTPUT, "line 1: Incompatible"),
    "no version": (NETWORK.split("\n", 1)[1] + BOX + OUTPUT, "syntax error at line 1"),
    "missing bound": (NETWORK + OUTPUT, r"input X\[0,0,0\] has no lower bound"),
    "empty box": (NETWORK + BOX + OUTPUT + "(assert (> X[0,1,0] 7.0))", r"no value of X\[0,1,0\]"),
    "too deep": (NETWORK + "(" * 1000, "nested deeper than 400"),
}


@pytest.mark.parametrize(("content", "message"), ERRORS.values(), ids=ERRORS)
def test_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def stub(shape: tuple[int, ...], input_type: str | None = "float32", outputs: tuple[int, ...] = (1, 2)) -> Network:
    size, count = prod(shape), prod(outputs)
    affine = Affine(outputs, (Term(0, Dense(np.ones((count, size), np.float32))),))
    return Network((Input(shape), affine), 1, input_type=input_type)


def test_a_network_takes_what_the_file_declares(tmp_path):
    question = load(tmp_path, NETWORK + BOX + OUTPUT)
    for shape in ((1, 2, 2), (2, 2), (1, 1, 2, 2), (2, 1, 2)):
        question.require_network(stub(shape))
    question.require_network(stub((1, 2, 2), None, (2,)))
    real = load(tmp_path, NETWORK.replace("float32", "real") + BOX + OUTPUT)
    real.require_network(stub((1, 2, 2), "float64"))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (stub((1, 4)), r"declares its input X as \[1, 2, 2\], the network's input is \[1, 4\]"),
        (stub((4, 1)), r"its input X as \[1, 2, 2\]"),
        (stub((1, 2, 2), "float64"), "declares its input X as float32, the network's is float64"),
        (stub((1, 2, 3)), "has 4 inputs, the network 6"),
        (stub((1, 2, 2), outputs=(2, 2)), "has 2 outputs, the network 4"),
    ],
)
def test_another_shape_or_type_is_refused(tmp_path, network, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, NETWORK + BOX + OUTPUT).require_network(network)
    assert str(error.value).startswith(str(tmp_path / "p.vnnlib"))
