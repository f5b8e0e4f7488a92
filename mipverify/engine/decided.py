"""Choices that jump, where the input set decides them: their tensors become constants, and the rest can be read.

A comparison, or a cast to whole numbers or truth values, is no continuous function of the input, and refused as such.
Over an input set it may be constant: where bounds show that `x > 0.5` has one answer in the whole set, it is that
answer. The bounds are facts of the kernel about the part of the network before it. What comes of it stands for the
network in this set only, and witnesses are replayed on the file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.model_file import ModelFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mipverify.network import Network
    from mipverify.network.compose import ComposedModel
    from mipverify.specification import Specification

Interval = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
_LARGEST_EXACT = 2.0**24  # whole numbers up to it are float32 exactly
_FLOAT, _DOUBLE, _BOOL = 1, 11, 9  # element types as ONNX numbers them
_WHOLE = {2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 12: np.uint32, 13: np.uint64}


def decide_choices(model: ComposedModel, specification: Specification) -> ComposedModel | None:
    """The model with all choices replaced that bounds decide over the whole input set; None where there is none.

    An output of whole numbers or truth values is then cast to the type of the input.
    """
    from dataclasses import replace

    from mipverify.network.compose import PartsReplay
    from mipverify.network.model_file import parse
    from mipverify.network.onnx_reader import inlined
    from mipverify.network.ordering import ordered, reads

    low, high = _hull(specification)
    proto = inlined(parse(model), model.path)
    graph = proto.graph
    depends = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    element = next(value for value in graph.input if value.name in depends).type.tensor_type.elem_type
    decided = False
    for node in ordered(graph, model.path):
        if depends.isdisjoint(reads(node)) or node.op_type in ("Shape", "Size"):
            continue
        constant = _decided(proto, model, node, (low, high))
        if constant is None:
            depends.update(node.output)
            continue
        _replace(graph, node, constant)
        decided = True
    whole = graph.output[0].type.tensor_type.elem_type in {*_WHOLE, _BOOL}
    if whole:
        _cast_output(graph, element)
    if not (decided or whole):
        return None
    if (
        whole
        and np.abs(PartsReplay(model).run(low.astype(np.float32)[None]).astype(np.float64)).max(initial=0.0)
        > _LARGEST_EXACT
    ):
        return None  # it is constant, or cannot be read
    return replace(model, content=proto.SerializeToString(), within=(low, high))


def _hull(specification: Specification) -> Interval:
    """The smallest box around all cases, outward."""
    sides = [case.box.enclosure for case in specification.cases]
    return np.minimum.reduce([low for low, _ in sides]), np.maximum.reduce([high for _, high in sides])


def _decided(proto: Any, model: ModelFile, node: Any, box: Interval) -> NDArray[Any] | None:
    """What a node gives in the whole set, if it is a choice that the bounds of its operands decide."""
    if node.op_type in _COMPARISONS and node.domain in ("", "ai.onnx"):
        found = _bounds(proto, model, box, list(node.input))
        return None if found is None else _all_or_none(*_COMPARISONS[node.op_type](*found), np.bool_)
    if node.op_type == "Cast" and node.domain in ("", "ai.onnx"):
        to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
        if to == _BOOL or to in _WHOLE:
            found = _bounds(proto, model, box, list(node.input))
            if found is None:
                return None
            return _all_or_none(*_nonzero(*found), np.bool_) if to == _BOOL else _truncated(*found, _WHOLE[to])
    return None


def _bounds(proto: Any, model: ModelFile, box: Interval, names: Sequence[str]) -> Interval | None:
    """Bounds of a tensor, or of the difference of two, over the box; None where what leads to it cannot be read.

    They hold for evaluations in floating point, too, which choose for themselves: a rounding error that would not
    matter elsewhere may take the other way here. Of a difference only the sign is meant, which its own rounding keeps.
    """
    from mipverify.network.validation import points_of, validated
    from mipverify.presolve import crown
    from mipverify.proof.interval import interval

    try:
        parts = [part for name in names if (part := _leading_to(proto, model, [name])) is not None]
        network = parts[0] if len(names) == 1 else _leading_to(proto, model, names)
        if network is None or network.dropped:  # scores in place of what is compared
            return None
        # What only a choice reads is in no network that is compared later.
        validated(network, points_of([(box[0].astype(np.float32), box[1].astype(np.float32))]))
    except InputError:
        return None
    low, high = (side.reshape(1, *network.input_shape) for side in box)
    bounds = crown(interval(network, low, high))
    error = sum(_float_error(part, low, high) for part in parts)  # one number: operands may be of several shapes
    shape = network.output_shape
    lower, upper = (side[network.output].reshape(shape) for side in (bounds.lower, bounds.upper))
    return lower - error, upper + error


def _leading_to(proto: Any, model: ModelFile, names: Sequence[str]) -> Network | None:
    """The network of a tensor, or of the difference of two; None where it does not depend on the input.

    Raises InputError where it cannot be read.
    """
    import onnx

    from mipverify.network import load

    part = onnx.ModelProto()
    part.CopyFrom(proto)
    if len(names) == 1 and not _depends(proto.graph, names[0]):
        return None
    # A node of its own: an output that is the input itself, or constant, is none.
    made = "choice"
    part.graph.node.append(onnx.helper.make_node("Sub" if len(names) == 2 else "Identity", list(names), [made], made))
    del part.graph.output[:]
    element = proto.graph.input[0].type.tensor_type.elem_type
    part.graph.output.append(onnx.helper.make_tensor_value_info(made, element, None))
    return load(ModelFile(model.path, model.sha256, part.SerializeToString(), model.others))


def _depends(graph: Any, name: str) -> bool:
    """Whether a tensor depends on the graph's inputs."""
    from mipverify.network.ordering import reads

    made_by = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input} - constants
    pending, seen = [name], set()
    while pending:
        tensor = pending.pop()
        if tensor in inputs:
            return True
        if tensor not in seen and tensor in made_by:
            pending.extend(reads(made_by[tensor]))
        seen.add(tensor)
    return False


