"""ONNX file -> Network: every node through the table of rewrites, or a refusal that says which and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.alone import complaint
from mipverify.network.branches import taken
from mipverify.network.builder import Builder, Result, RewriteError, Tensor
from mipverify.network.deployed import steps_of
from mipverify.network.fold import evaluate
from mipverify.network.graph import Affine, Network, Relu
from mipverify.network.model_file import ModelFile
from mipverify.network.onnx_reader import OnnxGraph, read
from mipverify.network.ordering import reads
from mipverify.network.rewrites import REWRITES, OnnxNode
from mipverify.network.rewrites.registry import Rewrite
from mipverify.network.simplify import finish
from mipverify.network.trailing import Tail, trailing_nodes

_QUANTIZED = (
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
)
_ADVICE = {
    "Sign": "its jump needs an encoding of its own, which does not exist yet",
    "Sigmoid": "it is not piecewise linear; as the last layer it is dropped, inside the network it is not supported",
    "Softmax": "it is not piecewise linear; as the last layer it is dropped, inside the network it is not supported",
    "LogSoftmax": "it is not piecewise linear; as the last layer it is dropped, inside the network it is not supported",
    "ArgMax": "it is supported as the last layer only, over all entries",
    "LSTM": "recurrent layers are not supported: unroll the model before exporting it",
    "GRU": "recurrent layers are not supported: unroll the model before exporting it",
    "RNN": "recurrent layers are not supported: unroll the model before exporting it",
    "Loop": "control flow is not supported: export the model with a fixed number of steps",
    "Scan": "control flow is not supported: export the model with a fixed number of steps",
    "If": "its condition depends on the network's input: export the branch that is taken",
    **dict.fromkeys(_QUANTIZED, "quantized networks are not supported: export the float32 model"),
    "HardSwish": "it is not piecewise linear: between its kinks it is a parabola",
}


@dataclass(frozen=True)
class Unsupported:
    """A node that cannot be imported."""

    operator: str
    node: str
    opset: int
    reason: str

    def __str__(self) -> str:
        return f"operator {self.operator} (node {self.node!r}, opset {self.opset}): {self.reason}"


@dataclass(frozen=True)
class Reading:
    """A file's graph as nodes of a network, before they are simplified.

    trailing: positions of the nodes at the end that only rank. values: by the file's name of a tensor, what it became.
    tail: what was dropped at the end. problems: why it is not a network, empty if it is one. sites: by the builder's
    ReLU nodes, the first output of the file's node they belong to, and their number among those of that node.
    unrounded: for nodes of which it is not known how float32 rounds them, why.
    """

    graph: OnnxGraph
    trailing: frozenset[int]
    builder: Builder
    values: dict[str, Result]
    tail: Tail
    problems: list[Unsupported]
    sites: dict[int, tuple[str, int]] = field(default_factory=dict)
    unrounded: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """What the tensors of the file became, in order; without those behind what was dropped at the end."""
        names = [name for i, node in enumerate(self.graph.nodes) if i not in self.trailing for name in node.output]
        found = ((name, self.values.get(name)) for name in names)
        return {name: value for name, value in found if isinstance(value, Tensor)}


def load(source: str | Path | ModelFile) -> Network:
    """The network in an ONNX file; raises InputError that names the first node that cannot be imported."""
    found = trace(read(source))
    graph, problems, output = found.graph, found.problems, found.values.get(found.graph.output_name)
    if problems:
        more = f" (and {len(problems) - 1} more: see `mipverify inspect`)" if len(problems) > 1 else ""
        raise InputError(f"{graph.path}: {problems[0]}{more}")
    if not isinstance(output, Tensor):
        try:
            output = _constant_output(found.builder, output)
        except RewriteError as error:
            raise InputError(f"{graph.path}: the output {graph.output_name!r}: {error}") from None
    shape = found.tail.shape or output.shape
    if graph.output_shape is not None and math.prod(graph.output_shape) != math.prod(shape):
        raise InputError(
            f"{graph.path}: the output {graph.output_name!r} is declared with the shape {list(graph.output_shape)}, "
            f"but what leads to it makes {list(shape)} of it"
        )
    return finish(
        found.builder,
        output,
        found.tensors(),
        found.sites,
        path=graph.path,
        sha256=graph.file.sha256,
        input_name=graph.input_name,
        input_type=graph.input_type,
        notes=found.tail.notes,
        dropped=found.tail.dropped,
        file=graph.file,
        double=graph.double,
        unrounded=next(iter(found.unrounded), None),
    )


def _constant_output(builder: Builder, value: Result | None) -> Tensor:
    """A network may return the same numbers for every input."""
    if value is None:
        raise RewriteError("it is an optional output that is not supported")
    if not isinstance(value, np.ndarray):
        raise RewriteError("it is the result of a comparison, which jumps")
    if value.dtype not in (np.float32, np.float64) or not value.size:
        raise RewriteError(f"it does not depend on the input and has element type {value.dtype}, shape {value.shape}")
    return builder.constant(value)


def unsupported_operators(source: str | Path | ModelFile) -> list[Unsupported]:
    """Every node of the file that cannot be imported, with the reason; other defects of the file raise InputError."""
    return trace(read(source), stop=False).problems


def trace(graph: OnnxGraph, stop: bool = True) -> Reading:
    """Rewrite all nodes. With `stop`, operators without a rewrite end it before any work is done."""
    problems: list[Unsupported] = []
    opset, nodes = graph.opset, graph.nodes
    trailing = trailing_nodes(graph)
    refused = _refused_by_name(graph, trailing)
    for i, reason in refused.items():
        problems.append(Unsupported(nodes[i].op_type, OnnxNode(nodes[i], (), opset).name, opset, reason))
    builder = Builder(graph.input_shape, graph.input_name)
    values: dict[str, Result] = {**graph.constants, graph.input_name: builder.input}
    found = Reading(graph, trailing, builder, values, Tail(), problems)
    if problems and stop:
        return found
    for i, proto in enumerate(nodes):
        missing = [name for name in proto.input if name and name not in values]
        if missing and not problems:  # else it follows from a node that has already been refused
            reason = f"it reads {missing[0]!r}, an optional output that is not supported"
            problems.append(Unsupported(proto.op_type, OnnxNode(proto, (), opset).name, opset, reason))
        if i in refused or missing:
            continue
        node = OnnxNode(proto, [values[name] if name else None for name in proto.input], opset)
        builder.name = node.name
        begin = len(builder.nodes)
        try:
            outputs = _rewrite(builder, node, values, found.tail.take if i in trailing else None)
        except RewriteError as error:
            problems.append(Unsupported(node.operator, node.name, opset, str(error)))
        else:
            values.update({name: value for name, value in zip(proto.output, outputs, strict=False) if name})
            relus = [k for k, made in enumerate(builder.nodes[begin:], begin) if isinstance(made, Relu)]
            found.sites.update({k: (str(proto.output[0]), part) for part, k in enumerate(relus)})
            _count_roundings(found, node, begin)
            continue
        if stop:
            break
    return found


def _count_roundings(found: Reading, node: OnnxNode, begin: int) -> None:
    """Enter `Affine.steps` of the builder's nodes from `begin` on, which a node of the file became."""
    nodes = found.builder.nodes
    steps, reason = steps_of(node, nodes[begin:])
    if reason is not None:
        found.unrounded.append(f"operator {node.operator} (node {node.name!r}): {reason}")
    for k, count in enumerate(steps, begin):
        one = nodes[k]
        if count and isinstance(one, Affine):
            nodes[k] = replace(one, steps=count)


