"""Small ONNX models for the tests, and the comparison of our reading of them with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from mipverify.network import Network, load


class Graph:
    """Collects the nodes of a model with one input `x`, float32 unless `dtype` says otherwise."""

    def __init__(self, shape: Sequence[int | str], seed: int = 0, opset: int = 18, dtype: Any = np.float32):
        self.dtype = np.dtype(dtype)
        self.shape, self.opset, self.rng = list(shape), opset, np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.given_constants: dict[str, np.ndarray] = {}

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a new initializer, of the model's type if none is given."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype or self.dtype), name))
        return name

    def random(self, *shape: int) -> str:
        """An initializer of random numbers."""
        return self.constant(self.rng.normal(size=shape))

    def node(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; the name of its output, or names if there are several."""
        names = [f"{operator.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(operator, list(inputs), names, name=f"node_{len(self.nodes)}_{operator}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def model(self, output: str | Sequence[str]) -> onnx.ModelProto:
        """The model that returns `output`."""
        outputs = [output] if isinstance(output, str) else list(output)
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(self.dtype), self.shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8 if self.opset < 21 else 10
        return model

    def save(self, path: Path, output: str | Sequence[str]) -> Path:
        """Write the model to `path`."""
        path.write_bytes(self.model(output).SerializeToString())
        return path


def runtime(model: bytes, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes for one input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def agrees(graph: Graph, output: str, path: Path, samples: int = 3, scale: float = 2.0) -> Network:
    """Assert that our reading of the model equals ONNX Runtime's on random inputs; the network."""
    graph.save(path, output)
    network = load(path)
    model = path.read_bytes()
    shape = tuple(size if isinstance(size, int) else 1 for size in graph.shape)
    x = graph.rng.normal(size=(samples, *shape)).astype(np.float32) * scale
    given = x.astype(graph.dtype)
    ours, ours_exact = network.forward(x), network.forward(x.astype(np.float64))
    for i in range(samples):
        expected = runtime(model, given[i])
        assert network.output_shape == expected.shape
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours[i], expected, atol=1e-4 * size, rtol=0)
        precision = 1e-12 if graph.dtype == np.float64 else 1e-4
        np.testing.assert_allclose(ours_exact[i], expected, atol=precision * size, rtol=0)
    return network
