"""Every bad input ends with exit code 2 and one line that names what and where."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.files import Result, network, vnnlib

IMAGE = ["--data", "images.npz", "--index", "0", "--eps", "0.1"]


def nan_weights() -> bytes:
    weight = np.full((2, 4), np.nan, np.float32)
    return network(weight=weight).SerializeToString()


def declared(inputs: str, outputs: str, kind: str = "float32") -> bytes:
    """A VNN-LIB 2 property with tensors of these shapes."""
    names = ["X[0,0]", "X[0,1]", "X[1,0]", "X[1,1]"] if inputs == "[2,2]" else [f"X[0,{i}]" for i in range(4)]
    head = f"(declare-network f (declare-input X {kind} {inputs}) (declare-output Y {kind} {outputs}))"
    box = [f"(assert (and (>= {name} 0.4) (<= {name} 0.6)))" for name in names]
    return "\n".join(["(vnnlib-version <2.0>)", head, *box, "(assert (<= Y[0,0] Y[0,1]))"]).encode()


# What the files hold that are not good; made in the directory of the good ones.
FILES: dict[str, Callable[[], bytes]] = {
    "corrupt.onnx": lambda: b"this is no protocol buffer" * 9,
    "empty.onnx": lambda: b"",
    "sine.onnx": lambda: network("Sin").SerializeToString(),
    "nan.onnx": nan_weights,
    "truncated.onnx.gz": lambda: gzip.compress(network().SerializeToString())[:-20],
    "plain.onnx.gz": lambda: b"not compressed",
    "empty.vnnlib": lambda: b"",
    "unbalanced.vnnlib": lambda: vnnlib().encode()[:-4],
    "five_inputs.vnnlib": lambda: vnnlib(inputs=5).encode(),
    "two_outputs.vnnlib": lambda: vnnlib(outputs=2).encode(),
    "empty_box.vnnlib": lambda: vnnlib(low="0.7", high="0.6").encode(),
    "unbounded.vnnlib": lambda: vnnlib().replace("(assert (<= X_2 0.6))", "").encode(),
    "undeclared.vnnlib": lambda: vnnlib(claim="(<= Y_0 Y_7)").encode(),
    "nonlinear.vnnlib": lambda: vnnlib(claim="(<= (* Y_0 Y_1) 3)").encode(),
    "plain.vnnlib.gz": lambda: b"not compressed",
    "corrupt.npz": lambda: b"PK\x03\x04 but then nothing",
    "data.txt": lambda: b"0,1,2\n",
    "digits.vnnlib": lambda: vnnlib(claim=f"(<= Y_0 0.{'9' * 100_000})").encode(),
    "chain.vnnlib": lambda: vnnlib(claim=f"(<= (* {'1e4999 ' * 2000} Y_0) 1)").encode(),
    "nul.vnnlib": lambda: vnnlib().encode() + b"\0",
    "wide.vnnlib": lambda: vnnlib().encode("utf-16"),
    "flat.vnnlib": lambda: declared("[2,2]", "[1,3]"),
    "double.vnnlib": lambda: declared("[1,4]", "[1,3]", "float64"),
    "header.csv": lambda: b"0,1,2\n1,3,5\n",
    "ages.csv": lambda: b"label,a,b,c,d\n0,41,170,3,12\n",
    "ordered.csv": lambda: b"a,b,c,d,label\n0.1,0.2,0.3,0.4,0\n",
    "words.csv": lambda: b"label,a,b,c,d\n0,dark,dark,bright,dark\n",
}


CASES: dict[str, tuple[list[str], list[str]]] = {
    # name: (arguments of verify, what the line must contain)
    "network missing": (["none.onnx", "holds.vnnlib"], ["none.onnx"]),
    "network is a directory": ([".", "holds.vnnlib"], ["directory"]),
    "network corrupt": (["corrupt.onnx", "holds.vnnlib"], ["corrupt.onnx"]),
    "network empty": (["empty.onnx", "holds.vnnlib"], ["empty.onnx"]),
    "network with an unsupported operator": (["sine.onnx", "holds.vnnlib"], ["sine.onnx", "Sin", "middle"]),
    "network with NaN": (["nan.onnx", "holds.vnnlib"], ["nan.onnx"]),
    "network gzip truncated": (["truncated.onnx.gz", "holds.vnnlib"], ["truncated.onnx.gz"]),
    "network not gzip": (["plain.onnx.gz", "holds.vnnlib"], ["plain.onnx.gz"]),
    "property missing": (["net.onnx", "none.vnnlib"], ["none.vnnlib"]),
    "property is a directory": (["net.onnx", "."], ["directory"]),
    "property empty": (["net.onnx", "empty.vnnlib"], ["empty.vnnlib"]),
    "property unbalanced": (["net.onnx", "unbalanced.vnnlib"], ["unbalanced.vnnlib"]),
    "property not gzip": (["net.onnx", "plain.vnnlib.gz"], ["plain.vnnlib.gz"]),
    "property with other inputs": (["net.onnx", "five_inputs.vnnlib"], ["five_inputs.vnnlib", "5 inputs", "4"]),
    "property with other outputs": (["net.onnx", "two_outputs.vnnlib"], ["two_outputs.vnnlib", "2 outputs", "3"]),
    "property with an empty box": (["net.onnx", "empty_box.vnnlib"], ["empty_box.vnnlib", "X_0"]),
    "property without a bound": (["net.onnx", "unbounded.vnnlib"], ["unbounded.vnnlib", "X_2"]),
    "property with an undeclared name": (["net.onnx", "undeclared.vnnlib"], ["undeclared.vnnlib", "Y_7"]),
    "property not linear": (["net.onnx", "nonlinear.vnnlib"], ["nonlinear.vnnlib"]),
    "property with a number of many digits": (["net.onnx", "digits.vnnlib"], ["digits.vnnlib", "line", "2000 digits"]),
    "property with a chain of large numbers": (["net.onnx", "chain.vnnlib"], ["chain.vnnlib", "too many digits"]),
    "property with NUL bytes": (["net.onnx", "nul.vnnlib"], ["nul.vnnlib", "NUL"]),
    "property in UTF-16": (["net.onnx", "wide.vnnlib"], ["wide.vnnlib", "UTF-16"]),
    "property of another shape": (["net.onnx", "flat.vnnlib"], ["flat.vnnlib", "[2, 2]", "[1, 4]"]),
    "property of another type": (["net.onnx", "double.vnnlib"], ["double.vnnlib", "float64", "float32"]),
    "data with a doubtful header": (
        ["net.onnx", "--data", "header.csv", *IMAGE[2:]],
        ["header.csv", "0,1,2", "header"],
    ),
    "data of whole numbers": (["net.onnx", "--data", "ages.csv", *IMAGE[2:]], ["ages.csv", "41", "domain"]),
    "data with the label last": (["net.onnx", "--data", "ordered.csv", *IMAGE[2:]], ["ordered.csv", "label"]),
    "pixels of an unclear domain": (["net.onnx", *IMAGE, "--domain", "0,2"], ["images.npz", "0,2", "scale"]),
    "scale of a property": (["net.onnx", "holds.vnnlib", "--scale", "1/255"], ["--scale", "holds.vnnlib"]),
    "scale beyond any float": (["net.onnx", *IMAGE, "--scale", "1e400"], ["images.npz", "image 0", "not finite"]),
    "domain beyond any float": (["net.onnx", *IMAGE, "--domain", "0,1e400"], ["--domain", "1e400", "float64"]),
    "l1 radius beyond any float": (["net.onnx", *IMAGE, "--norm", "l1", "--eps", "1e400"], ["eps 1e400", "l1"]),
    "l2 radius beyond any float": (["net.onnx", *IMAGE, "--norm", "l2", "--eps", "1e400"], ["eps 1e400", "l2"]),
    "mean beyond any float": (["net.onnx", *IMAGE, "--mean", "1e400"], ["--mean", "float64"]),
    "std not positive": (["net.onnx", *IMAGE, "--std", "-1"], ["--std", "-1"]),
    "eps divided by zero": (["net.onnx", "--data", "images.npz", "--index", "0", "--eps", "8/0"], ["eps", "8/0"]),
    "data missing": (["net.onnx", "--data", "none.npz", "--index", "0", "--eps", "0.1"], ["none.npz"]),
    "data corrupt": (["net.onnx", "--data", "corrupt.npz", "--index", "0", "--eps", "0.1"], ["corrupt.npz"]),
    "data of no known kind": (["net.onnx", "--data", "data.txt", "--index", "0", "--eps", "0.1"], ["data.txt"]),
    "data with words": (["net.onnx", "--data", "words.csv", "--index", "0", "--eps", "0.1"], ["words.csv"]),
    "data without labels": (
        ["net.onnx", "--data", "unlabelled.npz", "--index", "0", "--eps", "0.1"],
        ["unlabelled.npz", "labels"],
    ),
    "data with other images": (
        ["net.onnx", "--data", "large.npz", "--index", "0", "--eps", "0.1"],
        ["large.npz", "(3, 3)"],
    ),
    "index too large": (["net.onnx", "--data", "images.npz", "--index", "5", "--eps", "0.1"], ["5", "images.npz"]),
    "index negative": (["net.onnx", "--data", "images.npz", "--index", "-1", "--eps", "0.1"], ["-1", "images.npz"]),
    "index not a number": (["net.onnx", "--data", "images.npz", "--index", "one", "--eps", "0.1"], ["--index"]),
    "eps negative": (["net.onnx", "--data", "images.npz", "--index", "0", "--eps", "-0.1"], ["eps", "-0.1"]),
    "eps not a number": (["net.onnx", "--data", "images.npz", "--index", "0", "--eps", "tenth"], ["eps", "tenth"]),
    "eps NaN": (["net.onnx", "--data", "images.npz", "--index", "0", "--eps", "nan"], ["eps", "nan"]),
    "norm unknown": (["net.onnx", *IMAGE, "--norm", "l7"], ["norm", "l7"]),
    "label out of range": (["net.onnx", *IMAGE, "--label", "3"], ["label", "3"]),
    "target is the label": (["net.onnx", *IMAGE, "--targets", "0"], ["target", "0"]),
    "target out of range": (["net.onnx", *IMAGE, "--targets", "1,9"], ["target", "9"]),
    "data with a label beyond the network": (
        ["net.onnx", "--data", "labels.npz", *IMAGE[2:]],
        ["labels.npz", "label 7"],
    ),
    "pixel outside of the domain": (
        ["net.onnx", *IMAGE, "--domain", "0.6,1"],
        ["images.npz", "image 0", "pixel", "0.6"],
    ),
    "domain not two numbers": (["net.onnx", *IMAGE, "--domain", "1"], ["--domain", "'1'"]),
    "targets not numbers": (["net.onnx", *IMAGE, "--targets", "1;2"], ["--targets", "1;2"]),
    "solver unknown": (["net.onnx", "holds.vnnlib", "--solver", "abacus"], ["solver", "abacus"]),
    "timeout negative": (["net.onnx", "holds.vnnlib", "--timeout", "-1"], ["--timeout", "-1"]),
    "timeout NaN": (["net.onnx", "holds.vnnlib", "--timeout", "nan"], ["--timeout", "nan"]),
    "seed negative": (["net.onnx", "holds.vnnlib", "--seed", "-1"], ["--seed", "-1"]),
    "name that colours a terminal": (["\x1b[31mnet.onnx", "holds.vnnlib"], ["\\x1b[31mnet.onnx"]),
    "no workers": (["net.onnx", "holds.vnnlib", "--workers", "0"], ["--workers", "0"]),
    "memory unreadable": (["net.onnx", "holds.vnnlib", "--memory", "lots"], ["--memory", "lots"]),
    "memory beyond all numbers": (["net.onnx", "holds.vnnlib", "--memory", "9" * 400 + "T"], ["--memory"]),
    "witness in no directory": (["net.onnx", "holds.vnnlib", "--witness", "none/w.txt"], ["--witness", "none"]),
    "witness is a directory": (["net.onnx", "holds.vnnlib", "--witness", "."], ["--witness", "directory"]),
    "result is a directory": (["net.onnx", "holds.vnnlib", "--result-file", "."], ["--result-file", "directory"]),
    "two questions": (["net.onnx", "holds.vnnlib", *IMAGE], ["--data", "holds.vnnlib"]),
    "no question": (["net.onnx"], ["PROPERTY", "--data"]),
    "half a question": (["net.onnx", "--data", "images.npz"], ["--index", "--eps"]),
    "index without data": (["net.onnx", "--index", "0"], ["--index", "--data"]),
    "option unknown": (["net.onnx", "holds.vnnlib", "--fast"], ["--fast"]),
}


@pytest.fixture
def bad_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (folder / name).write_bytes(content())
    np.savez(folder / "unlabelled.npz", images=np.zeros((5, 2, 2), np.uint8))
    np.savez(folder / "large.npz", images=np.zeros((5, 3, 3), np.uint8), labels=np.zeros(5, np.uint8))
    np.savez(folder / "labels.npz", images=np.zeros((5, 2, 2), np.uint8), labels=np.full(5, 7))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_what_and_where(name: str, cli: Callable[..., Result], bad_folder: Path) -> None:
    arguments, expected = CASES[name]
    before = sorted(bad_folder.iterdir())
    result = cli("verify", *arguments)
    assert result.code == 2, result
    assert result.out == ""
    assert len(result.lines) == 1, result.err
    assert result.err.startswith("mipverify: error: ")
    for word in expected:
        assert word in result.err
    assert sorted(bad_folder.iterdir()) == before


@pytest.mark.parametrize("option", ["--json", "--verbose", "--quiet"])
def test_output_options_change_nothing_about_it(option: str, cli: Callable[..., Result], bad_folder: Path) -> None:
    result = cli("verify", "net.onnx", "none.vnnlib", option)
    assert (result.code, result.out, len(result.lines)) == (2, "", 1)


def test_unknown_command(cli: Callable[..., Result]) -> None:
    result = cli("prove", "net.onnx")
    assert result.code == 2
    assert len(result.lines) == 1
    assert "prove" in result.err
