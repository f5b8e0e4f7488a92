"""Several ONNX models, or one with several inputs and outputs, as one model of one flat input and one flat output.

The composed model slices its input into those of the parts and joins the tensors of theirs that are asked for: nothing
is computed in it that is not in a part. What it is verified by is replayed on the parts themselves, one by one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.model_file import ModelFile
from mipverify.network.runtime_text import runtime_text

_FLOATS = {"tensor(float)": ("float32", 1), "tensor(double)": ("float64", 11)}
_PROBES = 3  # points at which the composed model is compared with its parts
_CLOSE = 1e-3  # relative, of float32 sums in another order; another tensor would differ by more


@dataclass(frozen=True)
class Slot:
    """A tensor that a property declares. variable: what the property calls it. tensor: the name in the file, or "" for
    an input or output that is told by its place."""

    variable: str
    shape: tuple[int, ...]
    tensor: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Part:
    """A network of a property: the model that implements it, and all of its declared tensors."""

    name: str
    model: ModelFile
    inputs: tuple[Slot, ...]
    hidden: tuple[Slot, ...]
    outputs: tuple[Slot, ...]


@dataclass(frozen=True)
class ComposedModel(ModelFile):
    """A composed model in memory. asked: the variables whose entries, in this order, are its output.

    places: for each element of the inputs of all parts which entry of the input it is; None for one after another.
    within: bounds of the inputs for which it stands for its parts; None for all.
    """

    def require_within(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Raise InputError where bounds (n,) reach beyond those for which it was made."""
        if self.within is not None and not ((self.within[0] <= lower).all() and (upper <= self.within[1]).all()):
            raise InputError(f"{self.path}: its choices were decided for a smaller input set: load it for this one")

    parts: tuple[Part, ...] = field(default=(), repr=False)
    asked: tuple[str, ...] = ()
    places: tuple[int, ...] | None = field(default=None, repr=False)
    within: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)


class Parts:
    """The models of some parts in ONNX Runtime, each with its hidden tensors as further outputs."""

    def __init__(self, parts: Sequence[Part], places: Sequence[int] | None = None):
        self._parts = parts
        self._places = None if places is None else np.asarray(places)
        self._sessions = [_session(part) for part in parts]

    @cached_property
    def size(self) -> int:
        """Number of all inputs that differ."""
        if self._places is not None:
            return int(self._places.max()) + 1
        return sum(slot.size for part in self._parts for slot in part.inputs)

    def tensors(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every declared hidden tensor and output, by variable, in its own shape, at all inputs (n,) in order."""
        found: dict[str, np.ndarray] = {}
        start = 0
        x = np.asarray(x, np.float32)
        x = x if self._places is None else x[self._places]
        for part, session in zip(self._parts, self._sessions, strict=True):
            fed = {}
            for slot, given in zip(part.inputs, session.get_inputs(), strict=True):
                element = _FLOATS[given.type][0]
                values = x[start : start + slot.size].astype(element)
                fed[given.name] = values.reshape(_file_shape(given.shape, slot))
                start += slot.size
            outputs = session.get_outputs()
            names = [slot.tensor or outputs[k].name for k, slot in enumerate(part.outputs)]
            names += [slot.tensor for slot in part.hidden]
            try:
                values = session.run(names, fed)
            except Exception as error:  # noqa: BLE001  # its errors have no base class of their own
                raise InputError(f"{part.model.path}: ONNX Runtime cannot run it: {runtime_text(error)}") from None
            slots = (*part.outputs, *part.hidden)
            found |= {slot.variable: np.asarray(value) for slot, value in zip(slots, values, strict=True)}
        return found


class PartsReplay:
    """The original of a composed model: its parts, run one by one."""

    def __init__(self, model: ComposedModel):
        self._asked, self._parts = model.asked, Parts(model.parts, model.places)
        self.input_shape = (self._parts.size,)

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), what is asked for, flattened."""
        rows = []
        for sample in np.asarray(x, np.float32):
            found = self._parts.tensors(sample)
            rows.append(np.concatenate([found[name].reshape(-1) for name in self._asked]))
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def combined_sha256(networks: Sequence[tuple[str, str]]) -> str:
    """A fingerprint of networks by name and SHA-256, in any order; that of a single one is its own."""
    if len(networks) == 1:
        return networks[0][1]
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in sorted(networks)).encode()).hexdigest()


