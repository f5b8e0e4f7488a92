"""Small random networks as ONNX files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.engine.schedule import RECORDED, SMALL_PROGRAMS
from mipverify.network import Network

# Stages that are for larger questions decide small ones, too, where trees of programs do not come first.
WITHOUT_PROGRAMS = tuple(stage for stage in RECORDED if stage is not SMALL_PROGRAMS)


def dense_file(path: Path, sizes: list[int], seed: int, scale: float = 1.0, last: float = 1.0) -> Network:
    """A fully connected ReLU network with these sizes of its layers, written to `path` and loaded.

    last: a power of two, which the last hidden layer is multiplied by, and the output layer's weights are divided by.
    """
    rng = np.random.default_rng(seed)
    nodes, constants, current = [], [], "x"
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weight = (scale * rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        bias = (0.1 * rng.normal(size=outputs)).astype(np.float32)
        left = len(sizes) - 2 - k
        weight, bias = (v * np.float32(last) if left == 1 else v for v in (weight, bias))
        weight = weight / np.float32(last) if left == 0 else weight
        constants += [numpy_helper.from_array(weight, f"w{k}"), numpy_helper.from_array(bias, f"b{k}")]
        nodes.append(helper.make_node("Gemm", [current, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        current = f"z{k}"
        if k < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [current], [f"y{k}"]))
            current = f"y{k}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n])
        for name, n in (("x", sizes[0]), (current, sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return mipverify.load(path)
