"""Einsum of one tensor that depends on the input and constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipverify.network.builder import Builder, RewriteError, Tensor, limited, positions
from mipverify.network.rewrites.linear import matmul_right
from mipverify.network.rewrites.reduce import reduced
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@rewrite("Einsum")
def einsum(builder: Builder, node: OnnxNode) -> Tensor:
    """A sum of products over named axes: as one matrix product for each place of the axes that all three share."""
    operands = [node.present(i) for i in range(len(node.inputs))]
    labels, out = _labels(str(node.get("equation")), [value.shape for value in operands])
    dynamic = [i for i, value in enumerate(operands) if isinstance(value, Tensor)]
    if len(dynamic) > 1:
        raise RewriteError("a product of two tensors that depend on the input is not piecewise linear")
    x, own = _diagonal(builder, node.tensor(dynamic[0]), labels.pop(dynamic[0]))
    weight, theirs = _product([value for value in operands if isinstance(value, np.ndarray)], labels)
    sizes = dict(zip(own, x.shape, strict=True))
    for label, size in zip(theirs, weight.shape, strict=True):
        if sizes.setdefault(label, size) != size:
            raise RewriteError(f"axis {label!r} has the sizes {sizes[label]} and {size}")
    if not set(out) <= set(sizes) or len(set(out)) < len(out):
        raise RewriteError(f"the output's axes {out!r} are not those of the operands, each once")
    if any(label not in own and label not in out for label in theirs):
        raise RewriteError("it sums over an axis of constants alone: fold that sum before exporting")
    alone = [axis for axis, label in enumerate(own) if label not in theirs and label not in out]
    if alone:
        x = reduced(builder, x, alone, keepdims=False, mean=False)
        own = "".join(label for axis, label in enumerate(own) if axis not in alone)
    shared = [label for label in own if label in theirs and label in out]
    summed = [label for label in own if label in theirs and label not in out]
    kept = [label for label in own if label not in theirs]
    added = [label for label in theirs if label not in own]
    rows = _grouped(positions(x.shape), own, [shared, kept, summed], sizes)
    matrices = _grouped(weight, theirs, [shared, summed, added], sizes)
    y = matmul_right(builder, builder.move(x, rows), matrices)
    found = [*shared, *kept, *added]
    where = positions([sizes[label] for label in found]).transpose([found.index(label) for label in out])
    return builder.move(y, where)


def _labels(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """A letter for each axis of each operand, and of the output."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise RewriteError(f"the equation {equation!r} has {len(terms)} operands, the node {len(shapes)}")
    free = [letter for letter in "zyxwvutsrqponmlkjihgfedcba" if letter not in equation]
    hidden = [len(shape) - (len(term) - 3) for term, shape in zip(terms, shapes, strict=True) if "..." in term]
    if hidden and not 0 <= max(hidden) <= len(free):
        raise RewriteError(f"the equation {equation!r} does not fit operands of shapes {[list(s) for s in shapes]}")
    dots = "".join(free[: max(hidden, default=0)])
    labels = []
    for term, shape in zip(terms, shapes, strict=True):
        count = len(shape) - (len(term) - 3)
        term = term.replace("...", dots[len(dots) - count :] if count > 0 else "")
        if len(term) != len(shape) or (term and not term.isalpha()):
            raise RewriteError(f"{term!r} of the equation {equation!r} does not fit the shape {list(shape)}")
        labels.append(term)
    if arrow:
        return labels, right.replace("...", dots)
    once = sorted(label for label in set("".join(labels)) - set(dots) if "".join(labels).count(label) == 1)
    return labels, dots + "".join(once)


def _diagonal(builder: Builder, x: Tensor, labels: str) -> tuple[Tensor, str]:
    """x where axes of the same name have the same place, and the names that are left."""
    single = "".join(dict.fromkeys(labels))
    if single == labels:
        return x, labels
    return builder.move(x, np.einsum(f"{labels}->{single}", positions(x.shape))), single


def _product(constants: list[np.ndarray], labels: list[str]) -> tuple[np.ndarray, str]:
    """The product of all constants over all their axes, and the names of these; exact in float64."""
    if len(constants) > 2 or (len(constants) == 2 and any(value.dtype == np.float64 for value in constants)):
        raise RewriteError("a product of several constants: fold it before exporting")
    names = "".join(dict.fromkeys("".join(labels)))
    if not constants:
        return np.ones(()), ""
    sizes: dict[str, int] = {}
    for term, value in zip(labels, constants, strict=True):
        sizes.update(zip(term, value.shape, strict=True))
    limited([sizes[label] for label in names])
    wide = [value.astype(np.float64) if len(constants) > 1 else value for value in constants]
    return np.einsum(f"{','.join(labels)}->{names}", *wide), names


def _grouped(values: np.ndarray, labels: str, groups: list[list[str]], sizes: dict[str, int]) -> np.ndarray:
    """The array with the axes of each group as one, in the order of the groups."""
    order = [labels.index(label) for group in groups for label in group]
    return values.transpose(order).reshape([math.prod(sizes[label] for label in group) for group in groups])