def compose(parts: Sequence[Part], asked: Sequence[str], places: Sequence[int] | None = None) -> ComposedModel:
    """One model of some parts, whose output is the variables `asked`; places: as in `ComposedModel`.

    Raises InputError where a part has other inputs, outputs or hidden tensors than are declared, where they are not of
    one type of floating-point numbers, or where parts use different versions of the standard operators.
    """
    import onnx
    from onnx import helper

    _check(parts)
    element = _element(parts)
    size = Parts(parts, places).size
    taken_from = np.arange(size) if places is None else np.asarray(places)
    nodes: list[Any] = []
    initializers: list[Any] = []
    imports: dict[str, tuple[int, str]] = {}
    wanted: dict[str, str] = {}
    start = 0
    for number, part in enumerate(parts):
        model, session = _inlined(part.model), _session(part)
        _merge_opsets(imports, model, part)
        prefix = f"part{number}."
        outputs, inputs = [output.name for output in model.graph.output], session.get_inputs()
        named = onnx.compose.add_prefix(model, prefix).graph
        for slot, given in zip(part.inputs, inputs, strict=True):
            shape = np.array(_file_shape(given.shape, slot), np.int64)
            taken, cut, form = (prefix + given.name + suffix for suffix in (".taken", ".cut", ".shape"))
            mine = taken_from[start : start + slot.size].astype(np.int64)
            initializers += [onnx.numpy_helper.from_array(mine, taken), onnx.numpy_helper.from_array(shape, form)]
            nodes.append(helper.make_node("Gather", ["input", taken], [cut], cut, axis=0))
            nodes.append(helper.make_node("Reshape", [cut, form], [prefix + given.name], prefix + given.name))
            start += slot.size
        nodes += named.node
        initializers += named.initializer
        if named.sparse_initializer:
            raise InputError(f"{part.model.path}: sparse weights cannot be composed with other networks yet")
        names = [slot.tensor or outputs[k] for k, slot in enumerate(part.outputs)] + [s.tensor for s in part.hidden]
        slots = (*part.outputs, *part.hidden)
        wanted |= {slot.variable: prefix + name for slot, name in zip(slots, names, strict=True)}
    flat = onnx.numpy_helper.from_array(np.array([-1], np.int64), "flat")
    pieces = [f"piece{k}" for k in range(len(asked))]
    for piece, variable in zip(pieces, asked, strict=True):
        nodes.append(helper.make_node("Reshape", [wanted[variable], "flat"], [piece], piece))
    nodes.append(helper.make_node("Concat", pieces, ["output"], "output", axis=0))
    sizes = {slot.variable: slot.size for part in parts for slot in (*part.outputs, *part.hidden)}
    graph = helper.make_graph(
        nodes,
        "composed",
        [helper.make_tensor_value_info("input", element, [size])],
        [helper.make_tensor_value_info("output", element, [sum(sizes[name] for name in asked)])],
        [*initializers, flat],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, (version, _) in imports.items()]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=max(_inlined(p.model).ir_version for p in parts))
    path = ", ".join(dict.fromkeys(part.model.path for part in parts))
    digest = combined_sha256([(part.name, part.model.sha256) for part in parts])
    others = tuple(dict.fromkeys(name for part in parts for name in (part.model.path, *part.model.others)))
    content, where = made.SerializeToString(), None if places is None else tuple(places)
    composed = ComposedModel(path, digest, content, others, tuple(parts), tuple(asked), where)
    _compare(composed)
    return composed


