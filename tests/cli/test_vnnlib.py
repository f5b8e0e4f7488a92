"""The program `mipverify-vnnlib`, as the standard describes the command line of solvers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mipverify.cli.main import main as mipverify
from mipverify.cli.vnnlib import main
from tests.specification.test_query import HEAD, TWO, box, layer, two_of_each, values


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """f.onnx, g.onnx and a query about both that is sat."""
    layer(tmp_path / "f.onnx", 1)
    layer(tmp_path / "g.onnx", 2)
    bounds = box("X", (1, 2), -1, 1) + box("U", (1, 2), -1, 1)
    (tmp_path / "sat.vnnlib").write_text(HEAD + TWO.format("") + bounds + "(assert (>= Y[0,0] V[0,0]))\n")
    (tmp_path / "unsat.vnnlib").write_text(HEAD + TWO.format("") + bounds + "(assert (>= Y[0,0] (+ V[0,0] 99.0)))\n")
    return tmp_path


def test_sat_comes_with_an_assignment(two, capfd):
    files = ["--network", f"f={two / 'f.onnx'}", "--network", f"g={two / 'g.onnx'}"]
    assert main(["verify", str(two / "sat.vnnlib"), *files, "--timeout", "60"]) == 0
    word, assignment = capfd.readouterr().out.split("\n", 1)
    found = values(assignment)
    assert word == "sat"
    assert list(found) == ["X", "Y", "U", "V"]
    assert found["Y"][0, 0] >= found["V"][0, 0]
    assert main(["verify", str(two / "unsat.vnnlib"), *files]) == 0
    assert capfd.readouterr().out == "unsat\n"


def test_a_query_that_no_input_meets_is_unsat(two, capfd):
    files = ["--network", f"f={two / 'f.onnx'}", "--network", f"g={two / 'g.onnx'}"]
    text = (two / "sat.vnnlib").read_text()
    for contradiction in ("(>= X[0,0] 1.5)", "(>= 1.0 2.0)", "(and (> U[0,1] 0.5) (< U[0,1] 0.5))"):
        (two / "empty.vnnlib").write_text(f"{text}(assert {contradiction})")
        assert main(["verify", str(two / "empty.vnnlib"), *files]) == 0
        assert capfd.readouterr().out == "unsat\n"


def test_mipverify_takes_the_list_of_the_competition(two, capfd):
    networks = repr([("f", str(two / "f.onnx")), ("g", str(two / "g.onnx"))])
    out = two / "out"
    assert mipverify(["verify", networks, str(two / "sat.vnnlib"), "--result-file", str(out), "--json"]) == 10
    record = json.loads(capfd.readouterr().out)
    assert len(record["witness"]["input"]) == 4
    assert out.read_text().splitlines()[:2] == ["sat", "X float32 [1,2]"]
    assert mipverify(["verify", networks, str(two / "unsat.vnnlib"), "--quiet"]) == 0
    proof = ["--proof", str(two / "proof")]
    assert mipverify(["verify", networks, str(two / "unsat.vnnlib"), *proof]) == 2
    assert "--proof" in capfd.readouterr().err
    assert mipverify(["verify", str(two / "f.onnx"), str(two / "sat.vnnlib")]) == 2
    assert "f, g" in capfd.readouterr().err


def test_several_inputs_of_one_network(tmp_path, capfd):
    two_of_each(tmp_path / "two.onnx")
    text = "(declare-network N (declare-input A float32 [2]) (declare-input B float32 [1,3])\n"
    text += "  (declare-output D float32 [2]) (declare-output S float32 []))\n"
    text += box("A", (2,), 0, 1) + box("B", (1, 3), 10, 11) + "(assert (>= D[0] -9.0))\n"
    (tmp_path / "q.vnnlib").write_text(HEAD + text)
    assert mipverify(["verify", str(tmp_path / "two.onnx"), str(tmp_path / "q.vnnlib"), "--quiet"]) == 10


@pytest.mark.parametrize(
    ("option", "lines"),
    [
        ("--vnnlib-versions", ["1.0", "2.0"]),
        ("--multiple-network-theories", ["SNET", "MNET", "MENET", "MINET"]),
        ("--hidden-node-theories", ["NH", "H"]),
        ("--multiple-input-output-theories", ["SIO", "MIO"]),
        ("--arithmetic-complexity-theories", ["BND", "OUTC", "LIN"]),
        ("--serialise-assignments", ["false"]),
    ],
)
def test_what_is_supported(option, lines, capfd):
    assert main(["supports", option]) == 0
    assert capfd.readouterr().out == "\n".join(lines) + "\n"


def test_operators_and_opsets_that_are_supported(capfd):
    assert main(["supports", "--onnx-operators"]) == 0
    operators = capfd.readouterr().out.split()
    assert {"Relu", "Gemm", "Conv", "MaxPool", "Constant"} <= set(operators)
    assert not {"Tanh", "Pow", "LSTM", "Div"} & set(operators)
    assert operators == sorted(operators)
    assert main(["supports", "--onnx-opset-versions"]) == 0
    first, last = map(int, capfd.readouterr().out.split())
    assert 0 < first < 18 < last


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["supports"], "exactly one"),
        (["supports", "--vnnlib-versions", "--onnx-operators"], "exactly one"),
        (["verify", "q.vnnlib"], "--network NAME=FILE"),
        (["verify", "q.vnnlib", "--network", "net.onnx"], "NAME=FILE"),
        (["verify", "q.vnnlib", "--network", "N=a", "--network", "N=b"], "a file for N already"),
        (["verify", "none.vnnlib", "--network", "N=a"], "none.vnnlib"),
        (["verify", "none.vnnlib", "--network", "N=a", "--timeout", "-1"], "--timeout"),
        (["decide"], "decide"),
    ],
)
def test_bad_usage_is_one_line(arguments, named, capfd):
    assert main(arguments) == 2
    shown = capfd.readouterr()
    assert named in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_the_example_of_two_networks() -> None:
    example = Path(__file__).parents[2] / "examples" / "two_networks.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True)
    assert "less than 1.0: holds\nthe first scores differ by less than 0.01: violated" in done.stdout
