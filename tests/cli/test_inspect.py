"""The command `inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx

from tests.cli.files import Result, network


def test_layers(cli: Callable[..., Result], folder: Path) -> None:
    record = json.loads(cli("inspect", folder / "net.onnx", "--json").out)
    assert record["opset"] == 13
    assert record["input"] == {"name": "image", "shape": [1, 4]}
    assert record["output"] == {"shape": [1, 3]}
    assert record["relus"] == 2
    assert record["parameters"] == 8 + 2 + 6 + 3
    assert record["nonzeros"] == 8 + 1 + 2 + 1
    assert record["unsupported_operators"] == []
    assert [layer["kind"] for layer in record["layers"]] == ["Input", "Dense", "Relu", "Dense"]


def test_text_names_the_layers(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("inspect", folder / "net.onnx")
    assert result.code == 0
    for word in ("opset 13", "image", "1×4", "19, 12 nonzero", "Dense", "Relu"):
        assert word in result.out


def test_stable_units_over_a_property(cli: Callable[..., Result], folder: Path) -> None:
    (row,) = json.loads(cli("inspect", folder / "net.onnx", folder / "holds.vnnlib", "--json").out)["stability"]
    # x1 in [1.6, 2.4] is active, x2 = 1 - x1 inactive
    assert row["units"] == 2
    assert row["interval"] == {"active": 1, "inactive": 1, "unstable": 0}
    assert row["crown"] == row["interval"]


def test_unstable_units_around_an_image(cli: Callable[..., Result], folder: Path) -> None:
    arguments = ["inspect", folder / "net.onnx", "--data", folder / "images.npz", "--index", 0, "--eps", "0.4"]
    (row,) = json.loads(cli(*arguments, "--json").out)["stability"]
    assert row["interval"] == {"active": 1, "inactive": 0, "unstable": 1}
    assert "interval unstable" in cli(*arguments).out


def test_all_unsupported_operators_are_listed(cli: Callable[..., Result], tmp_path: Path) -> None:
    model = network("Sin")
    model.graph.node[2].input[0] = "z"
    model.graph.node.insert(2, onnx.helper.make_node("Cos", ["y"], ["z"], "second"))
    onnx.save(model, tmp_path / "waves.onnx")
    result = cli("inspect", tmp_path / "waves.onnx", "--json")
    listed = json.loads(result.out)["unsupported_operators"]
    assert [(entry["operator"], entry["node"]) for entry in listed] == [("Sin", "middle"), ("Cos", "second")]
    assert "Cos" in cli("inspect", tmp_path / "waves.onnx").out


def test_corrupt_file(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing that onnx knows" * 5)
    result = cli("inspect", tmp_path / "bad.onnx")
    assert (result.code, result.out, len(result.lines)) == (2, "", 1)
