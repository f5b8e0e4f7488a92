"""`--witness` and `--result-file`: the forms that VNN-COMP reads."""

from __future__ import annotations

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
