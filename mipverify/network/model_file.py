"""The bytes of a model, read once: what is hashed is what is imported, validated and replayed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from mipverify.errors import InputError, one_line

CONVERTIBLE = (".nnet", ".mat", ".pth", ".pt", ".h5", ".keras")  # `mipverify convert` knows what to do


@dataclass(frozen=True)
class ModelFile:
    """An ONNX model in memory. What becomes of the file that it came from changes nothing.

    path: where it came from. sha256: of that file as it lay on disk; of the file and the weights that it keeps in other
    files, if it does. content: the model as one message, unpacked and with all weights. others: those other files.
    """

    path: str
    sha256: str
    content: bytes = field(repr=False)
    others: tuple[str, ...] = ()


def read_bytes(path: str | Path) -> bytes:
    """The content of `path`, unpacked if its name ends in .gz."""
    return _unpacked(path, _stored(path))


def read_model(path: str | Path) -> tuple[Any, ModelFile]:
    """The parsed `onnx.ModelProto` of the file `path`, with the weights of other files, and the bytes of both.

    Raises InputError: no file, no ONNX model, or weights that cannot be read or lie outside of the file's folder.
    """
    stored = _stored(path)
    content = _unpacked(path, stored)
    if Path(str(path).removesuffix(".gz")).suffix.lower() in CONVERTIBLE:
        raise InputError(f"{path}: not an ONNX file: convert it first with `mipverify convert {path} NET.onnx`")
    model = _parsed(path, content)
    digest = hashlib.sha256(stored)
    others = _load_external(path, model, digest)
    if others:
        try:
            content = model.SerializeToString()
        except Exception as error:  # noqa: BLE001  # protobuf's own classes differ between its implementations
            raise InputError(f"{path}: with its weights it is larger than 2 GB: {one_line(error)}") from None
    return model, ModelFile(str(path), digest.hexdigest(), content, others)


def parse(file: ModelFile) -> Any:
    """The `onnx.ModelProto` of a model that was read before."""
    return _parsed(file.path, file.content)


def _stored(path: str | Path) -> bytes:
    if not isinstance(path, str | PathLike):
        raise InputError(f"the path of an ONNX file is needed, not {type(path).__name__}")
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, not an ONNX file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _unpacked(path: str | Path, data: bytes) -> bytes:
    if Path(path).suffix != ".gz":
        return data
    try:
        data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a valid gzip file: {error}") from None
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _parsed(path: str | Path, content: bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError, RuntimeError):
        raise InputError(f"{path}: not an ONNX model, or a damaged one") from None
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{path}: not an ONNX model: it holds no graph")
    return model


def _load_external(path: str | Path, model: Any, digest: Any) -> tuple[str, ...]:
    """Read the weights that lie in other files into the model and the digest; returns the paths of these files."""
    import onnx

    found: dict[str, None] = {}
    for tensor in _tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        found[str(Path(path).parent / location)] = None
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(Path(path).parent))
        except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
            raise InputError(f"{path}: its external weights cannot be read: {one_line(error)}") from None
        digest.update(f"\0{tensor.name}\0{len(tensor.raw_data)}\0".encode() + tensor.raw_data)
    return tuple(found)


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of a model that may keep their values in other files, those of subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)
