"""Grows a network node by node: the few constructions that every import is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mipverify.network.arrays import all_finite, is_torch_array
from mipverify.network.graph import Affine, Input, Node, Relu, Term
from mipverify.network.operators import Array, Dense, Identity, Index, Operator, Scale, Sparse
from mipverify.network.sparse_linear import SparseLinear

LARGEST_TENSOR = 2**24  # entries; a damaged file may ask for any size, and the system would end the process


class RewriteError(Exception):
    """A node cannot be expressed exactly; the message says why and, if there is one, the way around."""


@dataclass(frozen=True)
class Tensor:
    """The value of a node of the network under construction, viewed in `shape`."""

    node: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def viewed(self, shape: Sequence[int]) -> Tensor:
        """The same entries in another shape of the same size."""
        if math.prod(shape) != self.size:
            raise RewriteError(f"a tensor of shape {list(self.shape)} cannot be viewed as {list(shape)}")
        return Tensor(self.node, tuple(int(n) for n in shape))


@dataclass(frozen=True)
class Comparison:
    """Whether each entry of `difference` is positive; where one is zero, either answer will do.

    It jumps with the input: only choices between branches that meet where it turns can be expressed.
    """

    difference: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.difference.shape


Value: TypeAlias = Tensor | np.ndarray
Result: TypeAlias = Value | Comparison  # of a node of the file


class Builder:
    """Holds the growing list of nodes; every method appends what it needs and returns the tensor it made."""

    def __init__(self, input_shape: tuple[int, ...], name: str = "input", number: Any = np.float32):
        self.nodes: list[Node] = [Input(tuple(input_shape))]
        self.names: list[str] = [name]
        self.name = name  # the name that new nodes get: that of the node being imported
        self.number_type = np.dtype(number)  # that Python numbers in a module's code are rounded to

    @property
    def input(self) -> Tensor:
        return Tensor(0, self.nodes[0].shape)

    def number(self, value: Any) -> Any:
        """Python numbers in the type that the module computes in."""
        return np.asarray(value, dtype=self.number_type)[()]

    def value(self, node: int) -> Tensor:
        """The value of a node that there is."""
        return Tensor(node, self.nodes[node].shape)

    def affine(
        self, terms: Sequence[tuple[Tensor, Operator]], shape: Sequence[int], bias: Array | None = None
    ) -> Tensor:
        """Sum of operator(tensor) over `terms`, plus `bias`, which broadcasts to `shape`."""
        shape = limited(shape)
        bias = np.zeros(()) if bias is None and not terms else bias
        if bias is not None:
            bias = bias.expand(shape) if is_torch_array(bias) else np.broadcast_to(np.asarray(bias), shape)
            if terms and not is_torch_array(bias) and not bias.any():
                bias = None
        constants = [p for _, operator in terms for p in operator.parameters()] + ([] if bias is None else [bias])
        if not all(all_finite(constant) for constant in constants):
            raise RewriteError("a constant holds infinity or NaN")
        for _, operator in terms:
            operator.terms += any(_wider_than_float32(p) for p in operator.parameters())
        return self._append(Affine(shape, tuple(Term(x.node, operator) for x, operator in terms), bias), shape)

    def constant(self, value: Array) -> Tensor:
        """A tensor that does not depend on the input."""
        return self.affine([], np.shape(value), value)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x)."""
        stored = self.nodes[x.node].shape
        return self._append(Relu(stored, x.node), x.shape)

    def _append(self, node: Node, shape: tuple[int, ...]) -> Tensor:
        self.nodes.append(node)
        self.names.append(self.name)
        return Tensor(len(self.nodes) - 1, shape)

    def dense(self, x: Tensor, weight: Array, bias: Array | None = None) -> Tensor:
        """`weight` (out, in) applied to the last axis of x; `bias` broadcasts to the result."""
        lead = x.shape[:-1]
        if not x.shape or x.shape[-1] != weight.shape[1]:
            raise RewriteError(f"weights for {weight.shape[1]} entries do not fit a tensor of shape {list(x.shape)}")
        single = math.prod(lead) == 1
        operator = (
            SparseLinear(weight) if single and SparseLinear.fits(weight) else Dense(weight, () if single else lead)
        )
        return self.affine([(x, operator)], (*lead, weight.shape[0]), bias)

    def combine(self, parts: Sequence[tuple[Tensor, float]], bias: Array | None = None) -> Tensor:
        """Sum of factor * tensor over `parts`, all of one shape, plus `bias`."""
        shape = parts[0][0].shape
        return self.affine([(x, multiple(factor, shape)) for x, factor in parts], shape, bias)

    def scale(self, x: Tensor, factor: Array, roundings: int = 0) -> Tensor:
        """x * factor entrywise, where factor broadcasts to the shape of x."""
        return self.affine([(x, scaling(factor, x.shape, roundings))], x.shape)

    def shift(self, x: Tensor, offset: Array) -> Tensor:
        """x + offset, where offset broadcasts to the shape of x."""
        return self.affine([(x, Identity(x.shape))], x.shape, offset)

    def move(self, x: Tensor, indices: np.ndarray, fill: float = 0.0) -> Tensor:
        """The tensor with entry x.flat[indices[i]] at i, or `fill` where indices is -1; a view where nothing moves."""
        indices = np.asarray(indices)
        if 0 in indices.shape:
            raise RewriteError(f"the result has no entries: shape {list(indices.shape)}")
        flat = indices.reshape(-1)
        if flat.size == x.size and np.array_equal(flat, np.arange(x.size)):
            return x.viewed(indices.shape)
        bias = np.where(indices < 0, np.float64(fill), 0.0) if fill else None
        return self.affine([(x, Index(flat, x.shape, indices.shape))], indices.shape, bias)

    def join(self, parts: Sequence[Value], indices: np.ndarray) -> Tensor:
        """The tensor whose entry i is entry indices[i] of all `parts`, flattened and put one behind the other.

        One affine node: each tensor moves to its places and leaves the others zero, constants are the bias.
        """
        limited(indices.shape)
        if len(parts) == 1 and isinstance(parts[0], Tensor):
            return self.move(parts[0], indices)
        terms: list[tuple[Tensor, Operator]] = []
        bias, start = None, 0
        for part in parts:
            size = math.prod(part.shape)
            inside = (indices >= start) & (indices < start + size)
            if inside.any():
                if isinstance(part, Tensor):
                    where = np.where(inside, indices - start, -1)
                    terms.append((part, Index(where, part.shape, indices.shape)))
                else:
                    bias = np.zeros(indices.shape) if bias is None else bias
                    bias[inside] = part.reshape(-1)[indices[inside] - start]
            start += size
        return self.affine(terms, indices.shape, bias)

    def broadcast(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """x repeated by the rules of numpy to `shape`."""
        return self.move(x, np.broadcast_to(positions(x.shape), limited(shape)))

    def sparse(self, x: Tensor, matrix: Any, shape: Sequence[int], roundings: int = 0) -> Tensor:
        """The scipy.sparse `matrix` applied to the flattened x."""
        operator = Sparse(matrix, x.shape, tuple(shape))
        operator.terms += roundings
        return self.affine([(x, operator)], shape)


def _wider_than_float32(parameter: Array) -> bool:
    """Whether float32 arithmetic rounds the parameter itself, which the error analysis must count as one more term."""
    if is_torch_array(parameter):
        if parameter.is_floating_point() and parameter.dtype.itemsize <= 4:  # as it is in every step of a training
            return False
        return bool((parameter.float().to(parameter.dtype) != parameter).any())
    return bool((parameter.astype(np.float32) != parameter).any())


def limited(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape itself; raises RewriteError where a tensor of it could not be held."""
    sizes = tuple(int(n) for n in shape)  # as Python's numbers, which do not overflow
    if math.prod(sizes) > LARGEST_TENSOR:
        raise RewriteError(f"a tensor of shape {list(sizes)} is too large (over {LARGEST_TENSOR} entries)")
    return sizes


def positions(shape: Sequence[int]) -> np.ndarray:
    """The flat position of each entry of a tensor of `shape`: what a data movement does to it, it does to the data."""
    return np.arange(math.prod(limited(shape))).reshape(tuple(shape))


def scaling(factor: Array, shape: tuple[int, ...], roundings: int = 0) -> Operator:
    """Multiplication by `factor`; `roundings` counts the float64 roundings that made it differ from the true one.

    They are added to the operator's `terms`, so that the error analysis covers them like those of a sum.
    """
    if not is_torch_array(factor) and np.ndim(factor) == 0 and factor == 1:
        return Identity(shape)
    operator = Scale(factor, shape)
    operator.roundings = roundings
    operator.terms += roundings
    return operator


def multiple(factor: float, shape: tuple[int, ...]) -> Operator:
    """Multiplication by one exact number."""
    return scaling(np.float64(factor), shape)
