"""An ONNX file as its input, its nodes in order and its constants; what it leaves open or to guesses is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper

from mipverify_check.errors import BadInputError

LARGEST_FILE = 2**31 - 1  # bytes, unpacked; protobuf has the same limit
LARGEST_TENSOR = 2**27  # entries
STANDARD = ("", "ai.onnx")
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class OnnxFile:
    """sha256: of the file as it lies on disk, and of weights that it keeps elsewhere (docs/proof-format.md)."""

    path: str
    sha256: str
    opset: int
    nodes: list[Any]
    constants: dict[str, np.ndarray]
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    input_type: int = onnx.TensorProto.FLOAT


def read_file(path: str, limit: int = LARGEST_FILE) -> tuple[bytes, bytes]:
    """The bytes of a file as stored, and unpacked if its name ends in .gz. Raises BadInputError."""
    try:
        stored = Path(path).read_bytes()
        if not path.endswith(".gz"):
            return stored, stored
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as packed:
            content = bytearray()  # in pieces: a reader of `limit` bytes at once takes as many
            while len(content) <= limit and (piece := packed.read(2**20)):
                content += piece
    except (OSError, EOFError, ValueError, MemoryError) as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from None
    except Exception as error:  # noqa: BLE001  # zlib.error has no public base class
        raise BadInputError(f"{path}: is damaged: {error}") from None
    if len(content) > limit:
        raise BadInputError(f"{path}: is larger than {limit} bytes")
    return stored, bytes(content)


def read(path: str) -> OnnxFile:
    """The model in the file `path`. Raises BadInputError."""
    stored, content = read_file(path)
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # noqa: BLE001  # the classes of protobuf differ between its implementations
        raise BadInputError(f"{path}: is not an ONNX model: {error}") from None
    digest = hashlib.sha256(stored)
    _load_external(path, model, digest)
    graph = model.graph
    opsets = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if len(set(opsets)) != 1 or not 7 <= opsets[0] <= onnx.defs.onnx_opset_version():
        raise BadInputError(f"{path}: opset {opsets} is not supported")
    used = {node.op_type for node in graph.node}
    own = [f.name for f in model.functions if f.domain in STANDARD and f.name in used]
    if own:
        raise BadInputError(f"{path}: redefines the standard operator {own[0]}")
    names = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    if len(set(names)) != len(names):
        raise BadInputError(f"{path}: two initializers have one name")
    constants = {tensor.name: constant(tensor, path) for tensor in graph.initializer}
    constants |= {tensor.values.name: _sparse(tensor, path) for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise BadInputError(f"{path}: has {len(inputs)} inputs and {len(graph.output)} outputs instead of one of each")
    nodes = _ordered(graph, {*constants, inputs[0].name, ""}, path)
    shape = _input_shape(inputs[0], path)
    kind, output = inputs[0].type.tensor_type.elem_type, graph.output[0].name
    return OnnxFile(path, digest.hexdigest(), opsets[0], nodes, constants, inputs[0].name, shape, output, kind)


def _load_external(path: str, model: Any, digest: Any) -> None:
    """Weights that lie in other files, read into the model and added to the digest in the order of the file."""
    for tensor in model.graph.initializer:
        if onnx.external_data_helper.uses_external_data(tensor):
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(Path(path).parent))
            except Exception as error:  # noqa: BLE001  # onnx raises what its parts do
                raise BadInputError(f"{path}: weights in another file cannot be read: {error}") from None
            tensor.data_location = onnx.TensorProto.DEFAULT  # or it would be read again, from the current folder
            digest.update(f"\0{tensor.name}\0{len(tensor.raw_data)}\0".encode() + tensor.raw_data)


def constant(tensor: Any, path: str) -> np.ndarray:
    """The array of a TensorProto: numbers or truth values, finite but for bounds of Clip, which may be infinite."""
    if onnx.external_data_helper.uses_external_data(tensor):  # `_load_external` leaves none but these
        raise BadInputError(f"{path}: {tensor.name!r} has its data in another file, and is no initializer")
    size = math.prod(int(d) for d in tensor.dims)
    if size > LARGEST_TENSOR or any(d < 0 for d in tensor.dims):
        raise BadInputError(f"{path}: the constant {tensor.name!r} is too large")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # noqa: BLE001  # onnx raises what its parts do
        raise BadInputError(f"{path}: the constant {tensor.name!r} cannot be read: {error}") from None
    if array.dtype not in FLOATS and array.dtype.kind not in "iub":
        raise BadInputError(f"{path}: the constant {tensor.name!r} has the element type {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise BadInputError(f"{path}: the constant {tensor.name!r} holds NaN")
    return array


def _sparse(tensor: Any, path: str) -> np.ndarray:
    values, indices = constant(tensor.values, path).reshape(-1), constant(tensor.indices, path)
    shape = tuple(int(d) for d in tensor.dims)
    if any(d < 0 for d in shape) or math.prod(shape) > LARGEST_TENSOR:
        raise BadInputError(f"{path}: the constant {tensor.values.name!r} is too large")
    try:
        flat = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices
        full = np.zeros(math.prod(shape), values.dtype)
        np.put(full, flat, values, mode="raise")
    except (ValueError, IndexError) as error:
        raise BadInputError(f"{path}: the constant {tensor.values.name!r} cannot be read: {error}") from None
    return full.reshape(shape)


def _ordered(graph: Any, known: set[str], path: str) -> list[Any]:
    """The nodes that lead to the output, each after those that it reads. ONNX asks for that order in the file."""
    makers: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        if len({attribute.name for attribute in node.attribute}) != len(node.attribute):
            raise BadInputError(f"{path}: node {i} ({node.op_type}) has an attribute twice")
        for name in node.output:
            if name and (name in makers or name in known):
                raise BadInputError(f"{path}: the tensor {name!r} is made twice")
            makers[name] = i
        for name in node.input:
            if name not in known and makers.get(name, i) >= i:
                raise BadInputError(f"{path}: node {i} ({node.op_type}) reads {name!r}, which no earlier node makes")
    output = graph.output[0].name
    needed, pending = set(), [output]
    while pending:
        at = makers.get(pending.pop())
        if at is not None and at not in needed:
            needed.add(at)
            pending += graph.node[at].input
    if not needed:
        raise BadInputError(f"{path}: nothing makes the output {output!r}")
    return [graph.node[i] for i in sorted(needed)]


def _input_shape(value: Any, path: str) -> tuple[int, ...]:
    """The shape of the input; only its first size may be open, and is then 1."""
    kind = value.type.tensor_type
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        raise BadInputError(f"{path}: the input is neither float32 nor float64")
    sizes = [int(d.dim_value) for d in kind.shape.dim]
    if not sizes or any(s < 1 for s in sizes[1:]) or sizes[0] < 0 or math.prod(sizes[1:]) > LARGEST_TENSOR:
        raise BadInputError(f"{path}: the input shape {sizes} is not supported")
    return (max(1, sizes[0]), *sizes[1:])