def _check(parts: Sequence[Part]) -> None:
    """Raise InputError where a part is not what is declared of it."""
    for part in parts:
        session, path = _session(part), part.model.path
        outputs = list(_inlined(part.model).graph.output)
        for what, declared, given in (
            ("inputs", part.inputs, session.get_inputs()),
            ("outputs", part.outputs, outputs),
        ):
            if len(declared) != len(given):
                raise InputError(f"network {part.name} has {len(declared)} {what}, {path} has {len(given)}")
        for slot, value in zip(part.inputs, session.get_inputs(), strict=True):
            if value.type not in _FLOATS:
                raise InputError(
                    f"{path}: its input {value.name!r} is a {value.type}: float32 and float64 are supported"
                )
            _file_shape(value.shape, slot)
    found = Parts(parts).tensors(np.zeros(sum(slot.size for part in parts for slot in part.inputs), np.float32))
    for part in parts:
        for slot in (*part.outputs, *part.hidden):
            shape = found[slot.variable].shape
            if _without_ones(shape) != _without_ones(slot.shape):
                raise InputError(
                    f"{slot.variable} of network {part.name} is declared as {list(slot.shape)}, "
                    f"in {part.model.path} it is {list(shape)}"
                )


def _element(parts: Sequence[Part]) -> int:
    """The one type of all inputs, as ONNX numbers it."""
    found = {value.type: part for part in parts for value in _session(part).get_inputs()}
    if len(found) > 1:
        kinds = " and ".join(f"{_FLOATS[kind][0]} ({part.name})" for kind, part in found.items())
        raise InputError(f"networks of different types cannot be asked about together yet: {kinds}")
    return _FLOATS[next(iter(found))][1]


def _merge_opsets(imports: dict[str, tuple[int, str]], model: Any, part: Part) -> None:
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        known = imports.setdefault(domain, (entry.version, part.name))
        if known[0] != entry.version:
            raise InputError(
                f"networks {known[1]} and {part.name} use different opsets, {known[0]} and {entry.version}: "
                "bring one to the other's with onnx.version_converter"
            )


def _compare(model: ComposedModel) -> None:
    """Raise if the composed model and its parts differ at some points by more than rounding."""
    from mipverify.network.replay import OnnxRuntimeReplay

    parts = PartsReplay(model)
    points = np.random.default_rng(0).normal(size=(_PROBES, parts.input_shape[0])).astype(np.float32)
    one, two = OnnxRuntimeReplay(ModelFile(model.path, model.sha256, model.content)).run(points), parts.run(points)
    scale = 1 + np.abs(two).max(initial=0.0, where=np.isfinite(two))
    if not np.allclose(one, two, rtol=_CLOSE, atol=_CLOSE * scale, equal_nan=True):
        raise InputError(f"{model.path}: composed into one model it computes something else")


def _session(part: Part) -> Any:
    """ONNX Runtime on the model of a part, its hidden tensors as outputs behind its own."""
    import onnxruntime
    from onnx.helper import make_empty_tensor_value_info

    model = _inlined(part.model)
    produced = {name for node in model.graph.node for name in node.output}
    for slot in part.hidden:
        if slot.tensor not in produced:
            raise InputError(f"{part.model.path}: has no tensor {slot.tensor!r}, which {slot.variable} stands for")
    known = {output.name for output in model.graph.output}
    wanted = dict.fromkeys(slot.tensor for slot in part.hidden)
    model.graph.output.extend(make_empty_tensor_value_info(name) for name in wanted if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # its errors have no base class of their own
        raise InputError(f"{part.model.path}: ONNX Runtime cannot load it: {runtime_text(error)}") from None


def _inlined(file: ModelFile) -> Any:
    from mipverify.network.model_file import parse
    from mipverify.network.onnx_reader import inlined

    model = inlined(parse(file), file.path)
    # Stored tensors may also be listed as inputs, which they are not.
    stored: Mapping[str, None] = dict.fromkeys(tensor.name for tensor in model.graph.initializer)
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def _file_shape(shape: Sequence[Any], slot: Slot) -> tuple[int, ...]:
    """The shape in which a file takes what is declared; sizes that it leaves open are as declared, or 1.

    Raises InputError where both do not fit.
    """
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    same = len(fixed) == len(slot.shape)
    filled = tuple((slot.shape[k] if same else 1) if size is None else size for k, size in enumerate(fixed))
    if _without_ones(filled) != _without_ones(slot.shape):
        raise InputError(f"{slot.variable} is declared as {list(slot.shape)}, the network takes {list(shape)}")
    return filled


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
