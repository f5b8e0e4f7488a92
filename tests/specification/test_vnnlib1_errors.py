"""What VNN-LIB 1 files cannot say is refused in one line that names the file, and the line where there is one."""

from __future__ import annotations

import pytest

from mipverify.errors import InputError
from mipverify.specification import load_vnnlib

DECLARED = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 0))\n(assert (<= X_0 1))\n"
GOOD = "(assert (<= Y_0 Y_1))\n"
H = DECLARED + BOX  # five lines

FILES = {
    "unclosed": (H + "(assert (<= Y_0 Y_1)", "line 6: a parenthesis is never closed"),
    "unopened": (H + GOOD + ")", "line 7: a closing parenthesis"),
    "word outside": (H + "assert", "line 6: expected an opening parenthesis"),
    "no operator": (H + "(assert ((<= Y_0 Y_1)))", "line 6: expected an operator"),
    "nothing in parentheses": (H + "(assert ())", "line 6: expected an operator"),
    "unknown command": (H + "(define-fun f)", "line 6: unknown command 'define-fun'"),
    "unknown operator": (H + "(assert\n (not (<= Y_0 Y_1)))", "line 7: 'not' is not supported"),
    "empty assert": (H + "(assert)", "line 6: assert takes one argument"),
    "bare comparison": (H + "(<= X_0 1)", "line 6: a comparison outside"),
    "one side": (H + "(assert (<= Y_0))", "line 6: '<=' takes at least two"),
    "no arguments": (H + "(assert (<= (+) Y_0))", "line 6: '\\+' without arguments"),
    "number as condition": (H + "(assert 1)", "line 6: expected a comparison, found '1'"),
    "sum as condition": (H + "(assert (and (+ Y_0 1)))", "line 6: expected a comparison, found an arith"),
    "condition as number": (H + "(assert (<= Y_0 (or (<= Y_0 1))))", "line 6: expected a number or a variable"),
    "undeclared output": (H + "(assert (<= Y_0 Y_2))", "line 6: Y_2 is not declared"),
    "undeclared input": (H + "(assert (<= X_1 1))", "line 6: X_1 is not declared"),
    "foreign name": (H + "(assert (<= Y_0 Z_1))", "line 6: 'Z_1' is neither"),
    "nan": (H + "(assert (<= Y_0 nan))", "line 6: 'nan' is neither"),
    "infinity": (H + "(assert (<= X_0 inf))", "line 6: 'inf' is neither"),
    "bad number": (H + "(assert (<= X_0 1.2.3))", "line 6: '1.2.3' is not a number"),
    "absurd exponent": (H + "(assert (<= X_0 1e999999999))", "line 6: '1e999999999'"),
    "nonlinear": (H + "(assert (<= (* Y_0 X_0) 1))", "line 6: a product of two variables"),
    "declared twice": (DECLARED + "(declare-const Y_0 Real)", "line 4: Y_0 is declared twice"),
    "integer type": ("(declare-const X_0 Int)", "line 1: a declaration must read"),
    "odd index": ("(declare-const X_01 Real)", "line 1: a declaration must read"),
    "gap": (DECLARED + "(declare-const X_2 Real)" + BOX + GOOD, "X_1 is not declared, but X_2 is"),
    "no inputs": ("(declare-const Y_0 Real)", "no input X_0"),
    "no outputs": ("(declare-const X_0 Real)", "no output Y_0"),
    "no file content": ("", "no input X_0"),
    "no lower bound": (DECLARED + "(assert (<= X_0 1))" + GOOD, "input X_0 has no lower bound"),
    "no upper bound": (DECLARED + "(assert (>= X_0 1))" + GOOD, "input X_0 has no upper bound"),
    "beyond float32": (DECLARED + "(assert (>= X_0 1e39))(assert (<= X_0 1e40))" + GOOD, "of X_0 exceed every float32"),
    "no output property": (H, "constrains no output"),
    "false constant": (H + GOOD + "(assert (<= 1 0))", "empty property"),
    "no alternative": (H + GOOD + "(assert (or))", "empty property"),
    "empty box": (H + GOOD + "(assert (>= X_0 2))", "empty input set: no value of X_0 .* 2 and 1"),
    "open at a point": (H + GOOD + "(assert (> X_0 1))", "empty input set: no value of X_0"),
    "all empty": (H + GOOD + "(assert (or (> X_0 1) (< X_0 0)))", "empty input set.*every other alternative"),
    "too large": (H + f"(assert (and {'(or (<= Y_0 1) (<= Y_1 1))' * 20}))", "line 6: .* 131072 conjunctions"),
    "too large over asserts": (H + "(assert (or (<= Y_0 1) (<= Y_1 1)))" * 20, "131072 conjunctions"),
    "too deep for a recursion": (H + "(" * 200_000, "line 6: a parenthesis is never closed"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "p.vnnlib"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_vnnlib(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_the_skeleton_of_these_files_is_right(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(H + GOOD)
    assert load_vnnlib(path).num_outputs == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "not a text file"), (b"\x1f\x8b\x08damaged", "damaged gzip file"), (None, "No such file")],
)
def test_files_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "p.vnnlib"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_vnnlib(path)


def test_a_folder_is_no_property(tmp_path):
    with pytest.raises(InputError, match="Is a directory"):
        load_vnnlib(tmp_path)
