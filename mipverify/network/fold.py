"""Evaluates ONNX nodes that depend on constants only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mipverify.network.alone import run_alone
from mipverify.network.builder import RewriteError, limited
from mipverify.network.onnx_reader import check_type, constant_array, sparse_array
from mipverify.network.rewrites.registry import OnnxNode, axis_of
from mipverify.network.rewrites.shape import sliced
from mipverify.network.runtime_text import runtime_text


def evaluate(node: OnnxNode) -> tuple[np.ndarray, ...]:
    """The outputs of a node all of whose inputs are constants, as ONNX computes them (float32 stays float32)."""
    simple = _SIMPLE.get(node.operator)
    outputs = (np.asarray(simple(node)),) if simple else _by_runtime(node)
    for output in outputs:
        if output.dtype.kind == "f" and np.isnan(output).any():
            raise RewriteError("its value, a constant, holds NaN")
    return outputs


def _check_size(node: OnnxNode) -> None:
    """Refuse what would make a huge tensor of small ones; raises RewriteError."""
    arrays = [value for value in node.inputs if isinstance(value, np.ndarray)]
    shapes = [value.shape for value in arrays]
    if node.operator == "Range":
        start, stop, step = (_array(node, i).reshape(-1)[:1].astype(np.float64) for i in range(3))
        limited([math.ceil(min(abs(float(n)), 2.0**40)) for n in (stop - start) / step if np.isfinite(n)])
    elif node.operator == "Expand":
        limited(np.broadcast_shapes(shapes[0], tuple(int(n) for n in arrays[1].reshape(-1))))
    elif node.operator == "Tile":
        limited([*shapes[0], *(int(n) for n in arrays[1].reshape(-1))])
    elif node.operator == "Pad":
        pads = [abs(n) for n in node.integers("pads", 1) or []]
        grown = list(shapes[0])
        for i, axis in enumerate(node.integers("axes", 3) or range(len(pads) // 2)):
            grown[axis] += pads[i] + pads[i + len(pads) // 2]
        limited(grown)
    elif node.operator == "OneHot":
        limited([*shapes[0], int(arrays[1].reshape(-1)[0])])
    elif node.operator == "MatMul" and min(len(shape) for shape in shapes) > 1:
        left, right = shapes
        limited([*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1]])
    elif node.operator in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "Equal"):
        limited(np.broadcast_shapes(*shapes))


def _by_runtime(node: OnnxNode) -> tuple[np.ndarray, ...]:
    """The general case, by ONNX Runtime itself (slow to start, hence not the first choice)."""
    _check_size(node)
    try:
        return run_alone(node)
    except Exception as error:  # noqa: BLE001  # it has a class for each of its reasons
        raise RewriteError(
            f"it reads only constants, but ONNX Runtime cannot evaluate it: {runtime_text(error)}"
        ) from None


def _constant(node: OnnxNode) -> np.ndarray:
    for name, value in node.attributes.items():
        if name == "value":
            try:
                return constant_array(value)
            except ValueError as error:
                raise RewriteError(str(error)) from None
        if name == "sparse_value":
            try:
                return sparse_array(value)
            except ValueError as error:
                raise RewriteError(str(error)) from None
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    raise RewriteError("only constants of numbers are supported")


def _constant_of_shape(node: OnnxNode) -> np.ndarray:
    value = node.get("value")
    fill = np.zeros(1, np.float32) if value is None else constant_array(value)
    return np.full(limited(_array(node, 0).reshape(-1).tolist()), fill.reshape(()))


def _cast(node: OnnxNode) -> np.ndarray:
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        check_type(node.get("to", 0))
    except ValueError as error:
        raise RewriteError(str(error)) from None
    return _array(node, 0).astype(tensor_dtype_to_np_dtype(node.get("to")))


def _dequantized(node: OnnxNode) -> np.ndarray:
    """(x - zero point) * scale, rounded to the type of the scale as ONNX Runtime does."""
    x, scale, zero = _array(node, 0), _array(node, 1), node.optional_constant(2, "the zero point")
    if scale.dtype not in (np.float32, np.float64) or node.get("output_dtype", 0):
        raise RewriteError("only float32 scales are supported")
    if scale.ndim or scale.size > 1:
        axis, block = axis_of(int(node.get("axis", 1)), x.ndim), int(node.get("block_size", 0))
        scale = _along(scale, x.shape, axis, block)
        zero = None if zero is None else _along(zero, x.shape, axis, block)
    centered = x.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
    return centered.astype(scale.dtype) * scale


def _along(values: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Numbers for each position, or each block of positions, along `axis`, so that they broadcast to `shape`."""
    if block:
        return np.repeat(values, block, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _slice(node: OnnxNode) -> np.ndarray:
    starts, ends = node.integers("starts", 1) or [], node.integers("ends", 2) or []
    axes = node.integers("axes", 3) or list(range(len(starts)))
    return sliced(_array(node, 0), starts, ends, axes, node.integers("steps", 4) or [1] * len(starts))


def _reshape(node: OnnxNode) -> np.ndarray:
    x, shape = _array(node, 0), node.integers("shape", 1) or []
    if not node.get("allowzero", 0):
        shape = [x.shape[axis] if n == 0 else n for axis, n in enumerate(shape)]
    return x.reshape(shape)


def _squeeze(node: OnnxNode) -> np.ndarray:
    axes = node.integers("axes", 1)
    return np.squeeze(_array(node, 0), None if axes is None else tuple(axes))


def _array(node: OnnxNode, index: int) -> np.ndarray:
    return node.constant(index, f"input {index}")


_SIMPLE: dict[str, Callable[[OnnxNode], Any]] = {
    "Cast": _cast,
    "Concat": lambda node: np.concatenate([_array(node, i) for i in range(len(node.inputs))], node.get("axis", 0)),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantized,
    "Gather": lambda node: np.take(_array(node, 0), _array(node, 1).astype(np.int64), axis=node.get("axis", 0)),
    "Identity": lambda node: _array(node, 0),
    "Reshape": _reshape,
    "Shape": lambda node: np.array(_array(node, 0).shape, np.int64)[node.get("start", 0) : node.get("end")],
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": lambda node: np.transpose(_array(node, 0), node.get("perm")),
    "Unsqueeze": lambda node: np.expand_dims(_array(node, 0), tuple(node.integers("axes", 1) or ())),
}
