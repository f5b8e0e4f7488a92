"""Collects nodes and weights of an ONNX model in float32, and says how much the weights were rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipverify.errors import InputError

OPSET = 13
IR_VERSION = 8  # the oldest that may hold this opset: every ONNX Runtime in use reads it


class OnnxWriter:
    """A model with one input `input` of shape (N, *input_shape); values are handed around by name."""

    input = "input"

    def __init__(self, input_shape: Sequence[int]):
        self.input_shape = tuple(input_shape)
        self.rounding = 0.0  # largest change of a weight by rounding to float32, relative to the largest in its array
        self.parameters = 0
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._names: dict[str, int] = {}

    def weight(self, array: np.ndarray, name: str) -> str:
        """Store a trained array as float32; raises InputError where that overflows."""
        array = np.asarray(array)
        with np.errstate(over="ignore"):
            stored = array.astype(np.float32)
        if not np.isfinite(stored).all():
            raise InputError(f"{name}: holds a value beyond the range of float32")
        scale = float(np.abs(array).max(initial=0.0))
        if scale > 0:
            self.rounding = max(self.rounding, float(np.abs(stored - array.astype(np.float64)).max()) / scale)
        self.parameters += array.size
        return self._store(stored, name)

    def constant(self, array: Any, name: str, dtype: Any = np.float32) -> str:
        """Store an array that is no trained weight: a shape, an index, a mask."""
        return self._store(np.asarray(array, dtype=dtype), name)

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output; the name of that output."""
        from onnx import helper

        name = self._unique(name)
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def model(self, output: str, output_shape: Sequence[int]) -> Any:
        """The checked `onnx.ModelProto` that returns `output`, of shape (N, *output_shape)."""
        import onnx
        from onnx import TensorProto, helper

        if output == self.input:
            output = self.node("Identity", [output], "output")
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, ["N", *self.input_shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *output_shape])],
            self._initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "mipverify"
        onnx.checker.check_model(model, full_check=True)
        return model

    def _store(self, array: np.ndarray, name: str) -> str:
        from onnx import numpy_helper

        name = self._unique(name)
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 and name != self.input else self._unique(f"{name}_{count + 1}")
