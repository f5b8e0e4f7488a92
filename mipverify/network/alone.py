"""One node of a file alone in ONNX Runtime: what it computes of constants, and whether it can be run at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipverify.network.builder import Comparison
from mipverify.network.rewrites.registry import OnnxNode
from mipverify.network.runtime_text import runtime_text


def run_alone(node: OnnxNode) -> tuple[np.ndarray, ...]:
    """The outputs of `node`, with zeros for what depends on the network's input; raises what ONNX Runtime raises."""
    import onnxruntime

    content, given = _alone(node)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return tuple(np.asarray(output) for output in session.run(None, given))


def complaint(node: OnnxNode) -> str | None:
    """What ONNX Runtime finds wrong with the node and the shapes that it is given; None if it runs.

    Asked only after a rewrite has failed in a way that it does not foresee: a node that ONNX Runtime runs is one that
    we should have read or refused, and the error is ours.
    """
    try:
        run_alone(node)
    except Exception as error:  # noqa: BLE001  # it has a class for each of its reasons, onnx others for malformed nodes
        return runtime_text(error)
    return None


def _alone(node: OnnxNode) -> tuple[bytes, dict[str, np.ndarray]]:
    """A model of this node alone, and what it reads: constants as they are, else zeros of the same shape."""
    from onnx import helper, numpy_helper

    constants: dict[str, Any] = {}
    inputs, given = [], {}
    floats = [v.dtype for v in node.inputs if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    dtype = floats[0] if floats else np.dtype(np.float32)
    for name, value in zip(node.proto.input, node.inputs, strict=True):
        if isinstance(value, np.ndarray):
            constants[name] = numpy_helper.from_array(value, name)
        elif value is not None and name not in given:
            given[name] = np.zeros(value.shape, bool if isinstance(value, Comparison) else dtype)
            kind = helper.np_dtype_to_tensor_dtype(given[name].dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.proto.output if name]
    graph = helper.make_graph([node.proto], "alone", inputs, outputs, list(constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.proto.domain, node.opset)])
    model.ir_version = 10
    return model.SerializeToString(), given
