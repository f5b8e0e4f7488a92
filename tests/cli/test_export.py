"""The command `export`: what is written has the optimum that the engine proves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import highspy
import numpy as np
import onnx
import pytest

import mipverify
from tests.cli.files import Result, network, vnnlib

IMAGE = ["--data", "images.npz", "--index", "0", "--eps", "0.4"]


def minimum(path: Path) -> float:
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    assert engine.readModel(str(path)) == highspy.HighsStatus.kOk
    engine.run()
    return float(engine.getInfo().objective_function_value)


@pytest.mark.parametrize("name", ["model.mps", "model.lp"])
def test_the_optimum_is_the_worst_margin(name: str, cli: Callable[..., Result], folder: Path) -> None:
    expected = mipverify.worst_margin(folder / "net.onnx", np.full((1, 4), 128 / 255), 0, "0.4", gap=1e-6)
    record = json.loads(cli("export", folder / "net.onnx", *IMAGE[:1], folder / "images.npz", *IMAGE[2:],
                            "--out", folder / name, "--json").out)  # fmt: skip
    assert expected.lower - 1e-6 <= minimum(folder / name) <= expected.upper + 1e-6
    assert record["binaries"] == 1  # one unit is unstable, and one class alone can have the least margin
    assert record["path"] == str(folder / name)
    assert record["property"]["index"] == 0


@pytest.mark.parametrize(("name", "positive"), [("holds", True), ("violated", False)])
def test_the_sign_of_the_optimum_is_the_verdict(
    name: str, positive: bool, cli: Callable[..., Result], folder: Path
) -> None:
    result = cli("export", folder / "net.onnx", folder / f"{name}.vnnlib", "--out", folder / "m.mps")
    assert result.code == 0, result.err
    assert "least margin" in result.out
    assert (minimum(folder / "m.mps") > 0) == positive


def test_a_network_alone_has_inputs_in_the_domain(cli: Callable[..., Result], folder: Path) -> None:
    assert cli("export", folder / "net.onnx", "--out", folder / "m.lp", "--domain", "-1/2,2").code == 0
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.readModel(str(folder / "m.lp"))
    lp = engine.getLp()
    sides = {name: (low, high) for name, low, high in zip(lp.col_names_, lp.col_lower_, lp.col_upper_, strict=True)}
    assert [sides[f"input_{k}"] for k in range(4)] == [(-0.5, 2.0)] * 4
    assert sides["output_0"] == pytest.approx((0.0, 8.0), abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["net.onnx", "holds.vnnlib"], "--out"),
        (["net.onnx", "holds.vnnlib", "--out", "model.txt"], "model.txt"),
        (["net.onnx", "holds.vnnlib", "--out", "none/model.mps"], "none"),
        (["net.onnx", "none.vnnlib", "--out", "m.mps"], "none.vnnlib"),
        (["net.onnx", "holds.vnnlib", *IMAGE, "--out", "m.mps"], "--data"),
        (["net.onnx", "two_sets.vnnlib", "--out", "m.mps"], "2 input sets"),
        (["net.onnx", "unbounded.vnnlib", "--out", "m.mps"], "no bounds"),
        (["net.onnx", *IMAGE, "--norm", "l2", "--out", "m.mps"], "curved"),
        (["net.onnx", "--domain", "none", "--out", "m.mps"], "--domain none"),
        (["sine.onnx", "--out", "m.mps"], "Sin"),
        (["net.lp", "--out", "net.lp"], "overwrite"),
        (["net.onnx", "prop.mps", "--out", "./prop.mps"], "overwrite"),
        (["ext.onnx", "--out", "weights.lp"], "overwrite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_in_one_line_and_no_file_is_touched(
    arguments: list[str], says: str, cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    onnx.save(network("Sin"), "sine.onnx")
    onnx.save(network(), "ext.onnx", save_as_external_data=True, location="weights.lp", size_threshold=0)
    onnx.save(network(), "net.lp")
    two = "(or (and (<= X_0 0.5) (<= Y_0 Y_1)) (and (>= X_0 0.55) (<= Y_0 Y_2)))"
    Path("two_sets.vnnlib").write_text(vnnlib(claim=two))
    Path("unbounded.vnnlib").write_text(vnnlib().replace("(assert (<= X_2 0.6))", ""))
    Path("prop.mps").write_text(vnnlib())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    result = cli("export", *arguments)
    assert (result.code, len(result.lines)) == (2, 1), result
    assert says in result.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
