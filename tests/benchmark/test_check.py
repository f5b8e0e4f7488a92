"""The competition's check of counterexamples, with no tolerance on what is printed."""

from __future__ import annotations

import pytest

from mipverify.benchmark.check import CORRECT, check_witness
from tests.benchmark.conftest import write_network, write_property


@pytest.fixture
def check(tmp_path):
    network, prop = write_network(tmp_path / "net.onnx"), write_property(tmp_path / "p.vnnlib", 0.5)

    def run(x0, x1="0.1", y0="7"):
        return check_witness([("", network)], prop, f"((X_0 {x0})\n (X_1 {x1})\n (Y_0 {y0})\n (Y_1 0.1))\n")

    return run


def test_what_the_solver_says_of_outputs_is_ignored(check):
    assert check("0.5") == CORRECT
    assert check("5e-1", y0="0") == CORRECT
    assert "does not meet" in check("0.49999997", y0="1")


def test_decimals_count_as_they_are_printed(check):
    assert "does not meet" in check("1.00000001"), "as float32 it would be 1"
    assert "does not meet" in check("0.75", x1="0.10000000149011612"), "the float32 nearest to 0.1, and not 0.1"
    assert check("0.75", x1="1e-1") == CORRECT


def test_what_is_no_witness_is_told(check, tmp_path):
    assert "no number" in check("nan")
    network, prop = tmp_path / "net.onnx", tmp_path / "p.vnnlib"
    assert "X_1 where X_0 belongs" in check_witness([("", network)], prop, "((X_1 0) (X_0 0))")
    assert "the witness has 1" in check_witness([("", network)], prop, "((X_0 0.5) (Y_0 1))")
    assert check_witness([("", network)], prop, "") != CORRECT


def test_all_of_the_syntax(tmp_path):
    network, prop = write_network(tmp_path / "net.onnx"), tmp_path / "q.vnnlib"
    prop.write_text(
        "; (assert (>= X_0 5))\n(declare-fun X_0 () Real)\n(assert (or (and (<= X_0 0.5) (>= (* 2 Y_0) (+ X_0 0.25)))\n"
        "  (and (> (- X_1) -0.5 -1) (= Y_1 (/ 1 4)))))\n"
    )

    def run(x0, x1):
        return check_witness([("", network)], prop, f"((X_0 {x0}) (X_1 {x1}))") == CORRECT

    assert run("0.25", "3")
    assert not run("0.125", "3")
    assert run("0.75", "0.25")
    assert not run("0.75", "0.5")
