"""A small benchmark: one network y = relu(x) of two inputs, and properties that hold, are violated or are none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper


def write_network(path: Path, shift: float = 0.0) -> Path:
    """y = relu(x) + shift for two inputs."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "s"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor("s", TensorProto.FLOAT, [2], [shift, shift])],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_property(path: Path, threshold: float, fixed: str = "0.1") -> Path:
    """X_0 in [0, 1] and X_1 = fixed; violated where Y_0 >= threshold, that is if the threshold is at most 1."""
    lines = ["(declare-const X_0 Real)", "(declare-const X_1 Real)", "(declare-const Y_0 Real)"]
    lines += ["(declare-const Y_1 Real)", "(assert (>= X_0 0.0))", "(assert (<= X_0 1.0))"]
    lines += [f"(assert (>= X_1 {fixed}))", f"(assert (<= X_1 {fixed}))", f"(assert (>= Y_0 {threshold}))"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def make_benchmark(tmp_path: Path) -> Callable[..., Path]:
    """Writes a benchmark with a property for each threshold, named by it; returns its folder."""

    def make(thresholds: list[float], name: str = "tiny", version: str = "", timeout: str = "20") -> Path:
        folder = tmp_path / "benchmarks" / name
        place = folder / version if version else folder
        write_network(place / "onnx" / "net.onnx")
        rows = []
        for threshold in thresholds:
            write_property(place / "vnnlib" / f"above_{threshold:g}.vnnlib", threshold)
            rows.append(f"onnx/net.onnx,vnnlib/above_{threshold:g}.vnnlib,{timeout}")
        packed = place / "vnnlib" / f"above_{thresholds[0]:g}.vnnlib"
        packed.with_name(packed.name + ".gz").write_bytes(gzip.compress(packed.read_bytes()))
        packed.unlink()
        (place / "instances.csv").write_text("\n".join(rows) + "\n")
        return folder

    return make
