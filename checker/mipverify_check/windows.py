"""Convolutions and pooling: where windows lie, read from the ONNX operator texts, and what is computed in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipverify_check.builder import Builder, OnnxNode, Value
from mipverify_check.errors import BadInputError
from mipverify_check.maps import transposed
from mipverify_check.network import Tensor

LARGEST_INDEX = 2**26  # window entries


def _numbers(node: OnnxNode, name: str, axes: int, default: int = 1) -> list[int]:
    found = [int(v) for v in node.get(name, [default] * axes)]
    if len(found) != axes or min(found) < default or max(found) > 2**20:
        raise BadInputError(f"{name} {found} for {axes} axes")
    return found


def _places(
    node: OnnxNode, sizes: Sequence[int], kernel: Sequence[int], ceil: bool
) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Along each axis: the coordinates (windows, kernel) that windows touch, negative in the padding; and the pads."""
    axes = len(sizes)
    strides, dilations = _numbers(node, "strides", axes), _numbers(node, "dilations", axes)
    pads, auto = _numbers(node, "pads", 2 * axes, 0), node.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise BadInputError(f"auto_pad {auto!r}")
    found, used = [], []
    for i, (size, k, stride, dilation) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        extent = dilation * (k - 1) + 1
        before, after = (pads[i], pads[i + axes]) if auto == "NOTSET" else (0, 0)
        if auto.startswith("SAME"):
            total = (-(-size // stride) - 1) * stride + extent - size
            if total < -1:
                raise BadInputError("auto_pad SAME with a stride that leaves out entries, which readers disagree about")
            total = max(0, total)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        room = size + before + after - extent
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= size + before:
            count -= 1  # a window that begins in the padding behind is none
        if count < 1:
            raise BadInputError(f"the window {list(kernel)} does not fit into {list(sizes)}")
        if count * k > LARGEST_INDEX:
            raise BadInputError("an operator needs too much memory")
        found.append(np.arange(count)[:, None] * stride - before + np.arange(k)[None] * dilation)
        used.append((before, after))
    return found, used


def _positions(places: Sequence[np.ndarray], sizes: Sequence[int], channels: int) -> np.ndarray:
    """Flat positions (channels * kernel entries, windows) in an image (channels, *sizes), -1 outside of it."""
    axes = len(sizes)
    if channels * math.prod(p.size for p in places) > LARGEST_INDEX:
        raise BadInputError("an operator needs too much memory")
    flat: np.ndarray = np.arange(channels).reshape(-1, *[1] * (2 * axes))
    inside: np.ndarray = np.ones_like(flat, dtype=bool)
    for i, (where, size) in enumerate(zip(places, sizes, strict=True)):
        shape = [1] * (2 * axes + 1)
        shape[1 + i], shape[1 + axes + i] = where.shape[1], where.shape[0]
        along = where.T.reshape(shape)
        flat, inside = flat * size + along, inside & (along >= 0) & (along < size)
    flat = np.where(inside, flat, -1)
    return flat.reshape(math.prod(flat.shape[: 1 + axes]), -1)


def _image(x: Tensor) -> tuple[int, tuple[int, ...]]:
    if len(x.shape) < 3 or x.shape[0] != 1:
        raise BadInputError(f"an image of shape {list(x.shape)}")
    return x.shape[1], x.shape[2:]


def conv(builder: Builder, node: OnnxNode) -> Tensor:
    """Convolution with groups, pads, strides and dilations."""
    x, weight = node.tensor(0), node.weights(1)
    channels, sizes = _image(x)
    groups, kernel = int(node.get("group", 1)), weight.shape[2:]
    if groups < 1 or channels != weight.shape[1] * groups or weight.shape[0] % groups or len(kernel) != len(sizes):
        raise BadInputError(f"a weight of shape {list(weight.shape)} in {groups} groups for {list(x.shape)}")
    if list(node.get("kernel_shape", kernel)) != list(kernel):
        raise BadInputError("kernel_shape differs from the weight")
    places, _ = _places(node, sizes, kernel, ceil=False)
    index = _positions(places, sizes, channels)
    index = index.reshape(groups, -1, index.shape[1])
    linear = builder.product(x, weight.reshape(groups, weight.shape[0] // groups, -1), index)
    return builder.affine((1, weight.shape[0], *(len(p) for p in places)), [(x, linear)], _bias(node, len(sizes)))


def _bias(node: OnnxNode, axes: int) -> np.ndarray | None:
    return None if node.optional(2) is None else node.weights(2).reshape(-1, *[1] * axes)


def conv_transpose(builder: Builder, node: OnnxNode) -> Tensor:
    """The transpose of a convolution; pads follow from output_shape or auto_pad as the ONNX text has it."""
    x, weight = node.tensor(0), node.weights(1)
    channels, sizes = _image(x)
    groups, kernel, axes = int(node.get("group", 1)), weight.shape[2:], len(sizes)
    if groups < 1 or channels != weight.shape[0] or channels % groups or len(kernel) != axes:
        raise BadInputError(f"a weight of shape {list(weight.shape)} in {groups} groups for {list(x.shape)}")
    strides, dilations = _numbers(node, "strides", axes), _numbers(node, "dilations", axes)
    extra, pads = _numbers(node, "output_padding", axes, 0), _numbers(node, "pads", 2 * axes, 0)
    auto, wanted = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    places, result = [], []
    for i, (size, k, stride, dilation) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        full = stride * (size - 1) + extra[i] + dilation * (k - 1) + 1
        before, after = (pads[i], pads[i + axes]) if auto == "NOTSET" else (0, 0)
        if wanted is not None or auto.startswith("SAME"):
            total = full - (int(wanted[-axes:][i]) if wanted is not None else size * stride)
            if total < 0:
                raise BadInputError("an output larger than what the operator writes to")
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        result.append(full - before - after)
        if min(result) < 1:
            raise BadInputError("an empty output")
        places.append(np.arange(size)[:, None] * stride - before + np.arange(k)[None] * dilation)
    outputs = weight.shape[1] * groups
    image = Tensor(-1, (1, outputs, *result))
    index = _positions(places, result, outputs)
    forward = builder.product(
        image, weight.reshape(groups, channels // groups, -1), index.reshape(groups, -1, x.size // channels)
    )
    return builder.affine(image.shape, [(x, transposed(forward))], _bias(node, axes))


def _pooling(node: OnnxNode) -> tuple[Tensor, int, list[np.ndarray], np.ndarray, np.ndarray]:
    """The tensor, its channels, places along each axis, positions (kernel, windows) in one channel, padded counts."""
    x = node.tensor(0)
    channels, sizes = _image(x)
    kernel = _numbers(node, "kernel_shape", len(sizes))
    auto, dilated = node.get("auto_pad", "NOTSET"), any(d != 1 for d in node.get("dilations", []))
    if node.get("kernel_shape") is None or (auto.startswith("SAME") and dilated):
        raise BadInputError("kernel_shape is missing, or SAME pads with dilations, which readers disagree about")
    places, pads = _places(node, sizes, kernel, bool(node.get("ceil_mode", 0)))
    counts = np.ones((1,), dtype=int)
    for where, size, (_, after) in zip(places, sizes, pads, strict=True):
        counts = (counts[:, None] * (where < size + after).sum(1)).reshape(-1)
    return x, channels, places, _positions(places, sizes, 1), counts


def average_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Means over windows; the padding counts as zeros with count_include_pad, else not at all."""
    x, channels, places, where, padded = _pooling(node)
    counts = padded if node.get("count_include_pad", 0) else (where >= 0).sum(0)
    entries = x.size // channels
    # Each channel is a group; one and the same sum, then each window by its own count.
    index = np.where(where < 0, -1, where + np.arange(channels)[:, None, None] * entries)
    shape = (1, channels, *(len(p) for p in places))
    total = builder.affine(shape, [(x, builder.product(x, np.ones((channels, 1, len(where))), index))])
    return builder.affine(shape, [(total, builder.scaled(total, builder.inverse(counts).reshape(shape[2:]), 1))])


def max_pool(builder: Builder, node: OnnxNode) -> Tensor:
    """Maxima over windows; the padding takes no part."""
    x, channels, places, where, _ = _pooling(node)
    if not (where >= 0).any(0).all():
        raise BadInputError("a window lies in the padding alone")
    first = where[(where >= 0).argmax(0), np.arange(where.shape[1])]
    where = np.where(where < 0, first, where)  # twice the same candidate changes no maximum
    index = (where[:, None, :] + np.arange(channels)[:, None] * (x.size // channels)).reshape(len(where), -1)
    return tournament(builder, x, index, (1, channels, *(len(p) for p in places)))


def tournament(builder: Builder, x: Tensor, index: np.ndarray, shape: tuple[int, ...], sign: int = 1) -> Tensor:
    """Maxima (minima for sign -1) over the columns of `index` (k, m), positions in x: max(a, b) = b + relu(a - b).

    In each round the first is paired with the second, the third with the fourth, and so on; an odd one goes last.
    """
    now: Tensor = _flat(builder.gather(x, index, index.shape))
    height, width = index.shape
    while height > 1:
        pairs = height // 2
        rows = np.arange(now.size).reshape(height, width)
        first, second, rest = rows[: 2 * pairs : 2], rows[1 : 2 * pairs : 2], rows[2 * pairs :]
        a, b = (builder.gather(now, r, (pairs, width)) for r in (first, second))
        ahead = builder.relu(builder.sum([(a, sign), (b, -sign)]))
        gain = np.concatenate([np.arange(ahead.size), np.full(rest.size, -1)])
        kept = builder.gather(now, np.concatenate([second, rest]), (pairs + len(rest), width))
        won = builder.gather(ahead, gain, kept.shape)
        now = builder.sum([(kept, 1), (won, sign)])
        height = kept.shape[0]
    return Tensor(now.node, shape)


def _flat(x: Tensor) -> Tensor:
    return Tensor(x.node, (x.size,))


def global_pool(builder: Builder, node: OnnxNode) -> Value:
    """Mean or maximum over all positions of each channel."""
    x = node.tensor(0)
    return reduced(builder, x, list(range(2, len(x.shape))), True, "Max" if "Max" in node.operator else "Mean")


def reduced(builder: Builder, x: Tensor, axes: list[int], keep: bool, kind: str) -> Tensor:
    """Sum, mean, maximum or minimum over axes."""
    axes = sorted({a % len(x.shape) for a in axes})
    rest = [a for a in range(len(x.shape)) if a not in axes]
    index = np.arange(x.size).reshape(x.shape).transpose(axes + rest)
    index = index.reshape(math.prod(x.shape[a] for a in axes), -1)
    shape = tuple(1 if a in axes else s for a, s in enumerate(x.shape) if keep or a not in axes)
    if kind in ("Max", "Min"):
        return tournament(builder, x, index, shape, 1 if kind == "Max" else -1)
    total = builder.affine(shape, [(x, builder.product(x, np.ones((1, 1, len(index))), index[None]))])
    if kind == "Sum":
        return total
    return builder.affine(shape, [(total, builder.scaled(total, builder.inverse(len(index)), 1))])
