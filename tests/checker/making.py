"""Small networks, properties and proofs, written by hand: the checker is tested without the verifier."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def model(nodes: Sequence[Any], constants: dict[str, np.ndarray], shape: Sequence[int], opset: int = 17) -> Any:
    """An ONNX model from `x` to `y`."""
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "graph", [given], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def dense(rng: np.random.Generator, sizes: Sequence[int]) -> Any:
    """A dense ReLU network with float32 weights; its ReLUs are the tensors r1, r2, …"""
    nodes, constants, name = [], {}, "x"
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        constants[f"w{i}"] = (rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32)
        constants[f"b{i}"] = rng.normal(size=outputs).astype(np.float32) / 4
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], ["y" if last else f"z{i + 1}"]))
        name = f"r{i + 1}"
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{i + 1}"], [name]))
    return model(nodes, constants, [1, sizes[0]])


def property_text(inputs: int, outputs: int, box: Sequence[tuple[str, str]], asserted: str) -> str:
    """A VNN-LIB 1 property: bounds of each input, and what violates it."""
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [
        f"(declare-const Y_{i} Real)" for i in range(outputs)
    ]
    for i, (low, high) in enumerate(box):
        lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
    return "\n".join([*lines, f"(assert {asserted})", ""])


class Writer:
    """Collects the arrays of a proof file; `write` makes the file."""

    def __init__(self, network: Path, question: dict[str, Any]):
        self.arrays: dict[str, np.ndarray] = {}
        digest = hashlib.sha256(network.read_bytes()).hexdigest()
        self.header: dict[str, Any] = {
            "format": "mipverify proof",
            "version": 1,
            "arithmetic": "real",
            "network": {"sha256": digest},
            "question": question,
            "cases": [],
            "sites": [],
            "facts": [],
        }

    def array(self, values: Any, kind: Any = None) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = np.asarray(values, kind)
        return name

    def packed(self, values: Any) -> dict[str, str]:
        table, which = np.unique(np.asarray(values, np.float64), axis=0, return_inverse=True)
        return {"table": self.array(table), "which": self.array(which.reshape(-1), np.uint16)}

    def case(self, box: Any, conditions: Sequence[Any], **region: Any) -> None:
        held = {"box": self.packed(box), "conditions": list(conditions)}
        self.header["cases"].append(held | ({"region": region} if region else {}))

    def fact(self, rule: str, **parts: Any) -> int:
        self.header["facts"].append({"rule": rule, **parts})
        return len(self.header["facts"]) - 1

    def content(self) -> bytes:
        stream = io.BytesIO()
        text = json.dumps(self.header)
        named = {name: array for name, array in self.arrays.items() if f'"{name}"' in text}
        np.savez_compressed(stream, header=np.frombuffer(text.encode(), np.uint8), **named)  # type: ignore[arg-type]
        return stream.getvalue()


def vnnlib_question(path: Path) -> dict[str, Any]:
    """The question of a proof about a property file."""
    return {"kind": "vnnlib", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def below(output: int, level: str, sign: int = 1) -> list[dict[str, Any]]:
    """The condition of one row: sign times an output is at most `level`."""
    return [{"outputs": [[output, str(sign)]], "offset": level}]
