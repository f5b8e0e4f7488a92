"""Small networks and properties, and what a run of the command line left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Classes score the sum of the pixels (0), 1 minus it (1), and never (2): at (0.5, 0.5, 0.5, 0.5) class 0 wins by 3.
WEIGHT = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]], np.float32)
OUT = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
BIAS = np.array([0, 1], np.float32)
OUT_BIAS = np.array([0, 0, -5], np.float32)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def network(operator: str = "Relu", weight: np.ndarray = WEIGHT) -> onnx.ModelProto:
    """A dense network 4 -> 2 -> 3 with `operator` (node `middle`) between its layers."""
    arrays = {"weight": weight, "bias": BIAS, "out": OUT, "out_bias": OUT_BIAS}
    nodes = [
        helper.make_node("Gemm", ["image", "weight", "bias"], ["x"], "first", transB=1),
        helper.make_node(operator, ["x"], ["y"], "middle"),
        helper.make_node("Gemm", ["y", "out", "out_bias"], ["logits"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def vnnlib(inputs: int = 4, outputs: int = 3, low: str = "0.4", high: str = "0.6", claim: str = "(<= Y_0 Y_1)") -> str:
    """A VNN-LIB 1 property: all inputs in [low, high], violated where `claim` holds."""
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i in range(inputs):
        lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
    return "\n".join([*lines, f"(assert {claim})", ""])
