"""The command `compare`: its answers, exit codes, runs over samples and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import mipverify
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from tests.cli.files import WEIGHT, Result, network


@pytest.fixture
def other(folder: Path, tmp_path: Path) -> Path:
    """The network of the folder with a weight that is 0.25 less."""
    weight = WEIGHT.copy()
    weight[0, 0] -= 0.25
    onnx.save(network(weight=weight), tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


def test_the_largest_difference(cli: Callable[..., Result], folder: Path, other: Path) -> None:
    data = "--data", folder / "images.npz", "--index", 0, "--eps", "0.1"
    result = cli("compare", folder / "net.onnx", other, *data, "--json")
    found = json.loads(result.out)
    image = mipverify.load_dataset(folder / "images.npz").image(0).reshape(-1)
    expected = 0.25 * min(1.0, float(image[0]) + 0.1)  # the first class is active around it
    assert result.code == 0
    assert found["difference"]["lower"] == pytest.approx(expected, rel=0.02)
    assert found["difference"]["lower"] <= found["difference"]["upper"]
    assert found["output"] == 0
    for within, code in (("0.5", 0), ("0.01", 10)):
        assert cli("compare", folder / "net.onnx", other, *data, "--within", within).code == code
    assert cli("compare", folder / "net.onnx", other, *data, "--same-class").out.startswith("holds")


def test_a_run_goes_on(cli: Callable[..., Result], folder: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = "compare", folder / "net.onnx", other, "--data", folder / "images.npz", "--eps", "0.1", "--out", out
    assert cli(*command, "--samples", "0:1").code == 0
    first = (out / "comparisons.csv").read_text()
    assert cli(*command, "--samples", "0:2").code == 0
    rows = list(csv.DictReader((out / "comparisons.csv").open()))
    assert [row["verdict"] for row in rows] == ["optimal", "optimal"]
    assert (out / "comparisons.csv").read_text().startswith(first)  # what was known is not computed again
    assert "Largest difference" in (out / "comparisons.html").read_text()
    refused = cli(*command[:-4], "--eps", "0.2", "--out", out)
    assert refused.code == 2
    assert "another eps" in refused.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--eps", "0.1", "--within", "0.1", "--same-class"], "two questions"),
        (["--within", "0.1"], "compare needs --eps"),
        (["--eps", "-1"], "--eps must be a number that is not negative"),
        (["--eps", "0.1", "--within", "-1"], "--within must be a number that is not negative"),
        (["--eps", "0.1", "--samples", "0:1"], "--index is for one image"),
    ],
)
def test_bad_usage(options: list[str], says: str, cli: Callable[..., Result], folder: Path, other: Path) -> None:
    result = cli("compare", folder / "net.onnx", other, "--data", folder / "images.npz", "--index", 0, *options)
    assert (result.code, len(result.lines)) == (2, 1)
    assert says in result.err


def test_networks_that_do_not_fit(cli: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
    model = network(weight=np.ones((2, 5), np.float32))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, tmp_path / "wide.onnx")
    data = "--data", folder / "images.npz", "--eps", "0.1"
    for more in ([], ["--index", 0]):
        result = cli("compare", folder / "net.onnx", tmp_path / "wide.onnx", *data, *more)
        assert (result.code, len(result.lines)) == (2, 1)
        assert "takes inputs of shape" in result.err


def test_the_same_class_is_that_of_all_classes() -> None:
    """Of six classes the same one wins everywhere, and others change places: that is no violation."""
    rng = np.random.default_rng(0)
    scores = np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    networks = []
    for order in (scores, scores[[0, 5, 4, 3, 2, 1]]):
        weight = 0.01 * rng.normal(size=(6, 2))
        nodes = Input((2,)), Affine((2,), (Term(0, Dense(np.eye(2))),)), Relu((2,), 1)
        networks.append(Network((*nodes, Affine((6,), (Term(2, Dense(weight)),), order)), 3))
    x = np.full(2, 0.5, np.float32)
    assert mipverify.compare(*networks, x, eps=0.1, same_class=True, timeout=20).verdict == "holds"
    assert mipverify.compare(*networks, x, eps=0.1, within=1, timeout=20).verdict == "violated"
