"""Col2Im: overlapping blocks summed into an image, as `torch.nn.Fold` does."""

from __future__ import annotations

import math

import numpy as np
import scipy

from mipverify.network.builder import Builder, RewriteError, Tensor, limited
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@rewrite("Col2Im")
def col2im(builder: Builder, node: OnnxNode) -> Tensor:
    """x (N, C * block, L) to (N, C, *image): entry l of the L block positions is added where its block lies."""
    x = node.tensor(0)
    image = [int(v) for v in node.constant(1, "the image shape").reshape(-1)]
    block = [int(v) for v in node.constant(2, "the block shape").reshape(-1)]
    rank = len(image)
    strides, dilations = (node.integers(name) or [1] * rank for name in ("strides", "dilations"))
    pads = node.integers("pads") or [0] * (2 * rank)
    padded = [n + low + high for n, low, high in zip(image, pads[:rank], pads[rank:], strict=True)]
    spans = zip(padded, block, strides, dilations, strict=True)
    counts = [(n - dilation * (size - 1) - 1) // stride + 1 for n, size, stride, dilation in spans]
    taps = math.prod(block)
    if len(x.shape) != 3 or x.shape[1] % taps or x.shape[2] != math.prod(counts) or min(counts) < 1:
        raise RewriteError(f"an input of shape {list(x.shape)} does not hold the blocks {block} of an image {image}")
    # Where each tap of each block lies, axis by axis: (*block, *counts), -1 where it falls on the padding.
    place = np.zeros((1,) * (2 * rank), np.int64)
    inside = np.ones((1,) * (2 * rank), bool)
    for axis, n in enumerate(image):
        steps = np.arange(block[axis])[:, None] * dilations[axis] + np.arange(counts[axis]) * strides[axis]
        at = (steps - pads[axis]).reshape(
            [block[axis] if k == axis else counts[axis] if k == rank + axis else 1 for k in range(2 * rank)]
        )
        place, inside = place * n + at, inside & (at >= 0) & (at < n)
    rows, columns = place[inside], np.flatnonzero(inside)
    pixels = math.prod(image)
    one = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(pixels, place.size))
    planes = x.shape[0] * x.shape[1] // taps
    matrix = scipy.sparse.kron(scipy.sparse.eye_array(planes), one, format="csr")
    return builder.sparse(x, matrix, limited((x.shape[0], x.shape[1] // taps, *image)))
