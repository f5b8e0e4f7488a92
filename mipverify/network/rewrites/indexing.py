"""Entries picked or placed by constant indices, and blocks of them rearranged."""

from __future__ import annotations

import math

import numpy as np

from mipverify.network.builder import Builder, RewriteError, Tensor, Value, limited, positions
from mipverify.network.rewrites.linear import signed_sum
from mipverify.network.rewrites.registry import OnnxNode, axis_of, rewrite


@rewrite("Gather")
def gather(builder: Builder, node: OnnxNode) -> Tensor:
    """Entries along an axis, picked by constant indices."""
    x = node.tensor(0)
    axis = axis_of(int(node.get("axis", 0)), len(x.shape))
    indices = _inside(node.constant(1, "indices"), x.shape[axis])
    return builder.move(x, np.take(positions(x.shape), indices, axis=axis))


@rewrite("GatherElements")
def gather_elements(builder: Builder, node: OnnxNode) -> Tensor:
    """For each entry of the indices, the entry of x at its place, with the place along one axis replaced by it."""
    x = node.tensor(0)
    return builder.move(x, positions(x.shape)[_along_axis(node, x.shape)])


def _along_axis(node: OnnxNode, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The places in a tensor of `shape` that constant indices of the same rank name along the node's axis."""
    axis, indices = axis_of(int(node.get("axis", 0)), len(shape)), node.constant(1, "indices")
    if indices.ndim != len(shape):
        raise RewriteError(f"indices of shape {list(indices.shape)} for a tensor of shape {list(shape)}")
    places: list[np.ndarray] = list(np.indices(indices.shape))
    places[axis] = _inside(indices, shape[axis])
    if any(place.size and place.max() >= size for place, size in zip(places, shape, strict=True)):
        raise RewriteError(f"indices of shape {list(indices.shape)} reach beyond a tensor of shape {list(shape)}")
    return tuple(places)


@rewrite("GatherND")
def gather_nd(builder: Builder, node: OnnxNode) -> Tensor:
    """Entries or slices at constant places, batch by batch over the first `batch_dims` axes."""
    x, batch = node.tensor(0), int(node.get("batch_dims", 0))
    return builder.move(x, positions(x.shape)[_places(node.constant(1, "indices"), x.shape, batch)])


def _places(indices: np.ndarray, shape: tuple[int, ...], batch: int = 0) -> tuple[np.ndarray, ...]:
    """The places that the last axis of `indices` names, behind `batch` axes that both share."""
    if not indices.ndim or not 0 <= batch < indices.ndim or batch + indices.shape[-1] > len(shape):
        raise RewriteError(f"indices of shape {list(indices.shape)} do not fit a tensor of shape {list(shape)}")
    if indices.shape[:batch] != shape[:batch]:
        raise RewriteError(f"indices of shape {list(indices.shape)} share no {batch} axes with {list(shape)}")
    places: list[np.ndarray] = list(np.indices(indices.shape[:-1])[:batch])
    for axis, values in enumerate(np.moveaxis(indices, -1, 0), start=batch):
        places.append(_inside(values, shape[axis]))
    return tuple(places)


def _inside(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices along an axis of `size`, negative ones counted from its end."""
    indices = indices.astype(np.int64)
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise RewriteError(f"an index is out of range for {size} entries")
    return np.where(indices < 0, indices + size, indices)


@rewrite("Scatter", "ScatterElements", "ScatterND")
def scatter(builder: Builder, node: OnnxNode) -> Tensor:
    """A tensor with other entries put at constant places, or added there."""
    data, updates, reduction = node.present(0), node.present(2), node.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise RewriteError(f"reduction {reduction!r} is not supported")
    if node.operator == "ScatterND":
        places = _places(node.constant(1, "indices"), data.shape)
    else:
        places = _along_axis(node, data.shape)
    targets = positions(data.shape)[places]
    if targets.shape != updates.shape:
        raise RewriteError(f"updates of shape {list(updates.shape)} for places of shape {list(targets.shape)}")
    if len(np.unique(targets)) < targets.size:
        raise RewriteError("two updates have the same place")
    if reduction == "add":
        indices = np.full(data.shape, -1)
        indices[places] = positions(updates.shape)
        return signed_sum(builder, [(data, 1.0), (builder.join([updates], indices), 1.0)])
    indices = positions(data.shape)
    indices[places] = math.prod(data.shape) + positions(updates.shape)
    return builder.join([data, updates], indices)


def masked(builder: Builder, mask: np.ndarray, one: Value, other: Value) -> Tensor:
    """`one` where `mask` is set, else `other`; all three broadcast."""
    shape = limited(np.broadcast_shapes(mask.shape, one.shape, other.shape))
    first = np.broadcast_to(positions(one.shape), shape)
    second = np.broadcast_to(positions(other.shape), shape) + math.prod(one.shape)
    return builder.join([one, other], np.where(mask, first, second))


@rewrite("Compress")
def compress(builder: Builder, node: OnnxNode) -> Tensor:
    """Entries, or slices along an axis, where a constant mask is set; of a longer mask the rest says nothing."""
    x, mask, axis = node.tensor(0), node.constant(1, "the condition").astype(bool), node.get("axis")
    axis = None if axis is None else axis_of(axis, len(x.shape))
    mask = mask.reshape(-1)[: x.size if axis is None else x.shape[axis]]
    return builder.move(x, np.compress(mask, positions(x.shape), axis=axis))


@rewrite("Trilu")
def trilu(builder: Builder, node: OnnxNode) -> Tensor:
    """The upper or lower triangle of matrices, zero elsewhere."""
    x, offset = node.tensor(0), node.optional_constant(1, "k")
    k = 0 if offset is None else int(offset.reshape(()))
    kept = np.ones(x.shape[-2:], bool)
    kept = np.triu(kept, k) if node.get("upper", 1) else np.tril(kept, k)
    return builder.move(x, np.where(kept, positions(x.shape), -1))


@rewrite("ReverseSequence")
def reverse_sequence(builder: Builder, node: OnnxNode) -> Tensor:
    """The first entries of each sequence of a batch in reverse."""
    x, lengths = node.tensor(0), node.constant(1, "the lengths").reshape(-1)
    batch, time = (axis_of(int(node.get(f"{name}_axis", i)), len(x.shape)) for i, name in ((1, "batch"), (0, "time")))
    indices = positions(x.shape)
    rows = np.moveaxis(indices, (batch, time), (0, 1))  # a view
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[:length] = row[:length][::-1].copy()
    return builder.move(x, indices)


@rewrite("DepthToSpace")
def depth_to_space(builder: Builder, node: OnnxNode) -> Tensor:
    """Channels as blocks of pixels."""
    x, block, mode = node.tensor(0), int(node.get("blocksize")), node.get("mode", "DCR")
    n, channels, height, width = _image(x)
    if mode not in ("DCR", "CRD") or block < 1 or channels % block**2:
        raise RewriteError(f"{channels} channels cannot become blocks of {block} by {block} in mode {mode!r}")
    rest = channels // block**2
    if mode == "DCR":
        indices = positions((n, block, block, rest, height, width)).transpose(0, 3, 4, 1, 5, 2)
    else:
        indices = positions((n, rest, block, block, height, width)).transpose(0, 1, 4, 2, 5, 3)
    return builder.move(x, indices.reshape(n, rest, height * block, width * block))


@rewrite("SpaceToDepth")
def space_to_depth(builder: Builder, node: OnnxNode) -> Tensor:
    """Blocks of pixels as channels."""
    x, block, mode = node.tensor(0), int(node.get("blocksize")), node.get("mode", "DCR")
    n, channels, height, width = _image(x)
    if mode not in ("DCR", "CRD") or block < 1 or height % block or width % block:
        raise RewriteError(f"an image of {height} by {width} has no blocks of {block} by {block} in mode {mode!r}")
    indices = positions((n, channels, height // block, block, width // block, block))
    indices = indices.transpose((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return builder.move(x, indices.reshape(n, channels * block**2, height // block, width // block))


def _image(x: Tensor) -> tuple[int, ...]:
    if len(x.shape) != 4:
        raise RewriteError(f"a tensor of shape {list(x.shape)}: four axes are needed")
    return x.shape


@rewrite("CenterCropPad")
def center_crop_pad(builder: Builder, node: OnnxNode) -> Tensor:
    """The centre of a tensor, or the tensor in the centre of zeros, axis by axis."""
    x, wanted = node.tensor(0), node.constant(1, "the shape").reshape(-1).tolist()
    axes = node.integers("axes") or list(range(len(x.shape)))
    indices = positions(x.shape)
    for axis, size in zip((axis_of(axis, len(x.shape)) for axis in axes), wanted, strict=True):
        have = x.shape[axis]
        if size <= have:
            start = (have - size) // 2
            indices = indices[(slice(None),) * axis + (slice(start, start + size),)]
        else:
            before = (size - have) // 2
            limited([*indices.shape[:axis], size, *indices.shape[axis + 1 :]])
            widths = [(before, size - have - before) if i == axis else (0, 0) for i in range(indices.ndim)]
            indices = np.pad(indices, widths, constant_values=-1)
    return builder.move(x, indices)
