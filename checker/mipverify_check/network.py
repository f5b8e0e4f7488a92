"""A network as this checker has it: one input, affine nodes (sums of linear maps plus a bias) and ReLUs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.maps import Map


@dataclass(frozen=True, eq=False)
class Affine:
    """Sum of W_t x_t over terms (source node, W_t), plus `bias` (size,), None for zero.

    steps: roundings of one product where float32 evaluates this. roundings, open: of its block, once the network is
    that of float32 evaluations, and whether its only reader goes on with the block (float32.py).
    """

    size: int
    terms: tuple[tuple[int, Map], ...]
    bias: Array | None = None
    steps: int = 0
    roundings: int = 0
    open: bool = False


@dataclass(frozen=True)
class Relu:
    """max(0, source), entry by entry."""

    size: int
    source: int


@dataclass(frozen=True)
class Input:
    """The input of the network, node 0."""

    size: int


Node = Input | Affine | Relu


@dataclass(frozen=True)
class Tensor:
    """The value of a node as a tensor of `shape` (row-major)."""

    node: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(eq=False)
class Network:
    """nodes: each after those that it reads. tensors: by their names in the file.

    relus: by the name of an operator's first output, its ReLU nodes in the order of docs/proof-format.md, section 3.
    monotone: functions at the end that were left out, since they keep the order of the entries. unrounded: why it is
    not known what float32 evaluations make of it, if it is not.
    """

    arithmetic: Arithmetic
    nodes: list[Node]
    output: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)
    relus: dict[str, list[int]] = field(default_factory=dict)
    monotone: tuple[str, ...] = ()
    unrounded: str | None = None

    @cached_property
    def reads(self) -> list[int]:
        """How often each node is read."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for source in sources(node):
                counts[source] += 1
        return counts

    @cached_property
    def roundings(self) -> list[int]:
        """By node, more roundings than lie between a row over it and the row that replaces it by its sources."""
        found = []
        for node in self.nodes:
            maps = [m for _, m in node.terms] if isinstance(node, Affine) else []
            read = max((self.reads[s] for s in sources(node)), default=1)
            found.append(sum(m.terms for m in maps) + len(maps) + read + 8)
        return found

    def values(self, points: Array) -> list[Array]:
        """Values (size, B) of all nodes at points (inputs, B)."""
        values: list[Array] = []
        for node in self.nodes:
            if isinstance(node, Input):
                values.append(points)
            elif isinstance(node, Relu):
                values.append(np.maximum(values[node.source], 0))
            else:
                values.append(self.affine(node, values, points.shape[1]))
        return values

    def affine(self, node: Affine, values: list[Array], columns: int, absolute: bool = False) -> Array:
        """The value (size, columns) of an affine node; of its entrywise absolute value with `absolute`."""
        total = self.arithmetic.zeros((node.size, columns))
        for source, linear in node.terms:
            total = total + linear.apply(values[source], absolute)
        if node.bias is None:
            return total
        return total + (np.abs(node.bias) if absolute else node.bias)[:, None]


def sources(node: Node) -> list[int]:
    """The nodes that a node reads, as often as it does."""
    if isinstance(node, Affine):
        return [source for source, _ in node.terms]
    return [node.source] if isinstance(node, Relu) else []
