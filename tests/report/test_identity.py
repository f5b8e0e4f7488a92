"""What a run was begun with is what it goes on with, whatever becomes of its files meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mipverify.errors import InputError
from mipverify.network import load
from mipverify.report.run import AccuracyResult, Limits, run_report
from mipverify.specification.preprocessing import Preprocessing

SAMPLES = 400


def network_file(path: Path, *, winner: int, external: bool = False) -> Path:
    """A network 4-3 by whose bias one class wins everywhere."""
    bias = np.zeros(3, np.float32)
    bias[winner] = 5
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Add", ["s", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if external:
        weights = path.with_suffix(".bin")
        weights.unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def idx_files(path: Path, label: int = 0, count: int = SAMPLES) -> Path:
    """Grey images and their labels in two files; the path of the images."""
    images, labels = path / "t-images-idx3-ubyte", path / "t-labels-idx1-ubyte"
    images.write_bytes(b"\0\0\x08\x03" + np.array([count, 2, 2], ">u4").tobytes() + bytes([100] * 4 * count))
    labels.write_bytes(b"\0\0\x08\x01" + np.array([count], ">u4").tobytes() + bytes([label] * count))
    return images


def run(network: Path, data: Path, out: Path, **more: Any) -> AccuracyResult:
    limits = Limits(timeout=10, workers=more.pop("workers", 0))
    return run_report(str(network), str(data), more.pop("eps", "0.01"), out=str(out), limits=limits, **more)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("external", [False, True], ids=["one file", "weights beside"])
def test_files_that_are_replaced_while_a_run_goes_on(external: bool, workers: int, tmp_path: Path) -> None:
    """In place, as `cp` does; with what would turn every verdict round."""
    network = network_file(tmp_path / "net.onnx", winner=0, external=external)
    data = idx_files(tmp_path)
    sha256 = load(network).sha256
    seen = []

    def replace_them(status: Any) -> None:
        seen.append(status.counts.samples)
        other = network_file(tmp_path / "other.onnx", winner=1, external=external)
        network.write_bytes(other.read_bytes())
        if external:
            network.with_suffix(".bin").write_bytes(other.with_suffix(".bin").read_bytes())
        idx_files(tmp_path, label=2)

    result = run(network, data, tmp_path / "run", progress=replace_them, workers=workers)
    assert min(seen) < SAMPLES
    assert result.summary["holds"] == SAMPLES
    assert result.summary["network"]["sha256"] == sha256
    with pytest.raises(InputError, match=r"another network.*another data"):
        run(network, data, tmp_path / "run")


@pytest.mark.parametrize("changed", ["weights", "weights beside", "labels beside", "images"])
def test_a_run_does_not_go_on_with_other_contents(changed: str, tmp_path: Path) -> None:
    external = changed == "weights beside"
    network = network_file(tmp_path / "net.onnx", winner=0, external=external)
    data = idx_files(tmp_path, count=6)
    run(network, data, tmp_path / "run", samples="0:3")
    before = network.read_bytes()
    if changed.startswith("weights"):
        network_file(network, winner=1, external=external)
        assert (network.read_bytes() == before) is external
    elif changed == "labels beside":
        idx_files(tmp_path, label=1, count=6)
    else:
        data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match=r"holds a run with another (network|data)"):
        run(network, data, tmp_path / "run", samples="0:6")
    assert run(network, data, tmp_path / "other", samples="0:6").summary["samples"] == 6


def test_a_run_goes_on_with_settings_that_mean_the_same_only(tmp_path: Path) -> None:
    network, data = network_file(tmp_path / "net.onnx", winner=0), idx_files(tmp_path, count=6)

    def go(begin: int, eps: str, **given: Any) -> int:
        more = {"preprocessing": Preprocessing.of(**given), "samples": f"{begin}:{begin + 1}", "eps": eps}
        return int(run(network, data, tmp_path / "run", **more).summary["samples"])

    assert (
        go(0, "0.1") == go(1, "0.10") == go(2, "1/10", domain=("0.0", "1e0"), scale="2/510", mean=0, std=["1.0"]) == 1
    )
    for eps, given in (
        ("1/9", {}),
        ("0.1", {"domain": (0, 255)}),
        ("0.1", {"scale": "1/256"}),
        ("0.1", {"mean": "0.1"}),
        ("0.1", {"std": "2"}),
    ):
        with pytest.raises(InputError, match="holds a run with another"):
            go(3, eps, **given)


def other_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE prices (value REAL)")
    database.close()


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE run (name TEXT)")
    database.close()


@pytest.mark.parametrize(
    "make",
    [other_program, other_version, lambda path: path.write_bytes(b"garbage " * 200), lambda path: path.mkdir()],
    ids=["another program", "another version", "garbage", "a folder"],
)
def test_what_is_no_store_is_refused_and_kept(make: Callable[[Path], None], tmp_path: Path) -> None:
    network, data = network_file(tmp_path / "net.onnx", winner=0), idx_files(tmp_path, count=3)
    stored = tmp_path / "run" / "results.sqlite"
    stored.parent.mkdir()
    make(stored)
    before = stored.read_bytes() if stored.is_file() else None
    with pytest.raises(InputError, match=r"results\.sqlite"):
        run(network, data, tmp_path / "run")
    assert (stored.read_bytes() if stored.is_file() else None) == before