def _float_error(network: Network, low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """By how much an evaluation in float32 may be off the real-valued function over a box, at most."""
    from mipverify.network.rounding_error import error_bounds
    from mipverify.proof.interval import interval

    bounds = interval(network, low, high)
    sides = [np.concatenate(pair) for pair in zip(bounds.lower, bounds.upper, strict=True)]
    return float(error_bounds(network, sides, double=False, exact_moves=True)[network.output].max())


Answer = tuple["NDArray[np.bool_]", "NDArray[np.bool_]"]  # entries that are true, and that are false, in the whole set


def _greater(low: NDArray[Any], high: NDArray[Any]) -> Answer:
    return low > 0, high <= 0


def _not_less(low: NDArray[Any], high: NDArray[Any]) -> Answer:
    return low >= 0, high < 0


def _nonzero(low: NDArray[Any], high: NDArray[Any]) -> Answer:
    return (low > 0) | (high < 0), (low == 0) & (high == 0)


def _swapped(answer: Callable[..., Answer]) -> Callable[..., Answer]:
    return lambda low, high: answer(low, high)[::-1]


_COMPARISONS: dict[str, Callable[..., Answer]] = {
    "Greater": _greater,
    "GreaterOrEqual": _not_less,
    "Less": _swapped(_not_less),
    "LessOrEqual": _swapped(_greater),
    "Equal": _swapped(_nonzero),
}


def _all_or_none(true: NDArray[np.bool_], false: NDArray[np.bool_], kind: Any) -> NDArray[Any] | None:
    return true.astype(kind) if bool((true | false).all()) else None


def _truncated(low: NDArray[Any], high: NDArray[Any], kind: Any) -> NDArray[Any] | None:
    """The whole number next to zero, if it is the same for all values between two bounds."""
    one, two = np.trunc(low), np.trunc(high)
    limits = np.iinfo(kind)
    inside = (one > limits.min) & (one < limits.max) & (np.abs(one) < _LARGEST_EXACT)
    return one.astype(kind) if bool((inside & (one == two)).all()) else None


def _replace(graph: Any, node: Any, constant: NDArray[Any]) -> None:
    import onnx.numpy_helper

    at = next(k for k, other in enumerate(graph.node) if list(other.output) == list(node.output))
    del graph.node[at]
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(constant), node.output[0]))


def _cast_output(graph: Any, element: int) -> None:
    """Let the output be of the type of the input, whose floats stand for whole numbers exactly up to a size."""
    import onnx.helper

    output = graph.output[0]
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    graph.node.append(onnx.helper.make_node("Cast", [output.name], ["output.as_float"], "output.as_float", to=element))
    del graph.output[:]
    known = shape if all(shape) else None
    graph.output.append(onnx.helper.make_tensor_value_info("output.as_float", element, known))
