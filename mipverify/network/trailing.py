"""Operators after the last layer that only rank the outputs: softmax, sigmoid, argmax. They are dropped."""

from __future__ import annotations

import math

from mipverify.network.builder import Builder, RewriteError, Tensor
from mipverify.network.onnx_reader import OnnxGraph
from mipverify.network.rewrites import REWRITES, OnnxNode

_RANKING = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")  # they keep the order of the entries, or name the first
_PASSIVE = ("Identity", "Dropout", "Flatten", "Squeeze", "Unsqueeze", "Reshape", "Cast")


def trailing_nodes(graph: OnnxGraph) -> frozenset[int]:
    """Positions of the nodes from the innermost ranking operator at the end of `graph` to its output; empty without."""
    producer = {name: i for i, node in enumerate(graph.nodes) for name in node.output}
    found: list[int] = []
    pending: list[int] = []
    current = graph.output_name
    while current in producer:
        node = graph.nodes[producer[current]]
        if node.domain not in ("", "ai.onnx") or not node.input or current != node.output[0]:
            break
        pending.append(producer[current])
        if node.op_type in _RANKING:
            found += pending
            pending = []
        elif node.op_type not in _PASSIVE:
            break
        current = node.input[0]
    return frozenset(found)


class Tail:
    """Takes the trailing nodes one after another; each is checked, and leaves its input's entries as they are.

    dropped: the ranking operators so far, the innermost first. shape: of what the file gives behind the last of them.
    """

    def __init__(self) -> None:
        self.dropped: tuple[str, ...] = ()
        self.shape: tuple[int, ...] | None = None
        self.notes: tuple[str, ...] = ()

    def take(self, builder: Builder, node: OnnxNode) -> Tensor:
        """The scores (of the network's output) behind `node`. Raises RewriteError where `node` does not keep order."""
        x = node.tensor(0)
        if self.dropped[-1:] == ("ArgMax",):
            self._behind_class(node)
            return x
        if node.operator not in _RANKING:
            y = REWRITES[node.operator](builder, node)
            assert isinstance(y, Tensor)
            self.shape = y.shape
            return y
        if node.operator != "Sigmoid":
            self._require_all_entries(node, x.shape)
        self.dropped += (node.operator,)
        more = " and thresholds" if node.operator == "Sigmoid" or x.size == 2 else ""
        self.notes += (
            f"{node.operator} at the end (node {node.name!r}) dropped: only properties of the order of the outputs"
            f"{more} can be verified",
        )
        self.shape = x.shape
        if node.operator == "ArgMax":
            self.shape = (1,) * (len(x.shape) - (0 if node.get("keepdims", 1) == 1 else 1))
        return x

    def _require_all_entries(self, node: OnnxNode, shape: tuple[int, ...]) -> None:
        """Refuse an operator that does not rank all entries of its input of `shape` against each other."""
        if node.operator == "ArgMax":
            axis, old = int(node.get("axis", 0)), False
        else:
            old = node.opset < 13  # there it ranks the entries of all axes from `axis` on
            axis = int(node.get("axis", 1 if old else -1))
        inside = -len(shape) <= axis < len(shape)
        covered = math.prod(shape[axis:]) if old else shape[axis] if inside else 0
        if covered != math.prod(shape):
            raise RewriteError(f"along axis {axis} it does not compare all entries of a tensor of shape {list(shape)}")

    def _behind_class(self, node: OnnxNode) -> None:
        """Behind an ArgMax there is one integer: it may be reshaped, and cast to types that hold every class."""
        from onnx import TensorProto

        if node.operator in _RANKING:
            raise RewriteError("it follows an ArgMax: what it gives does not depend on the order of the outputs")
        wide = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.DOUBLE)
        if node.operator == "Cast" and node.get("to") not in wide:
            name = TensorProto.DataType.Name(node.get("to")).lower()
            raise RewriteError(f"a cast of the class to {name} may change it: use int32, int64 or floats")
        self.shape = (1,)  # one entry, whatever its axes
