"""ONNX's own test cases, each as a model with one float input, one float output and its stored values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

GROUPS = ("node", "simple", "pytorch-converted", "pytorch-operator")  # that need no download


@dataclass(frozen=True)
class Case:
    """One output of one test: `expected` is what its model gives at `x`, to the test's own precision."""

    name: str
    model: onnx.ModelProto
    x: np.ndarray
    expected: np.ndarray
    rtol: float
    atol: float


def cases() -> Iterator[Case]:
    """All cases whose first float input leads to a float output; the other inputs become constants."""
    from onnx.backend.test.loader import load_model_tests

    for group in GROUPS:
        for test in sorted(load_model_tests(kind=group), key=lambda test: test.name):
            read = _from_memory(test) if test.data_sets else _from_disk(test)
            if read is None:
                continue
            model, inputs, outputs = read
            for i in range(len(outputs)):
                case = _single(test, f"{group}/{test.name}", model, inputs, outputs, i)
                if case is not None:
                    yield case


Read = tuple[onnx.ModelProto, list[Any], list[Any]]


def _from_memory(test: Any) -> Read:
    return test.model, list(test.data_sets[0][0]), list(test.data_sets[0][1])


def _from_disk(test: Any) -> Read | None:
    place = Path(test.model_dir)
    data = place / "test_data_set_0"
    if not data.is_dir():
        return None
    return onnx.load(place / "model.onnx"), _stored(data, "input"), _stored(data, "output")


def _stored(place: Path, kind: str) -> list[Any]:
    arrays: list[Any] = []
    for i in range(len(list(place.glob(f"{kind}_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((place / f"{kind}_{i}.pb").read_bytes())
        arrays.append(numpy_helper.to_array(tensor))
    return arrays


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64) and value.size > 0


def _single(test: Any, name: str, original: Any, inputs: list[Any], outputs: list[Any], i: int) -> Case | None:
    model = onnx.ModelProto()
    model.CopyFrom(original)
    stored = {tensor.name for tensor in model.graph.initializer}
    declared = [
        value for value in model.graph.input if len(inputs) == len(model.graph.input) or value.name not in stored
    ]
    first = next((j for j, value in enumerate(inputs) if _is_float(value)), None)
    if first is None or not _is_float(outputs[i]) or len(declared) < len(inputs):
        return None
    if not all(isinstance(value, np.ndarray) for value in inputs):
        return None
    for value, array in zip(declared, inputs, strict=False):
        if value.name != declared[first].name and value.name not in stored:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    kept, wanted = declared[first], model.graph.output[i]
    name = f"{name}:{wanted.name}"
    for values, single in ((model.graph.input, kept), (model.graph.output, wanted)):
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(single)
        del values[:]
        values.append(copy)
    return Case(name, model, inputs[first], outputs[i], test.rtol, test.atol)
