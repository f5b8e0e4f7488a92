"""A pipeline in front of the network, as options of every command that reads data: answers are about pixels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify
from tests.cli.files import Result

MEAN, STD = ["1/4", "0.5", "0.375"], ["0.5", "2", "0.125"]  # dyadic, so that both files compute the same
PIPELINE = ["--mean", ",".join(MEAN), "--std", ",".join(STD)]


def write_network(path: Path, *, normalized: bool, channels_last: bool = False) -> None:
    """Two classes of images 3x2x10; `normalized`: the file takes (x - mean) / std, and undoes that first."""
    rng = np.random.default_rng(5)
    shape, along = ([1, 2, 10, 3], [1, 1, 1, 3]) if channels_last else ([1, 3, 2, 10], [1, 3, 1, 1])
    arrays = {
        "std": np.array([float(Fraction(v)) for v in STD], np.float32).reshape(along),
        "mean": np.array([float(Fraction(v)) for v in MEAN], np.float32).reshape(along),
        "w": (np.round(rng.normal(size=(60, 5)) * 64) / 64).astype(np.float32),
        "v": (np.round(rng.normal(size=(5, 2)) * 64) / 64).astype(np.float32),
    }
    nodes = [helper.make_node("Mul", ["x", "std"], ["a"]), helper.make_node("Add", ["a", "mean"], ["b"])]
    last = "b" if normalized else "x"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [last], ["t"], perm=[0, 3, 1, 2]))
        last = "t"
    nodes = (nodes if normalized else nodes[2:]) + [
        helper.make_node("Flatten", [last], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "v"], ["y"]),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_network(tmp_path / "plain.onnx", normalized=False)
    write_network(tmp_path / "normalized.onnx", normalized=True)
    write_network(tmp_path / "last.onnx", normalized=True, channels_last=True)
    images = np.random.default_rng(0).integers(40, 200, (12, 3, 2, 10), np.uint8)
    network = mipverify.load(tmp_path / "plain.onnx")
    scores = np.asarray(network.forward(images / 255.0)).reshape(12, 2)
    for name, stored in (("data", images), ("last", np.moveaxis(images, 1, 3)), ("flat", images.reshape(12, 60))):
        np.savez(tmp_path / f"{name}.npz", images=stored, labels=scores.argmax(axis=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


VARIANTS = {
    "same axes": ["normalized.onnx", "--data", "data.npz"],
    "images with channels last": ["normalized.onnx", "--data", "last.npz"],
    "network with channels last": ["last.onnx", "--data", "data.npz"],
    "flat images": ["last.onnx", "--data", "flat.npz", "--layout", "nchw"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_verdicts_and_distances_are_those_about_pixels(variant: str, place: Path, cli: Callable[..., Result]) -> None:
    given = [*VARIANTS[variant], *PIPELINE]
    mean, std = ([Fraction(v) for v in side] for side in (MEAN, STD))
    for index in (1, 5):
        plain = json.loads(cli("distortion", "plain.onnx", "--data", "data.npz", "--index", index, "--json").out)
        moved = json.loads(cli("distortion", *given, "--index", index, "--json").out)
        assert moved["status"] == plain["status"] == "optimal"
        assert moved["distance"]["upper"] == pytest.approx(plain["distance"]["upper"], rel=1e-3)
        assert moved["property"]["mean"] == ["0.25", "0.5", "0.375"]
        far = plain["distance"]["upper"]
        for eps, word in ((f"{0.9 * far:.6f}", "holds"), (f"{1.1 * far:.6f}", "violated")):
            found = cli("verify", *given, "--index", index, "--eps", eps, "--json")
            assert json.loads(found.out)["verdict"] == word, found
        witness = json.loads(found.out)["witness"]["input"]
        axes = (2, 0, 1) if given[0] == "last.onnx" else (0, 1, 2)
        shape = (2, 10, 3) if given[0] == "last.onnx" else (3, 2, 10)
        z = np.array(witness, object).reshape(shape).transpose(axes).reshape(3, 20)
        stored = np.load("data.npz")["images"][index].reshape(3, 20)
        for channel in range(3):
            for value, level in zip(z[channel], stored[channel], strict=True):
                x = Fraction(value) * std[channel] + mean[channel]
                assert 0 <= x <= 1
                assert abs(x - Fraction(float(np.float32(int(level) / 255)))) <= Fraction(eps)


def test_reports_are_those_about_pixels(place: Path, cli: Callable[..., Result]) -> None:
    rows: dict[str, list[tuple[str, str]]] = {}
    for name, given in (
        ("plain", ["plain.onnx", "--data", "data.npz"]),
        ("moved", [*VARIANTS["same axes"], *PIPELINE]),
    ):
        result = cli("report", *given, "--eps", "8/255", "--out", name, "--workers", 0, "--json")
        assert result.code == 0, result
        lines = csv.DictReader(Path(name, "samples.csv").read_text().splitlines())
        rows[name] = [(row["index"], row["verdict"]) for row in lines]
    assert rows["moved"] == rows["plain"]
    assert {verdict for _, verdict in rows["plain"]} == {"holds", "violated", "misclassified"}
    summary = json.loads(result.out)
    assert summary["eps"] == "8/255"
    assert summary["preprocessing"]["scale"] == "1/255"
    again = cli("report", "normalized.onnx", "--data", "data.npz", "--eps", "8/255", "--out", "moved", "--workers", 0)
    assert again.code == 2
    assert "another mean" in again.err


def test_what_was_done_is_said(place: Path, cli: Callable[..., Result]) -> None:
    asked = ["normalized.onnx", "--data", "data.npz", "--index", 0]
    for command, more in (("verify", ["--eps", "0.001"]), ("distortion", [])):
        shown = cli(command, *asked, *more, "--mean", "0.5", "--std", "1/4")
        assert "uint8 pixels times 1/255, domain 0,1; the network takes (x - 0.5) / 0.25" in shown.out
    shown = cli("inspect", *asked, "--eps", "1/1000", "--mean", "0.5")
    assert "uint8 pixels times 1/255, domain 0,1; the network takes (x - 0.5) / 1" in shown.out
    shown = cli("report", *asked[:3], "--eps", "0.001", "--out", "run", "--workers", 0, *PIPELINE)
    pixels = "uint8 pixels times 1/255, domain 0,1; the network takes"
    channels = f"{pixels} (x - mean) / std, mean 0.25, 0.5, 0.375, std 0.5, 2, 0.125"
    assert f"data    {channels}\n" in shown.out
    assert channels in " ".join(Path("run", "report.html").read_text().split())
    shown = cli("report", *asked[:3], "--eps", "0.001", "--out", "one", "--workers", 0, "--mean", "0.5", "--std", "1/4")
    assert f"data    {pixels} (x - 0.5) / 0.25\n" in shown.out
    assert f"{pixels} (x - 0.5) / 0.25" in " ".join(Path("one", "report.html").read_text().split())


def test_quotients_are_numbers_everywhere(place: Path, cli: Callable[..., Result]) -> None:
    asked = ["plain.onnx", "--data", "data.npz", "--index", 1, "--json"]
    for eps in ("1/100", "2/200", "0.01", "1e-2"):
        found = json.loads(cli("verify", *asked, "--eps", eps, "--domain", "0/1,1/1").out)
        assert found["verdict"] == "holds"
        assert found["property"]["domain"] == "0,1"
    found = json.loads(cli("distortion", *asked, "--max-distance", "1/1000", "--margin", "-1/3").out)
    assert found["property"]["max_distance"] == 1e-3
    assert cli("distortion", *asked[:-1], "--max-distance", "1/0").code == 2
    assert cli("distortion", *asked[:-1], "--max-distance", "-1").code == 2


@pytest.mark.parametrize("command", ["verify", "report", "distortion", "inspect"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mean", "a"], ["--mean", "'a'"]),
        (["--std", "0"], ["--std", "positive"]),
        (["--std", "0.5,0.5"], ["std", "2 numbers"]),
        (["--scale", "0"], ["--scale", "positive"]),
        (["--scale", "1/0"], ["--scale", "'1/0'"]),
        (["--layout", "cube"], ["--layout", "'cube'"]),
        (["--domain", "1,0"], ["--domain", "empty"]),
        (["--domain", "-1,1"], ["data.npz", "state the scale"]),
    ],
)
def test_options_that_say_nothing_are_refused(
    command: str, options: list[str], words: list[str], place: Path, cli: Callable[..., Result]
) -> None:
    asked = {"report": ["--eps", "0.1", "--out", "run"], "distortion": ["--index", "0"]}
    more = asked.get(command, ["--index", "0", "--eps", "0.1"])
    result = cli(command, "plain.onnx", "--data", "data.npz", *more, *options)
    assert result.code == 2, result
    assert len(result.lines) == 1
    for word in words:
        assert word in result.err