def _rewrite(
    builder: Builder, node: OnnxNode, values: dict[str, Result], rule: Rewrite | None = None
) -> tuple[Result, ...]:
    """The outputs of one node of a graph whose tensors so far are `values`; `rule` replaces that of the table.

    Raises RewriteError where the node cannot be read or is malformed: what goes wrong unforeseen in a node that ONNX
    Runtime runs is a fault of ours.
    """
    try:
        if node.operator == "If":
            return taken(node, values, lambda inner, known: _rewrite(builder, inner, known))
        if all(value is None or isinstance(value, np.ndarray) for value in node.inputs):
            return evaluate(node)
        rule = rule or REWRITES.get(node.operator)
        if rule is None:
            raise RewriteError(_advice(node.proto))
        node.check_constants()
        outputs = rule(builder, node)
        return outputs if isinstance(outputs, tuple) else (outputs,)
    except (RewriteError, MemoryError):
        raise
    except Exception as error:
        reason = complaint(node)
        if reason is None:
            raise
        raise RewriteError(f"its inputs or attributes do not fit: {reason}") from error


def _refused_by_name(graph: OnnxGraph, trailing: frozenset[int]) -> dict[int, str]:
    """Positions of the nodes whose operator is not supported whatever its attributes, with the reason."""
    constants = {*graph.constants, ""}
    eight_bit: set[str] = set()  # constants made of integers of at most 8 bits by DequantizeLinear
    refused: dict[int, str] = {}
    for i, proto in enumerate(graph.nodes):
        if proto.domain not in ("", "ai.onnx"):
            refused[i] = f"it belongs to {proto.domain!r}, not to the standard operators"
        elif constants.issuperset(reads(proto)) or proto.op_type in ("Shape", "Size"):
            constants.update(proto.output)  # evaluated once and for all
            stored = graph.constants.get(proto.input[0]) if proto.input else None
            narrow = proto.op_type == "DequantizeLinear" and (stored is None or stored.dtype.itemsize == 1)
            if narrow or eight_bit.intersection(reads(proto)):
                eight_bit.update(proto.output)
        elif proto.op_type == "If" and constants.issuperset(proto.input):
            continue  # the branch that is taken decides
        elif proto.op_type in ("MatMul", "Gemm") and eight_bit.intersection(proto.input):
            refused[i] = "quantized networks are not supported: ONNX Runtime multiplies by 8-bit weights in integers"
        elif proto.op_type not in REWRITES and i not in trailing:
            refused[i] = _advice(proto)
    return refused


def _advice(proto: Any) -> str:
    return _ADVICE.get(proto.op_type, "not supported: export the model without it")
