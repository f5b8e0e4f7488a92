"""Small networks in which ReLUs read the input itself and tensors are read twice, as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.network import Network


def read_twice_file(path: Path, seed: int, size: int = 6, units: int = 10, second: str = "Relu") -> Network:
    """y = D relu(relu(B relu(h)) - second(h)) with h = A relu(x), written to `path` and loaded; three outputs."""
    rng, constants = np.random.default_rng(seed), []

    def gemm(source: str, target: str, inputs: int, outputs: int) -> onnx.NodeProto:
        weight, bias = 1.5 * rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), 0.3 * rng.normal(size=outputs)
        names = f"weight_{target}", f"bias_{target}"
        for name, values in zip(names, (weight, bias), strict=True):
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return helper.make_node("Gemm", [source, *names], [target], transB=1)

    nodes = [
        helper.make_node("Relu", ["x"], ["rx"]),
        gemm("rx", "h", size, units),
        helper.make_node("Relu", ["h"], ["first"]),
        helper.make_node(second, ["h"], ["second"]),
        gemm("first", "g", units, units),
        helper.make_node("Relu", ["g"], ["rg"]),
        helper.make_node("Sub", ["rg", "second"], ["s"]),
        helper.make_node("Relu", ["s"], ["rs"]),
        gemm("rs", "y", units, 3),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", size), ("y", 3))]
    graph = helper.make_graph(nodes, "twice", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return mipverify.load(path)
