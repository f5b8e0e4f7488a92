"""Data movement: evaluated once on the positions of the entries, it becomes one index operator, or only a view."""

from __future__ import annotations

import math

import numpy as np

from mipverify.network.builder import Builder, Comparison, RewriteError, Tensor, Value, limited, positions
from mipverify.network.rewrites.registry import OnnxNode, axis_of, rewrite


@rewrite("Identity")
def identity(builder: Builder, node: OnnxNode) -> Tensor:
    """x itself."""
    return node.tensor(0)


@rewrite("Dropout")
def dropout(builder: Builder, node: OnnxNode) -> Tensor:
    """x itself: the network is in inference mode."""
    training = node.optional_constant(2, "training_mode")
    if training is not None and bool(training.any()):
        raise RewriteError("training_mode is set: export the model in evaluation mode")
    return node.tensor(0)


@rewrite("Cast")
def cast(builder: Builder, node: OnnxNode) -> Tensor | Comparison:
    """x itself, for casts between float32 and float64; a comparison stays one."""
    from onnx import TensorProto

    if node.get("to") not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        names = {number: name.lower() for name, number in TensorProto.DataType.items()}
        target = names.get(node.get("to"), "an unknown type")
        raise RewriteError(f"a cast to {target} changes the values: only float32 and float64 are supported")
    return node.comparison(0) if isinstance(node.inputs[0], Comparison) else node.tensor(0)


@rewrite("CastLike")
def cast_like(builder: Builder, node: OnnxNode) -> Tensor | Comparison | np.ndarray:
    """x itself, where the other operand is one of float32 or float64, too; a constant, where both hold its numbers."""
    like = node.present(1)
    if isinstance(like, np.ndarray):
        if like.dtype not in (np.float32, np.float64):
            raise RewriteError(f"a cast to {like.dtype} changes the values: only float32 and float64 are supported")
        return node.comparison(0) if isinstance(node.inputs[0], Comparison) else node.tensor(0)
    if isinstance(node.inputs[0], Comparison):
        return node.comparison(0)
    x = node.present(0)
    if isinstance(x, Tensor):
        return x
    # The type of the other operand is not known here. As float64 the numbers are what they are: no rule that goes by
    # what is the largest number of a type takes a bound of float32 for none.
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        exact = np.array_equal(wide.astype(np.float32).astype(np.float64), wide) and np.array_equal(
            wide.astype(x.dtype), x
        )
    if not exact:
        raise RewriteError("it may round a constant: not all of its numbers are those of float32")
    return wide


