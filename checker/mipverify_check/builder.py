"""Nodes of a network under construction, and one ONNX node as the rules of operators see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.errors import BadInputError
from mipverify_check.maps import Gather, Map, Product, Scale, Sparse
from mipverify_check.network import Affine, Input, Node, Relu, Tensor
from mipverify_check.onnx_file import FLOATS, LARGEST_TENSOR, constant

Value = Tensor | np.ndarray


@dataclass
class Builder:
    """Collects nodes. made: the ReLU nodes of the ONNX node that is being read, in order.

    What several operators make of one node alike is one node: its ReLU, and each movement of its entries. So a pass
    takes all coefficients of equal ReLUs together before it relaxes them, and finds that relu(z) - relu(z) is nothing.
    """

    arithmetic: Arithmetic
    nodes: list[Node] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    _relus: dict[int, int] = field(default_factory=dict)
    _moved: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def input(self, shape: tuple[int, ...]) -> Tensor:
        return self._add(Input(math.prod(shape)), shape)

    def _add(self, node: Node, shape: tuple[int, ...]) -> Tensor:
        self.nodes.append(node)
        return Tensor(len(self.nodes) - 1, shape)

    def affine(self, shape: tuple[int, ...], terms: Sequence[tuple[Tensor, Map]], bias: Any = None) -> Tensor:
        """The sum of maps of tensors, plus a bias that broadcasts to `shape`."""
        size = math.prod(shape)
        if size > LARGEST_TENSOR:
            raise BadInputError(f"a tensor of shape {list(shape)} is too large")
        held = None if bias is None else self.numbers(np.broadcast_to(bias, shape).reshape(-1))
        return self._add(Affine(size, tuple((x.node, m) for x, m in terms), held), shape)

    def relu(self, x: Tensor) -> Tensor:
        if x.node not in self._relus:
            self._relus[x.node] = self._add(Relu(x.size, x.node), x.shape).node
        self.made.append(self._relus[x.node])
        return Tensor(self.made[-1], x.shape)

    def numbers(self, values: Any) -> Array:
        """Numbers of the file in the arithmetic of the check; they must be finite."""
        given = np.asarray(values)
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise BadInputError("an infinite number is computed with")
        return self.arithmetic.array(given)

    def gather(self, x: Tensor, index: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """Entries of x by flat position, -1 for zero."""
        moved = Gather(index, x.size)
        if moved.identity:
            return Tensor(x.node, shape)
        key = x.node, moved.index.astype(np.int64).tobytes()
        if key not in self._moved:
            self._moved[key] = self.affine(shape, [(x, moved)]).node
        return Tensor(self._moved[key], shape)

    def move(self, x: Value, change: Callable[[np.ndarray], np.ndarray]) -> Value:
        """`change`, a movement of entries, applied to an array, or to the positions of the entries of a tensor."""
        if isinstance(x, np.ndarray):
            return np.asarray(change(x))
        index = change(np.arange(x.size).reshape(x.shape))
        return self.gather(x, index, index.shape)

    def spread(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """x broadcast to `shape`."""
        return self.gather(x, np.broadcast_to(np.arange(x.size).reshape(x.shape), shape), shape)

    def scaled(self, x: Tensor, factor: Any, roundings: int = 0) -> Map:
        """Multiplication of each entry by a constant that broadcasts to the shape of x."""
        return Scale(self.numbers(np.broadcast_to(factor, x.shape).reshape(-1)), roundings)

    def inverse(self, values: Any) -> Array:
        """1 / values, rounded at most once in float64."""
        held = self.numbers(values)
        if (held == 0).any():
            raise BadInputError("a division by zero")
        return self.arithmetic.array(1) / held

    def sum(self, terms: Sequence[tuple[Value, int]], factor: Any = None, roundings: int = 0) -> Tensor:
        """The sum of signs (1, -1) times tensors and constants that broadcast, times one number."""
        shape = np.broadcast_shapes(*(value.shape for value, _ in terms))
        tensors = [(self.spread(v, shape), sign) for v, sign in terms if isinstance(v, Tensor)]
        constants = [v * v.dtype.type(sign) for v, sign in terms if not isinstance(v, Tensor)]
        one = self.arithmetic.array(1)
        for extra in constants[:-1]:  # one at a time: their sum would be rounded
            tensors[0] = (self.affine(shape, [(tensors[0][0], self.scaled(tensors[0][0], tensors[0][1]))], extra), 1)
        maps = [(v, Gather(np.arange(v.size), v.size) if sign == 1 else self.scaled(v, -one)) for v, sign in tensors]
        total = self.affine(shape, maps, constants[-1] if constants else None)
        return total if factor is None else self.affine(shape, [(total, self.scaled(total, factor, roundings))])

    def matrix(self, x: Tensor, weight: np.ndarray, index: np.ndarray) -> Map:
        """The product of `weight` (units, inner) with the entries `index` (inner, places) of x."""
        whole = x.size == index.size and index.shape[1] == 1 and (index[:, 0] == np.arange(x.size)).all()
        if whole and Sparse.pays(weight):
            return Sparse(self.numbers(weight))
        return self.product(x, weight[None], index[None])

    def product(self, x: Tensor, weight: Any, index: np.ndarray, roundings: int = 0) -> Product:
        """The product of `weight` (G, N, K) with the entries `index` (G, K, P) of x."""
        if index.size > LARGEST_TENSOR:
            raise BadInputError("an operator needs too much memory")
        return Product(self.numbers(weight), index, x.size, roundings)


@dataclass(frozen=True)
class OnnxNode:
    """One node of the file: its attributes, and its inputs as tensors, constants, or None where left out."""

    proto: Any
    inputs: list[Value | None]
    opset: int

    @property
    def operator(self) -> str:
        return str(self.proto.op_type)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or `default`."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                if isinstance(value, bytes):
                    return value.decode("utf-8", "replace")
                if isinstance(value, onnx.TensorProto):
                    return constant(value, self.operator)
                return value
        return default

    def optional(self, i: int) -> Value | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def value(self, i: int) -> Value:
        found = self.optional(i)
        if found is None:
            raise BadInputError(f"operand {i} is missing")
        return found

    def tensor(self, i: int) -> Tensor:
        found = self.value(i)
        if not isinstance(found, Tensor):
            raise BadInputError(f"operand {i} does not depend on the input")
        return found

    def constant(self, i: int) -> np.ndarray:
        found = self.value(i)
        if isinstance(found, Tensor):
            raise BadInputError(f"operand {i} depends on the input")
        return found

    def optional_constant(self, i: int) -> np.ndarray | None:
        return None if self.optional(i) is None else self.constant(i)

    def integers(self, i: int, name: str) -> list[int] | None:
        """Integers that older opsets have as an attribute and newer ones as operand i."""
        given = self.get(name)
        if given is not None:
            return [int(v) for v in np.atleast_1d(given)]
        held = self.optional_constant(i)
        if held is None:
            return None
        if held.dtype.kind not in "iu":
            raise BadInputError(f"{name} are no integers")
        return [int(v) for v in held.reshape(-1)]

    def weights(self, i: int) -> np.ndarray:
        """A constant of floating-point numbers."""
        found = self.constant(i)
        if found.dtype not in FLOATS:
            raise BadInputError(f"operand {i} has the element type {found.dtype}")
        return found
