"""Operators after the last layer that only rank the outputs: softmax, sigmoid, argmax. They are dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mipverify.network.onnx_reader import OnnxGraph

_MONOTONE = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")
_PASSIVE = ("Identity", "Dropout", "Flatten", "Squeeze", "Unsqueeze", "Reshape", "Cast")


@dataclass(frozen=True)
class Trailing:
    """The nodes that remain, the tensor that is now the output, and what was dropped behind it (last first)."""

    nodes: tuple[Any, ...]
    output: str
    dropped: tuple[Any, ...]
    opset: int
    notes: tuple[str, ...]

    @property
    def order_only(self) -> bool:
        """Whether the network's output equals the file's only up to the order of its entries."""
        return bool(self.dropped)

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """Why the dropped operators do not rank all entries of an output of `shape` against each other, or None."""
        for node in self.dropped:
            if node.op_type == "Sigmoid" or node.op_type in _PASSIVE:
                continue
            given = {attribute.name: attribute.i for attribute in node.attribute}
            old_softmax = node.op_type != "ArgMax" and self.opset < 13
            axis = given.get("axis", 0 if node.op_type == "ArgMax" else 1 if old_softmax else -1)
            covered = math.prod(shape[axis:]) if old_softmax else shape[axis] if -len(shape) <= axis < len(shape) else 0
            if covered != math.prod(shape):
                name = node.name or node.output[0]
                return (
                    f"operator {node.op_type} (node {name!r}, opset {self.opset}): along axis {axis} it does not "
                    f"compare all entries of a tensor of shape {list(shape)}"
                )
        return None


def strip(graph: OnnxGraph) -> Trailing:
    """Drop the ranking operators at the end of `graph`."""
    producer = {name: node for node in graph.nodes for name in node.output}
    output, dropped, pending = graph.output_name, [], []
    current = output
    while current in producer:
        node = producer[current]
        if not node.input or not node.input[0]:
            break
        if node.op_type in _MONOTONE and node.domain in ("", "ai.onnx"):
            pending.append(node)
            dropped += pending
            pending = []
            output = node.input[0]
        elif node.op_type in _PASSIVE:
            pending.append(node)
        else:
            break
        current = node.input[0]
    if not dropped:
        return Trailing(graph.nodes, output, (), graph.opset, ())
    needed, kept = {output}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    notes = tuple(
        f"{node.op_type} at the end (node {node.name or node.output[0]!r}) dropped: only properties of the order "
        "of the outputs can be verified"
        for node in dropped
        if node.op_type in _MONOTONE
    )
    return Trailing(tuple(reversed(kept)), output, tuple(dropped), graph.opset, notes)
