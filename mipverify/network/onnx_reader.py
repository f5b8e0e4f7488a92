"""An ONNX file as checked pieces: its one input, its one output, the nodes between them and the constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mipverify.errors import InputError, one_line
from mipverify.network.builder import LARGEST_TENSOR
from mipverify.network.model_file import ModelFile, parse, read_model
from mipverify.network.ordering import ordered, reads

OLDEST_OPSET = 7  # before it, broadcasting was an attribute
RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")


@dataclass(frozen=True)
class OnnxGraph:
    """The part of an ONNX model that leads from its input to its output, each node after those that it reads."""

    file: ModelFile
    opset: int
    nodes: tuple[Any, ...]  # onnx.NodeProto
    constants: dict[str, np.ndarray]
    input_name: str
    input_shape: tuple[int, ...]
    input_type: str  # float32 or float64
    output_name: str
    output_shape: tuple[int, ...] | None  # as the file declares it; None where it does not, or leaves sizes open
    double: bool  # whether it computes in float64 throughout

    @property
    def path(self) -> str:
        return self.file.path


def read(source: str | Path | ModelFile) -> OnnxGraph:
    """Read and check everything about a file that does not depend on single operators."""
    model, file = (parse(source), source) if isinstance(source, ModelFile) else read_model(source)
    path, graph = file.path, inlined(model, file.path).graph
    opset = _opset(model, path)
    if len(graph.output) != 1:
        names = ", ".join(repr(output.name) for output in graph.output) or "none"
        raise InputError(f"{path}: exactly one output is supported, the file has {len(graph.output)}: {names}")
    output = graph.output[0].name
    nodes = ordered(graph, str(path))
    needed = {name for node in nodes for name in reads(node)} | {output}
    constants = stored_constants(graph, path, needed)
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise InputError(f"{path}: exactly one input is supported, the file has {len(inputs)}: {names}")
    produced = {name for node in nodes for name in node.output} | set(constants) | {inputs[0].name, ""}
    for node in nodes:
        for name in reads(node):
            if name not in produced:
                raise InputError(f"{path}: node {node.name or node.output[0]!r} reads {name!r}, which nothing produces")
    if not output or output not in produced:
        raise InputError(f"{path}: nothing produces the output {output!r}")
    shape = _input_shape(inputs[0], path)
    declared, double = _declared(graph.output[0]), _double(inputs[0], nodes, constants)
    element = {1: "float32", 11: "float64"}[inputs[0].type.tensor_type.elem_type]
    return OnnxGraph(file, opset, nodes, constants, inputs[0].name, shape, element, output, declared, double)


def inlined(model: Any, path: str | Path) -> Any:
    """The model with the calls of its own functions replaced by their bodies.

    A function in the name of an operator that ONNX Runtime has itself is never called: the built-in one is.
    It reads the nodes of a function in the opset of the file, whatever the function says of itself.
    Raises InputError.
    """
    if not model.functions:
        return model
    import onnx.inliner

    own = [function for function in model.functions if function.domain not in RUNTIME_DOMAINS]
    del model.functions[:]
    model.functions.extend(own)
    if not own:
        return model
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            entry.version = versions.get(entry.domain, entry.version)
    defaults = {(function.domain, function.name): function.attribute_proto for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _state_defaults(nodes, defaults)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # noqa: BLE001  # of native code
        raise InputError(f"{path}: its functions cannot be put in place of their calls: {one_line(error)}") from None


def _state_defaults(nodes: Any, defaults: dict[tuple[str, str], Any]) -> None:
    """Give calls of functions the attributes that they leave to the functions' defaults, which the inliner forgets."""
    for node in nodes:
        given = {attribute.name for attribute in node.attribute}
        for graph in [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]:
            _state_defaults(graph.node, defaults)
        missing = [one for one in defaults.get((node.domain, node.op_type), ()) if one.name not in given]
        node.attribute.extend(missing)


def _opset(model: Any, path: str | Path) -> int:
    import onnx

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise InputError(f"{path}: does not say which version of the standard operators it uses")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise InputError(
            f"{path}: uses opset {versions[0]}; supported are {OLDEST_OPSET} to {newest}: "
            "convert it with onnx.version_converter or export it again"
        )
    return int(versions[0])


def stored_constants(graph: Any, path: str | Path, needed: set[str] | None = None) -> dict[str, np.ndarray]:
    """The initializers of a graph, sparse ones filled up; only those in `needed`, if it is given."""
    constants = {}
    for tensor in graph.initializer:
        if needed is None or tensor.name in needed:
            constants[tensor.name] = _initializer(tensor, tensor.name, constant_array, path)
    for sparse in graph.sparse_initializer:
        if needed is None or sparse.values.name in needed:
            constants[sparse.values.name] = _initializer(sparse, sparse.values.name, sparse_array, path)
    return constants


