"""Operators that only move entries: functions of arrays, for constants and for positions of entries alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from mipverify_check.builder import Builder, OnnxNode, Value
from mipverify_check.errors import BadInputError
from mipverify_check.maps import Gather
from mipverify_check.network import Tensor

Change = Callable[[np.ndarray], np.ndarray]


def change_of(node: OnnxNode, rank: int) -> Change | None:
    """What a node does to the entries of its first operand, which has `rank` axes; None if it is no such operator."""
    rule = CHANGES.get(node.operator)
    return None if rule is None else rule(node, rank)


def _axis(node: OnnxNode, rank: int, default: int) -> int:
    axis = int(node.get("axis", default))
    if not -rank <= axis <= rank:
        raise BadInputError(f"axis {axis} of {rank}")
    return axis + rank if axis < 0 else axis


def _flatten(node: OnnxNode, rank: int) -> Change:
    axis = _axis(node, rank, 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _reshape(node: OnnxNode, rank: int) -> Change:
    wanted = node.integers(1, "shape")
    if wanted is None:
        raise BadInputError("the shape is missing")
    keep = not node.get("allowzero", 0)
    return lambda x: x.reshape([x.shape[i] if w == 0 and keep else w for i, w in enumerate(wanted)])


def _squeeze(node: OnnxNode, rank: int) -> Change:
    axes = node.integers(1, "axes")
    if axes is not None and not axes:
        raise BadInputError("a list of no axes, which readers disagree about")
    return lambda x: np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze(node: OnnxNode, rank: int) -> Change:
    axes = node.integers(1, "axes")
    if axes is None:
        raise BadInputError("the axes are missing")
    return lambda x: np.expand_dims(x, tuple(axes))


def _transpose(node: OnnxNode, rank: int) -> Change:
    order = node.get("perm")
    return lambda x: np.transpose(x, order)


def _gather(node: OnnxNode, rank: int) -> Change:
    axis, index = _axis(node, rank, 0), node.constant(1)
    return lambda x: np.take(x, index, axis=axis, mode="raise")


def _slice(node: OnnxNode, rank: int) -> Change:
    starts, ends, axes = (node.integers(i, name) for i, name in ((1, "starts"), (2, "ends"), (3, "axes")))
    steps = node.integers(4, "steps")
    if starts is None or ends is None:
        raise BadInputError("starts or ends are missing")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise BadInputError("starts, ends, axes and steps do not fit")
    if any(step < 0 and end >= 2**31 - 1 for end, step in zip(ends, steps, strict=True)):
        raise BadInputError("a slice backward to the largest integer, which readers disagree about")

    def change(x: np.ndarray) -> np.ndarray:
        cut = [slice(None)] * x.ndim
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            size = x.shape[axis]
            start, end = (v + size if v < 0 else v for v in (start, end))
            # Ends before the first entry stop at it; numpy would count them from the back again.
            low = 0 if step > 0 else -1
            start, end = min(max(start, 0), size if step > 0 else size - 1), min(max(end, low), size)
            cut[axis] = slice(start, None if end == -1 else end, step)
        return x[tuple(cut)]

    return change


def _expand(node: OnnxNode, rank: int) -> Change:
    shape = tuple(node.integers(1, "shape") or ())
    return lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, shape))


def _tile(node: OnnxNode, rank: int) -> Change:
    repeats = node.integers(1, "repeats") or []
    return lambda x: np.tile(x, repeats)


def _depth_to_space(node: OnnxNode, rank: int) -> Change:
    b, crd = int(node.get("blocksize", 0)), node.get("mode", "DCR") == "CRD"

    def change(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        parts = x.reshape(n, c // b**2, b, b, h, w) if crd else x.reshape(n, b, b, c // b**2, h, w)
        order = (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2)
        return parts.transpose(order).reshape(n, c // b**2, h * b, w * b)

    return change


def _space_to_depth(node: OnnxNode, rank: int) -> Change:
    b = int(node.get("blocksize", 0))

    def change(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)

    return change


def _identity(node: OnnxNode, rank: int) -> Change:
    training = node.optional_constant(2) if node.operator == "Dropout" else None
    if training is not None and training.any():
        raise BadInputError("Dropout in training mode")
    return lambda x: x


CHANGES: dict[str, Callable[[OnnxNode, int], Change]] = {
    "Identity": _identity,
    "Dropout": _identity,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Gather": _gather,
    "Slice": _slice,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}


def concat(builder: Builder, node: OnnxNode) -> Value:
    """Tensors and constants one behind the other along an axis."""
    values = [node.value(i) for i in range(len(node.inputs))]
    axis = _axis(node, len(values[0].shape), 1)
    if all(isinstance(v, np.ndarray) for v in values):
        return np.concatenate([v for v in values if isinstance(v, np.ndarray)], axis)
    # Where each entry comes from: the position in all values laid end to end.
    starts = np.cumsum([0] + [v.size for v in values])
    places = np.concatenate(
        [s + np.arange(v.size).reshape(v.shape) for s, v in zip(starts, values, strict=False)], axis
    )
    terms, bias = [], np.zeros(places.shape)
    for start, value in zip(starts, values, strict=False):
        own = (places >= start) & (places < start + value.size)
        if isinstance(value, Tensor):
            terms.append((value, Gather(np.where(own, places - start, -1), value.size)))
        else:
            bias[own] = value.reshape(-1)[places[own] - start]
    return builder.affine(places.shape, terms, bias if bias.any() else None)


def split(builder: Builder, node: OnnxNode) -> list[Value]:
    """Pieces along an axis: of the given sizes, or equal ones."""
    x = node.value(0)
    axis, sizes, count = _axis(node, len(x.shape), 0), node.integers(1, "split"), len(node.proto.output)
    if sizes is None:
        each = math.ceil(x.shape[axis] / count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise BadInputError(f"pieces {sizes} of {x.shape[axis]}")
    pieces = np.split(np.arange(x.shape[axis]), np.cumsum(sizes)[:-1])
    return [builder.move(x, partial(np.take, indices=piece, axis=axis)) for piece in pieces]


def pad(builder: Builder, node: OnnxNode) -> Value:
    """More entries before and behind: a constant, or entries repeated; negative pads take entries away."""
    x, pads, mode = node.value(0), node.integers(1, "pads"), node.get("mode", "constant")
    rank, axes = len(x.shape), node.integers(3, "axes")
    axes = list(range(rank)) if axes is None else [a % rank for a in axes]
    if pads is None or len(pads) != 2 * len(axes) or mode not in ("constant", "edge", "reflect"):
        raise BadInputError(f"pads {pads} in mode {mode}")
    filling = node.optional_constant(2) if node.opset >= 11 else np.asarray(np.float32(node.get("value", 0.0)))
    number = 0 if filling is None else filling.reshape(-1)[0]
    width = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        width[axis] = (pads[i], pads[i + len(axes)])
    if any(max(0, -b) + max(0, -e) > s for (b, e), s in zip(width, x.shape, strict=True)):
        raise BadInputError("pads that take away more entries than there are")
    cut = tuple(slice(max(0, -b), s - max(0, -e)) for (b, e), s in zip(width, x.shape, strict=True))
    width = [(max(0, b), max(0, e)) for b, e in width]
    if mode != "constant":
        return builder.move(x, lambda a: np.pad(a[cut], width, mode=mode))
    if isinstance(x, np.ndarray):
        return np.pad(x[cut], width, constant_values=number)
    index = np.pad(np.arange(x.size).reshape(x.shape)[cut], width, constant_values=-1)
    bias = np.where(index < 0, np.float64(number), 0.0) if number else None
    return builder.affine(index.shape, [(x, Gather(index, x.size))], bias)
