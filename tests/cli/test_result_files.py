"""`--witness` and `--result-file`: the forms that VNN-COMP reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify.engine
from mipverify.cli.counterexample import counterexample
from mipverify.engine import Verdict, Witness
from tests.cli.files import Result


def read(text: str) -> tuple[list[float], list[float]]:
    assert re.fullmatch(r"\((\([XY]_\d+ [^\s)]+\)\s*)+\)\n", text)
    x = [float(v) for v in re.findall(r"\(X_\d+ ([^\s)]+)\)", text)]
    y = [float(v) for v in re.findall(r"\(Y_\d+ ([^\s)]+)\)", text)]
    return x, y


def test_violated(cli: Callable[..., Result], folder: Path) -> None:
    witness, result = folder / "witness.txt", folder / "result.txt"
    cli("verify", folder / "net.onnx", folder / "violated.vnnlib", "--witness", witness, "--result-file", result)
    x, y = read(witness.read_text())
    assert (len(x), len(y)) == (4, 3)
    assert y[0] >= 2.2
    assert result.read_text() == "sat\n" + witness.read_text()


def test_holds_replaces_what_stood_there(cli: Callable[..., Result], folder: Path) -> None:
    witness, result = folder / "witness.txt", folder / "result.txt"
    witness.write_text("an older counterexample")
    result.write_text("sat\nan older counterexample")
    cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--witness", witness, "--result-file", result)
    assert result.read_text() == "unsat\n"
    assert not witness.exists()


@pytest.mark.parametrize(
    ("seconds", "reason", "word"),
    [(300.1, "undecided", "timeout"), (299.0, "time", "timeout"), (2.0, "undecided", "unknown")],
)
def test_undecided(
    seconds: float,
    reason: str,
    word: str,
    cli: Callable[..., Result],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def engine(*_: Any, **__: Any) -> Verdict:
        return Verdict("unknown", seconds, "milp", reason=reason)

    monkeypatch.setattr(mipverify.engine, "verify", engine)
    cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--result-file", folder / "result.txt")
    assert (folder / "result.txt").read_text() == word + "\n"


def test_every_float32_reads_back_as_itself() -> None:
    values = np.array([0.1, 1e-30, -3.3333333, 16777217, 1e-45], np.float32)
    x, y = read(counterexample(Witness(values, values[::-1])))
    assert np.array(x).astype(np.float32).tolist() == values.tolist()
    assert np.array(x).tolist() == values.astype(np.float64).tolist()
    assert y == x[::-1]


def test_a_decimal_that_is_no_float32_is_written_as_it_is_stated(cli: Callable[..., Result], folder: Path) -> None:
    witness, result = folder / "witness.txt", folder / "result.txt"
    text = (folder / "violated.vnnlib").read_text()
    for bound in ("<= X_1", ">= X_1"):
        text = re.sub(rf"\({bound} [^)]*\)", f"({bound} 0.5000000001)", text)
    (folder / "pinned.vnnlib").write_text(text)
    arguments = ("verify", folder / "net.onnx", folder / "pinned.vnnlib", "--witness", witness, "--result-file", result)
    found = json.loads(cli(*arguments, "--json").out)
    assert found["verdict"] == "violated"
    assert found["witness"]["input"][1] == 0.5
    assert len(found["notes"]) == 1
    assert "X_1 (0.5000000001: 0.5)" in found["notes"][0]
    assert "X_0" not in found["notes"][0]
    assert "(X_1 0.5000000001)" in witness.read_text()
    assert "(X_1 0.5000000001)" in result.read_text()
    assert found["notes"][0] in cli(*arguments).out


def test_inputs_that_are_float32_need_no_note(cli: Callable[..., Result], folder: Path) -> None:
    assert json.loads(cli("verify", folder / "net.onnx", folder / "violated.vnnlib", "--json").out)["notes"] == []
