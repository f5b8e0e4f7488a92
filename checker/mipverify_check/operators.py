"""The operators of ONNX as affine nodes and ReLUs, and what depends on constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from mipverify_check.arithmetic import Arithmetic
from mipverify_check.builder import Builder, OnnxNode, Value
from mipverify_check.ends import last_layer, ranked
from mipverify_check.errors import BadInputError
from mipverify_check.float32 import counted
from mipverify_check.movement import change_of, concat, pad, split
from mipverify_check.network import Network, Tensor
from mipverify_check.onnx_file import FLOATS, STANDARD, OnnxFile
from mipverify_check.windows import average_pool, conv, conv_transpose, global_pool, max_pool, reduced

Rule = Callable[[Builder, OnnxNode], Any]


def lowered(file: OnnxFile, arithmetic: Arithmetic) -> Network:
    """The network in a file. Raises BadInputError for operators that are not supported, by name and position."""
    builder = Builder(arithmetic)
    values: dict[str, Value] = {**file.constants, file.input_name: builder.input(file.input_shape)}
    relus: dict[str, list[int]] = {}
    end = last_layer(file)
    unrounded = "it does not take float32" if file.input_type != onnx.TensorProto.FLOAT else None
    for i, proto in enumerate(file.nodes[:end]):
        begin = len(builder.nodes)
        node = OnnxNode(proto, [values[name] if name else None for name in proto.input], file.opset)
        builder.made = []
        try:
            results = _outputs(builder, node)
        except Exception as error:  # noqa: BLE001  # what goes wrong in numpy, where shapes do not fit, is of many kinds
            raise BadInputError(f"{file.path}: node {i} ({proto.op_type}): {error}") from None
        builder.nodes[begin:], reason = counted(node, builder.nodes[begin:])
        unrounded = unrounded or (None if reason is None else f"node {i} ({proto.op_type}): {reason}")
        values |= {name: value for name, value in zip(proto.output, results, strict=False) if name}
        missing = [name for later in file.nodes[i + 1 : end] for name in later.input if name and name in proto.output]
        if any(name not in values for name in missing):
            raise BadInputError(f"{file.path}: node {i} ({proto.op_type}): a second output is not supported")
        if builder.made:
            relus[proto.output[0]] = builder.made
    output = values.get(file.nodes[end].input[0] if end < len(file.nodes) else file.output_name)
    if not isinstance(output, Tensor):
        raise BadInputError(f"{file.path}: the output does not depend on the input")
    monotone = ranked(file, end, output)
    unrounded = f"its last {monotone[0]} rounds, too" if monotone and monotone[0] != "ArgMax" else unrounded
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return Network(arithmetic, builder.nodes, output, tensors, relus, monotone, unrounded)


def _outputs(builder: Builder, node: OnnxNode) -> list[Any]:
    if node.proto.domain not in STANDARD:
        raise BadInputError(f"it belongs to {node.proto.domain!r}, not to the standard operators")
    if node.operator == "Split":
        return list(split(builder, node))
    if node.operator in ("Shape", "Size"):
        shape = node.value(0).shape
        sizes = np.asarray(shape, dtype=np.int64)[node.get("start", 0) : node.get("end")]
        return [sizes if node.operator == "Shape" else np.asarray(math.prod(shape), dtype=np.int64)]
    if all(v is None or isinstance(v, np.ndarray) for v in node.inputs) and node.operator in CONSTANT_RULES:
        parts = [v for v in node.inputs if isinstance(v, np.ndarray)]
        return [np.asarray(CONSTANT_RULES[node.operator](node, *parts))]
    change = change_of(node, len(node.value(0).shape)) if node.inputs else None
    if change is not None:
        return [builder.move(node.value(0), change)]
    rule = RULES.get(node.operator)
    if rule is None:
        raise BadInputError("this operator is not supported")
    return [rule(builder, node)]


def _affine_of_matmul(builder: Builder, x: Tensor, weight: np.ndarray, left: bool) -> Tensor:
    """x W, or W x for `left`, with the rules of numpy.matmul for stacks of matrices."""
    if 1 in (len(x.shape), weight.ndim):
        if len(x.shape) == 1:
            raise BadInputError("a product with a vector")
        wide = _affine_of_matmul(builder, x, weight[None] if left else weight[:, None], left)
        axis = -2 if left else -1
        return Tensor(wide.node, tuple(np.delete(wide.shape, axis)))
    stack = np.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
    if (weight.shape[-1] if left else weight.shape[-2]) != (x.shape[-2] if left else x.shape[-1]):
        raise BadInputError(f"shapes {list(x.shape)} and {list(weight.shape)} do not fit")
    index = np.arange(x.size).reshape(x.shape)
    index, weight = (index, weight) if left else (np.swapaxes(index, -1, -2), np.swapaxes(weight, -1, -2))
    inner, places, units = index.shape[-2], index.shape[-1], weight.shape[-2]
    if math.prod(weight.shape[:-2]) == 1:  # one weight for all: their places side by side
        index = np.broadcast_to(index, (*stack, inner, places)).reshape(-1, inner, places)
        index = index.transpose(1, 0, 2).reshape(inner, -1)
        linear = builder.matrix(x, weight.reshape(units, inner), index)
        count = math.prod(stack)
        flat = builder.affine((units, count, places), [(x, linear)])
        order = np.arange(flat.size).reshape(flat.shape).transpose((1, 0, 2) if left else (1, 2, 0))
    else:
        index = np.broadcast_to(index, (*stack, inner, places)).reshape(-1, inner, places)
        weight = np.broadcast_to(weight, (*stack, units, inner)).reshape(-1, units, inner)
        flat = builder.affine((len(weight), units, places), [(x, builder.product(x, weight, index))])
        order = np.arange(flat.size).reshape(flat.shape)
        order = order if left else order.transpose(0, 2, 1)
    return builder.gather(flat, order, (*stack, units, places) if left else (*stack, places, units))


def _matmul(builder: Builder, node: OnnxNode) -> Tensor:
    left = not isinstance(node.value(0), Tensor)
    return _affine_of_matmul(builder, node.tensor(1 if left else 0), node.weights(0 if left else 1), left)


def _gemm(builder: Builder, node: OnnxNode) -> Tensor:
    x, weight = node.tensor(0), node.weights(1)
    alpha, beta = (np.float32(node.get(name, 1.0)) for name in ("alpha", "beta"))
    if len(x.shape) != 2 or weight.ndim != 2:
        raise BadInputError("operands that are no matrices")
    offset = None if node.optional(2) is None else node.weights(2)
    for factor, array in ((alpha, weight), (beta, offset)):
        if factor != 1 and array is not None and array.dtype == np.float64:
            raise BadInputError("alpha and beta other than 1 are supported for float32 alone")
    weight = weight.T if node.get("transB", 0) else weight
    weight = weight if alpha == 1 else weight.astype(np.float64) * np.float64(alpha)  # exact: 24 + 24 bits
    offset = offset if beta == 1 or offset is None else offset.astype(np.float64) * np.float64(beta)
    moved = builder.move(x, np.transpose) if node.get("transA", 0) else x
    assert isinstance(moved, Tensor)
    result = _affine_of_matmul(builder, moved, weight, left=False)
    if offset is None:
        return result
    if np.broadcast_shapes(result.shape, offset.shape) != result.shape:
        raise BadInputError(f"an offset of shape {list(offset.shape)}")
    return builder.sum([(result, 1), (offset, 1)])


def _sum(signs: tuple[int, ...] | None) -> Rule:
    def rule(builder: Builder, node: OnnxNode) -> Tensor:
        count = len(node.inputs)
        terms = [(node.value(i), s) for i, s in zip(range(count), signs or (1,) * count, strict=True)]
        if node.operator == "Mean":
            return builder.sum(terms, builder.inverse(count), 1)
        return builder.sum(terms)

    return rule


def _mul(builder: Builder, node: OnnxNode) -> Tensor:
    place = 0 if isinstance(node.value(0), Tensor) else 1
    factor = node.weights(1 - place)
    x = builder.spread(node.tensor(place), np.broadcast_shapes(node.tensor(place).shape, factor.shape))
    return builder.affine(x.shape, [(x, builder.scaled(x, factor))])


def _div(builder: Builder, node: OnnxNode) -> Tensor:
    factor = node.weights(1)
    x = builder.spread(node.tensor(0), np.broadcast_shapes(node.tensor(0).shape, factor.shape))
    return builder.affine(x.shape, [(x, builder.scaled(x, builder.inverse(factor), 1))])


def _neg(builder: Builder, node: OnnxNode) -> Tensor:
    return builder.sum([(node.tensor(0), -1)])


def _batch_normalization(builder: Builder, node: OnnxNode) -> Tensor:
    """(x - mean) scale / sqrt(var + epsilon) + offset; the root is rational for no network that is worth one."""
    x, (scale, offset, mean, var) = node.tensor(0), (node.weights(i) for i in range(1, 5))
    if builder.arithmetic.exact:
        raise BadInputError("BatchNormalization has irrational weights: check without --exact")
    if node.get("training_mode", 0) or node.get("spatial", 1) != 1:
        raise BadInputError("a mode that is not supported")
    deviation = np.sqrt(var.astype(np.float64) + np.float64(np.float32(node.get("epsilon", 1e-5))))
    if not (deviation > 0).all():
        raise BadInputError("a variance that is not positive")
    shape = (-1, *[1] * (len(x.shape) - 2))
    centered = builder.sum([(x, 1), (mean.reshape(shape), -1)])
    factor = builder.scaled(x, (scale.astype(np.float64) / deviation).reshape(shape), 3)
    return builder.affine(x.shape, [(centered, factor)], offset.reshape(shape))


def _relu(builder: Builder, node: OnnxNode) -> Tensor:
    return builder.relu(node.tensor(0))


def _leaky(builder: Builder, node: OnnxNode) -> Tensor:
    """slope x + (1 - slope) relu(x)."""
    x = node.tensor(0)
    given = node.weights(1) if node.operator == "PRelu" else np.float32(node.get("alpha", 0.01))
    slope = builder.numbers(np.broadcast_to(given, x.shape))
    active = builder.relu(x)
    rest = builder.scaled(x, builder.arithmetic.array(1) - slope, 1)
    return builder.affine(x.shape, [(x, builder.scaled(x, slope)), (active, rest)])


def _abs(builder: Builder, node: OnnxNode) -> Tensor:
    """2 relu(x) - x."""
    x = node.tensor(0)
    active = builder.relu(x)
    return builder.affine(x.shape, [(active, builder.scaled(x, np.float64(2))), (x, builder.scaled(x, np.float64(-1)))])


def _clip(builder: Builder, node: OnnxNode) -> Tensor:
    """low + relu(x - low) - relu(x - high), or the constant high where the bounds cross."""
    x, bounds = node.tensor(0), []
    for i, name in ((1, "min"), (2, "max")):
        given = node.optional_constant(i) if node.opset >= 11 else node.get(name)
        bound = None if given is None else np.asarray(np.float32(given) if isinstance(given, float) else given)
        if bound is not None and (bound.size != 1 or bound.dtype not in FLOATS):
            raise BadInputError(f"{name} is not one number")
        bounds.append(None if bound is None else bound.reshape(()))
    return _clipped(builder, x, *bounds)


def _clipped(builder: Builder, x: Tensor, low: np.ndarray | None, high: np.ndarray | None) -> Tensor:
    low, high = _acting(low, 1), _acting(high, -1)
    if low is not None and high is not None:
        if low >= high:
            return builder.affine(x.shape, [], high)
        above = [builder.relu(builder.sum([(x, 1), (bound, -1)])) for bound in (low, high)]
        return builder.sum([(above[0], 1), (above[1], -1), (low, 1)])
    return _bounded(builder, _bounded(builder, x, low, 1), high, -1)


def _acting(bound: np.ndarray | None, sign: int) -> np.ndarray | None:
    """None for bounds that never act: the lowest number of their type for sign 1, the highest for sign -1."""
    if bound is None:
        return None
    limits = np.finfo(bound.dtype)
    never = (bound <= limits.min) if sign > 0 else (bound >= limits.max)
    if never.all():
        return None
    if never.any() or (np.abs(bound) >= 2.0**24).any():
        raise BadInputError("bounds from 2^24 on, or that differ in whether they act, are not supported")
    return bound


def _bounded(builder: Builder, x: Tensor, bound: np.ndarray | None, sign: int) -> Tensor:
    """max(x, bound) = bound + relu(x - bound) for sign 1, min(x, bound) = bound - relu(bound - x) for sign -1."""
    if bound is None:
        return x
    beyond = builder.relu(builder.sum([(x, sign), (bound, -sign)]))
    return builder.sum([(beyond, sign), (bound, 1)])


def _extremum(builder: Builder, node: OnnxNode) -> Tensor:
    """Maximum or minimum of tensors in a tournament, then against the constants."""
    sign, values = (1 if node.operator == "Max" else -1), [node.value(i) for i in range(len(node.inputs))]
    shape = np.broadcast_shapes(*(v.shape for v in values))
    tensors = [builder.spread(v, shape) for v in values if isinstance(v, Tensor)]
    while len(tensors) > 1:
        pairs = [tensors[i : i + 2] for i in range(0, len(tensors), 2)]
        tensors = [_larger(builder, pair[0], pair[1], sign) if len(pair) == 2 else pair[0] for pair in pairs]
    constants = [np.broadcast_to(v, shape) for v in values if not isinstance(v, Tensor)]
    if not constants:
        return tensors[0]
    bound = (np.maximum if sign > 0 else np.minimum).reduce(constants)
    return _bounded(builder, tensors[0], _acting(bound, sign), sign)


def _larger(builder: Builder, a: Tensor, b: Tensor, sign: int) -> Tensor:
    return builder.sum([(b, 1), (builder.relu(builder.sum([(a, sign), (b, -sign)])), sign)])


def _hard_sigmoid(builder: Builder, node: OnnxNode) -> Tensor:
    x, alpha, beta = node.tensor(0), np.float32(node.get("alpha", 0.2)), np.float32(node.get("beta", 0.5))
    line = builder.affine(x.shape, [(x, builder.scaled(x, alpha))], beta)
    return _clipped(builder, line, np.asarray(np.float32(0)), np.asarray(np.float32(1)))


def _cast(builder: Builder, node: OnnxNode) -> Tensor:
    """Real-valued, casts between float32 and float64 change nothing; others do."""
    types = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if node.operator == "CastLike":
        like = node.value(1)
        allowed = isinstance(like, Tensor) or like.dtype in FLOATS[1:]
    else:
        allowed = node.get("to") in types
    if not allowed:
        raise BadInputError("a cast to another type than float32 and float64 changes the values")
    return node.tensor(0)


def _reduce(builder: Builder, node: OnnxNode) -> Tensor:
    x, axes = node.tensor(0), node.integers(1, "axes")
    if axes is None or not axes:
        if node.get("noop_with_empty_axes", 0) == 1:
            return x
        axes = list(range(len(x.shape)))
    return reduced(builder, x, axes, node.get("keepdims", 1) == 1, node.operator.removeprefix("Reduce"))


RULES: dict[str, Rule] = {
    "Abs": _abs,
    "Add": _sum((1, 1)),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Div": _div,
    "Gemm": _gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "Max": _extremum,
    "MaxPool": max_pool,
    "Mean": _sum(None),
    "Min": _extremum,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _leaky,
    "Pad": pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceSum": _reduce,
    "Relu": _relu,
    "Sub": _sum((1, -1)),
    "Sum": _sum(None),
}


def _constant(node: OnnxNode) -> np.ndarray:
    for name, kind in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if node.get(name) is not None:
            return np.asarray(node.get(name), dtype=kind)
    value = node.get("value")
    if not isinstance(value, np.ndarray):
        raise BadInputError("a constant of a kind that is not supported")
    return value


def _constant_of_shape(node: OnnxNode, shape: np.ndarray) -> np.ndarray:
    value = node.get("value", np.zeros(1, np.float32))
    if math.prod(int(s) for s in shape) > 2**24:
        raise BadInputError("a constant that is too large")
    return np.full(tuple(int(s) for s in shape), value.reshape(-1)[0], value.dtype)


def _constant_cast(node: OnnxNode, x: np.ndarray) -> np.ndarray:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.get("to")))
    if kind not in FLOATS and kind.kind not in "iub":
        raise BadInputError(f"a cast to {kind}")
    return x.astype(kind)


def _quotient(node: OnnxNode, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f":  # integers are divided towards zero
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), dtype=a.dtype)
    return np.asarray(a / b)


def _range(node: OnnxNode, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    if start.dtype.kind not in "iu" or abs(int(limit) - int(start)) > 2**24:
        raise BadInputError("a range that is not supported")
    return np.arange(int(start), int(limit), int(delta), dtype=start.dtype)


# Computed once, in the file's own element types.
CONSTANT_RULES: dict[str, Callable[..., np.ndarray]] = {
    "Add": lambda node, a, b: a + b,
    "Cast": _constant_cast,
    "Concat": lambda node, *parts: np.concatenate(parts, node.get("axis")),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _quotient,
    "Mul": lambda node, a, b: a * b,
    "Neg": lambda node, a: -a,
    "Range": _range,
    "Sqrt": lambda node, a: np.sqrt(a),
    "Sub": lambda node, a, b: a - b,
    "Where": lambda node, c, a, b: np.asarray(np.where(c, a, b)),
    "Equal": lambda node, a, b: a == b,
}