def _initializer(tensor: Any, name: str, read: Callable[[Any], np.ndarray], path: str | Path) -> np.ndarray:
    try:
        return read(tensor)
    except ValueError as error:
        raise InputError(f"{path}: initializer {name!r}: {one_line(error)}") from None


def sparse_array(tensor: Any) -> np.ndarray:
    """The array of an `onnx.SparseTensorProto`, zero where it says nothing; raises ValueError if it cannot be used."""
    shape = tuple(int(size) for size in tensor.dims)
    values, indices = constant_array(tensor.values).reshape(-1), constant_array(tensor.indices)
    if any(size < 0 for size in shape) or math.prod(shape) > LARGEST_TENSOR:
        raise ValueError(f"a tensor of shape {list(shape)} cannot be held")
    flat = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices.reshape(-1)
    if len(flat) != len(values) or (flat.size and not 0 <= flat.min() <= flat.max() < math.prod(shape)):
        raise ValueError("its indices do not fit")
    array = np.zeros(shape, values.dtype)
    array.reshape(-1)[flat] = values
    return array


def constant_array(tensor: Any) -> np.ndarray:
    """The array of an `onnx.TensorProto`; raises ValueError if its values cannot be used."""
    import onnx.numpy_helper

    check_type(tensor.data_type)
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError("holds NaN")
    return array  # infinity is a bound of Clip that never acts; it is refused wherever it would be computed with


def check_type(data_type: int) -> None:
    """Raises ValueError for the element types that no exact real-valued reading is offered for."""
    import onnx

    types = onnx.TensorProto
    whole = (types.INT64, types.INT32, types.INT16, types.INT8, types.INT4, types.UINT16, types.UINT8, types.UINT4)
    if data_type not in (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BOOL, *whole):
        raise ValueError(f"element type {_type_name(data_type)} is not supported: convert the model to float32")


def _type_name(data_type: int) -> str:
    from onnx import TensorProto

    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)).lower() if known else f"number {data_type}"


def _input_shape(value: Any, path: str | Path) -> tuple[int, ...]:
    """The shape of the input; a symbolic first size becomes 1."""
    import onnx

    kind = value.type.tensor_type
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        name = _type_name(kind.elem_type)
        raise InputError(f"{path}: input {value.name!r} has element type {name}: export the model in float32")
    if not kind.HasField("shape"):
        raise InputError(f"{path}: input {value.name!r} has no shape: export the model with a fixed input shape")
    if not kind.shape.dim:
        raise InputError(f"{path}: input {value.name!r} is a number without axes: export the model with a batch axis")
    shape = []
    for axis, dim in enumerate(kind.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value == 0:
            raise InputError(f"{path}: input {value.name!r} has size 0 along axis {axis}")
        if dim.dim_value > 0:
            shape.append(int(dim.dim_value))
        elif axis == 0:
            shape.append(1)
        else:
            raise InputError(
                f"{path}: input {value.name!r} has the unknown size {dim.dim_param!r} along axis {axis}: "
                "only the batch axis may be open"
            )
    return tuple(shape)


def _declared(value: Any) -> tuple[int, ...] | None:
    """The shape that the file states for its output, an open batch size as 1; None if it leaves sizes open."""
    kind = value.type.tensor_type
    sizes = [int(dim.dim_value) for dim in kind.shape.dim]
    if not kind.HasField("shape") or any(size < 1 for size in sizes[1:]):
        return None
    return tuple(max(1, size) for size in sizes)


def _double(given: Any, nodes: tuple[Any, ...], constants: dict[str, np.ndarray]) -> bool:
    """Whether the input is float64, and nothing on the way, nor in a branch, is cast to float32."""
    import onnx

    if given.type.tensor_type.elem_type != onnx.TensorProto.DOUBLE:
        return False
    wide = {name for name, value in constants.items() if value.dtype == np.float64} | {given.name}
    return not any(_narrows(node, wide) for node in nodes)


def _narrows(node: Any, wide: set[str]) -> bool:
    """Whether a node, or one in its branches, casts to float32, or like a tensor that is not known as float64."""
    from onnx import TensorProto

    if node.op_type == "CastLike":
        return len(node.input) < 2 or node.input[1] not in wide
    if node.op_type == "Cast":
        return any(attribute.name == "to" and attribute.i == TensorProto.FLOAT for attribute in node.attribute)
    graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    return any(_narrows(inner, wide) for graph in graphs for inner in graph.node)