@rewrite("Flatten")
def flatten(builder: Builder, node: OnnxNode) -> Tensor:
    """Two axes: those before `axis`, those after."""
    x = node.tensor(0)
    axis = node.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return x.viewed((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rewrite("Reshape")
def reshape(builder: Builder, node: OnnxNode) -> Tensor:
    """Another shape; 0 keeps a size, -1 is inferred."""
    x = node.tensor(0)
    wanted = node.integers("shape", 1)
    if wanted is None:
        raise RewriteError("the shape is missing")
    if not node.get("allowzero", 0):
        if any(n == 0 and axis >= len(x.shape) for axis, n in enumerate(wanted)):
            raise RewriteError(f"shape {wanted} keeps an axis that {list(x.shape)} does not have")
        wanted = [x.shape[axis] if n == 0 else n for axis, n in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = math.prod(n for n in wanted if n != -1)
        if rest and x.size % rest == 0:
            wanted = [x.size // rest if n == -1 else n for n in wanted]
    if math.prod(wanted) != x.size or any(n < 1 for n in wanted):
        raise RewriteError(f"{list(x.shape)} cannot be reshaped to {wanted} (a batch size other than 1 in the file?)")
    return x.viewed(wanted)


@rewrite("Squeeze")
def squeeze(builder: Builder, node: OnnxNode) -> Tensor:
    """Axes of size 1 removed."""
    x = node.tensor(0)
    axes = node.integers("axes", 1)
    if axes is None:
        return x.viewed([size for size in x.shape if size != 1])
    places = {axis_of(axis, len(x.shape)) for axis in axes}
    if any(x.shape[axis] != 1 for axis in places):
        raise RewriteError(f"axes {sorted(places)} of {list(x.shape)} are not all of size 1")
    return x.viewed([size for axis, size in enumerate(x.shape) if axis not in places])


@rewrite("Unsqueeze")
def unsqueeze(builder: Builder, node: OnnxNode) -> Tensor:
    """Axes of size 1 inserted."""
    x = node.tensor(0)
    axes = node.integers("axes", 1) or []
    rank = len(x.shape) + len(axes)
    places = {axis_of(axis, rank) for axis in axes}
    rest = iter(x.shape)
    return x.viewed([1 if axis in places else next(rest) for axis in range(rank)])


@rewrite("Transpose")
def transpose(builder: Builder, node: OnnxNode) -> Tensor:
    """Axes exchanged."""
    x = node.tensor(0)
    return builder.move(x, np.transpose(positions(x.shape), node.get("perm")))


@rewrite("Concat")
def concat(builder: Builder, node: OnnxNode) -> Tensor:
    """Tensors and constants side by side."""
    parts = [node.present(i) for i in range(len(node.inputs))]
    return concatenated(builder, parts, axis_of(int(node.get("axis", 0)), len(parts[0].shape)))


def concatenated(builder: Builder, parts: list[Value], axis: int) -> Tensor:
    """Tensors and constants side by side along `axis`."""
    sizes = np.cumsum([0, *(math.prod(part.shape) for part in parts)])
    limited([int(sizes[-1])])
    where = [positions(part.shape) + start for part, start in zip(parts, sizes, strict=False)]
    return builder.join(parts, np.concatenate(where, axis))


@rewrite("Split")
def split(builder: Builder, node: OnnxNode) -> tuple[Tensor, ...]:
    """Consecutive parts along an axis."""
    x, outputs = node.tensor(0), len(node.proto.output)
    axis = axis_of(int(node.get("axis", 0)), len(x.shape))
    sizes = node.integers("split", 1)
    if sizes is None:
        parts = int(node.get("num_outputs", outputs))
        each = math.ceil(x.shape[axis] / parts)  # the last part is smaller where it does not divide
        sizes = [each] * (parts - 1) + [x.shape[axis] - each * (parts - 1)]
    if sum(sizes) != x.shape[axis]:
        raise RewriteError(f"sizes {sizes} do not add up to the {x.shape[axis]} entries along axis {axis}")
    where = np.split(positions(x.shape), np.cumsum(sizes)[:-1], axis=axis)
    return tuple(builder.move(x, indices) for indices in where)


@rewrite("Slice")
def slice_(builder: Builder, node: OnnxNode) -> Tensor:
    """A range with a step along each of some axes."""
    x = node.tensor(0)
    starts, ends = node.integers("starts", 1), node.integers("ends", 2)
    if starts is None or ends is None:
        raise RewriteError("starts or ends are missing")
    axes = node.integers("axes", 3) or list(range(len(starts)))
    steps = node.integers("steps", 4) or [1] * len(starts)
    return builder.move(x, sliced(positions(x.shape), starts, ends, axes, steps))


def sliced(x: np.ndarray, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> np.ndarray:
    """x[starts:ends:steps] along `axes`; bounds beyond an axis are clamped as ONNX does."""
    place = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        end_or_none = None if step < 0 and end < -size else end  # before the first entry, not counted from the end
        start_inside = max(start, -size)
        place[axis] = slice(start_inside, end_or_none, step)
    return x[tuple(place)]


@rewrite("Pad")
def pad(builder: Builder, node: OnnxNode) -> Tensor:
    """Entries added around the tensor (or, with negative counts, removed)."""
    x = node.tensor(0)
    pads, fill, axes = node.integers("pads", 1), node.optional_constant(2, "the fill value"), node.integers("axes", 3)
    if pads is None:
        raise RewriteError("pads are missing")
    value = float(node.get("value", 0.0) if fill is None else np.asarray(fill).reshape(()))
    places = list(range(len(x.shape))) if axes is None else [axis_of(axis, len(x.shape)) for axis in axes]
    widths = [(0, 0)] * len(x.shape)
    for i, axis in enumerate(places):
        widths[axis] = (pads[i], pads[i + len(places)])
    return padded(builder, x, widths, node.get("mode", "constant"), value)


def padded(builder: Builder, x: Tensor, widths: list[tuple[int, int]], mode: str, value: float = 0.0) -> Tensor:
    """x with `widths` (before, after) entries added along each axis."""
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise RewriteError(f"mode {mode!r} is not known")
    if any(max(0, -before) + max(0, -after) >= size for size, (before, after) in zip(x.shape, widths, strict=True)):
        raise RewriteError(f"pads {widths} leave nothing of a tensor of shape {list(x.shape)}")
    indices = positions(x.shape)
    crop = tuple(
        slice(max(0, -before), size - max(0, -after)) for size, (before, after) in zip(x.shape, widths, strict=True)
    )
    limited([max(1, size + before + after) for size, (before, after) in zip(x.shape, widths, strict=True)])
    grow = [(max(0, before), max(0, after)) for before, after in widths]
    if mode == "constant":
        return builder.move(x, np.pad(indices[crop], grow, constant_values=-1), value)
    return builder.move(x, np.pad(indices[crop], grow, mode=mode))  # type: ignore[call-overload]


@rewrite("Expand")
def expand(builder: Builder, node: OnnxNode) -> Tensor:
    """Repetition by the broadcasting rules."""
    x = node.tensor(0)
    wanted = node.constant(1, "the shape").reshape(-1).tolist()
    return builder.broadcast(x, np.broadcast_shapes(x.shape, tuple(wanted)))


@rewrite("Tile")
def tile(builder: Builder, node: OnnxNode) -> Tensor:
    """Repetition a number of times along each axis."""
    x = node.tensor(0)
    repeats = node.constant(1, "repeats").reshape(-1).tolist()
    limited([x.size, *repeats])
    return builder.move(x, np.tile(positions(x.shape), repeats))


@rewrite("Shape")
def shape(builder: Builder, node: OnnxNode) -> Value:
    """The shape of a tensor is a constant."""
    x = node.tensor(0)
    sizes = np.array(x.shape, dtype=np.int64)
    return sizes[node.get("start", 0) : node.get("end", len(x.shape))]


@rewrite("Size")
def size(builder: Builder, node: OnnxNode) -> Value:
    """The number of entries of a tensor is a constant."""
    return np.array(node.tensor(0).size, dtype=np.int64)
