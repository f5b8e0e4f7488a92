"""Linear maps between flat tensors: data movement, scaling, and products with a weight over windows.

Arrays are (entries, rows): one column for each row of coefficients, or point, that is passed on. `terms` bounds the
number of products added up in any entry of any result, forward or transposed, and the roundings of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mipverify_check.arithmetic import Array


class Map(Protocol):
    """y = W x. `absolute`: of |W|, entry by entry, or of a matrix that is nowhere below it."""

    inputs: int
    outputs: int
    terms: int

    def apply(self, x: Array, absolute: bool = False) -> Array:
        """W x for x (inputs, R) -> (outputs, R)."""

    def adjoint(self, a: Array, absolute: bool = False) -> Array:
        """W' a for a (outputs, R) -> (inputs, R)."""


def rows(linear: Map, units: np.ndarray, signs: Array) -> Coefficients:
    """`signs` (R,) times the rows `units` (R,) of W."""
    if isinstance(linear, Product | Sparse):
        return linear.rows(units, signs)
    one_hot = np.zeros((linear.outputs, len(units)), signs.dtype)
    one_hot[units, np.arange(len(units))] = signs
    return Coefficients(linear.adjoint(one_hot))


def adjoint(linear: Map, a: Coefficients) -> Coefficients:
    """W' a, on the windows that a holds where that is possible."""
    if isinstance(linear, Gather) and linear.identity:
        return a
    found = linear.adjoint_of_window(a) if isinstance(linear, Product) else None
    return Coefficients(linear.adjoint(a.dense()) if found is None else found)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Rows as columns. values: (size, R); or, with `index` (K, R), those of the entries `index`, the others being 0.

    Entries that are named twice add up.
    """

    values: Array
    index: np.ndarray | None = None
    size: int = 0

    def dense(self) -> Array:
        """(size, R)."""
        if self.index is None:
            return self.values
        found = np.zeros((self.size + 1, self.values.shape[1]), self.values.dtype)  # one more for -1, the padding
        column = np.arange(self.values.shape[1])
        for place, value in zip(self.index, self.values, strict=True):
            found[place, column] += value
        return found[:-1]

    def times(self, vector: Array) -> Array:
        """The sum over entries of `vector` (size, 1 or R) times the coefficients, (R,)."""
        if self.index is not None:
            return (self.of(vector) * self.values).sum(0)
        return times(vector, self.values)

    def of(self, vector: Array) -> Array:
        """What belongs to each coefficient of `vector` (size, 1 or R): itself, or (K, R) with an index."""
        if self.index is None:
            return vector
        if vector.shape[1] == 1:
            return vector[:, 0][self.index]
        return vector[self.index, np.arange(self.index.shape[1])]

    def with_values(self, values: Array) -> Coefficients:
        return Coefficients(values, self.index, self.size)


def times(vector: Array, values: Array) -> Array:
    """The sum (R,) over entries of `vector` (n, 1 or R) times `values` (n, R)."""
    return vector[:, 0] @ values if vector.shape[1] == 1 else (vector * values).sum(0)


class Gather:
    """y_i = x_index[i], and 0 where index[i] = -1."""

    def __init__(self, index: np.ndarray, inputs: int):
        self.index = index.reshape(-1)
        self.inputs, self.outputs = inputs, self.index.size
        self.identity = self.inputs == self.outputs and bool((self.index == np.arange(inputs)).all())
        self.readers = None if self.identity else _readers(self.index, inputs)
        self.terms = 1 if self.readers is None else max(1, len(self.readers))

    def apply(self, x: Array, absolute: bool = False) -> Array:
        return x if self.identity else _with_zero(x)[self.index]

    def adjoint(self, a: Array, absolute: bool = False) -> Array:
        return a if self.readers is None else self.gathered(_with_zero(a))

    def gathered(self, padded: Array) -> Array:
        """The adjoint of all rows of `padded` (outputs + 1, R) but the last one, which is zero."""
        if self.readers is None or not len(self.readers):
            return padded[:-1] if self.readers is None else np.zeros((self.inputs, *padded.shape[1:]), padded.dtype)
        total = padded[self.readers[0]]
        for positions in self.readers[1:]:  # -1, for inputs that are read less often, is the row of zeros
            total += padded[positions]
        return total


def _with_zero(x: Array) -> Array:
    return np.concatenate([x, np.zeros((1, *x.shape[1:]), x.dtype)])


def _readers(index: np.ndarray, inputs: int) -> np.ndarray:
    """(most readers, inputs): positions in `index` that hold each input, filled up with -1."""
    order = np.argsort(index, kind="stable")
    order = order[np.searchsorted(index[order], 0) :]
    held = index[order]
    rank = np.arange(held.size) - np.searchsorted(held, held)
    table = np.full((int(rank.max(initial=-1)) + 1, inputs), -1)
    table[rank, held] = order
    return table


class Scale:
    """y_i = factor_i x_i. roundings: of the factors."""

    def __init__(self, factor: Array, roundings: int = 0):
        self.factor, self.magnitude = factor.reshape(-1, 1), np.abs(factor).reshape(-1, 1)
        self.inputs = self.outputs = self.factor.size
        self.terms = 1 + roundings

    def apply(self, x: Array, absolute: bool = False) -> Array:
        return (self.magnitude if absolute else self.factor) * x

    adjoint = apply


class Product:
    """y[g, n, p] = sum_k weight[g, n, k] x[index[g, k, p]]: dense layers (one p), convolutions, sums over windows."""

    def __init__(self, weight: Array, index: np.ndarray, inputs: int, roundings: int = 0):
        self.weight, self.index = weight, index
        self.gather = Gather(index, inputs)
        groups, units, width = weight.shape
        self.inputs, self.outputs = inputs, groups * units * index.shape[2]
        self.terms = max(width, units * self.gather.terms) + roundings
        self._magnitude: Any = None

    def _weight(self, absolute: bool) -> Array:
        if absolute and self._magnitude is None:
            self._magnitude = np.abs(self.weight)
        return self._magnitude if absolute else self.weight

    def apply(self, x: Array, absolute: bool = False) -> Array:
        rows, (groups, width, places) = x.shape[1], self.index.shape
        windows = self.gather.apply(x).reshape(groups, width, places * rows)
        return np.matmul(self._weight(absolute), windows).reshape(self.outputs, rows)

    def adjoint(self, a: Array, absolute: bool = False) -> Array:
        rows, (groups, width, places) = a.shape[1], self.index.shape
        spread = np.zeros((groups * width * places + 1, rows), a.dtype)  # the last one for what nobody reads
        np.matmul(
            self._weight(absolute).transpose(0, 2, 1),
            a.reshape(groups, -1, places * rows),
            out=spread[:-1].reshape(groups, width, places * rows),
        )
        return self.gather.gathered(spread)

    def adjoint_of_window(self, a: Coefficients) -> Array | None:
        """The adjoint of rows that hold few places, the same for all units, as windows of the layer above do.

        None for others.
        """
        groups, units, _ = self.weight.shape
        places = self.index.shape[2]
        if a.index is None or groups != 1 or len(a.index) % units or not self._distinct:
            return None
        index = a.index.reshape(units, -1, a.index.shape[1])
        expected = np.where(index[0] < 0, -1, index[0] + places * np.arange(units)[:, None, None])
        if (index[0] >= places).any() or (index != expected).any():
            return None
        some, rows = index.shape[1:]
        spread = (self.weight[0].T @ a.values.reshape(units, some * rows)).reshape(-1, some, rows)
        found = np.zeros((self.inputs + 1, rows), spread.dtype)
        column = np.arange(rows)
        for place, part in zip(index[0], spread.transpose(1, 0, 2), strict=True):
            found[self.index[0][:, place], column] += part  # coefficients at place -1, in the padding, are zero
        return found[:-1]

    @cached_property
    def _distinct(self) -> bool:
        """Whether no window holds an entry twice."""
        held = np.sort(self.index, axis=1)
        return not ((held[:, 1:] == held[:, :-1]) & (held[:, 1:] >= 0)).any()

    def rows(self, units: np.ndarray, signs: Array) -> Coefficients:
        """`signs` (R,) times the rows of the flat outputs `units` (R,): nothing is added up."""
        groups, count, _ = self.weight.shape
        group, unit, place = np.unravel_index(units, (groups, count, self.index.shape[2]))
        where, values = self.index[group, :, place].T, self.weight[group, unit].T * signs
        sparse = Coefficients(np.where(where < 0, 0, values), where, self.inputs)
        return sparse if 4 * len(where) < self.inputs else Coefficients(sparse.dense())


class Sparse:
    """y = W x for a matrix (outputs, inputs) of few entries in each row and in each column."""

    def __init__(self, matrix: Array, roundings: int = 0):
        self.outputs, self.inputs = matrix.shape
        self.forward, self.back = _entries(matrix), _entries(matrix.T)
        self.terms = max(len(self.forward[0]), len(self.back[0])) + roundings

    @staticmethod
    def pays(matrix: np.ndarray) -> bool:
        """Whether rows and columns have so few entries that the dense product is slower."""
        used = matrix != 0
        most = [int(used.sum(axis).max(initial=0)) * matrix.shape[axis - 1] for axis in (1, 0)]
        return bool(8 * sum(most) <= matrix.size)

    def apply(self, x: Array, absolute: bool = False) -> Array:
        return _combined(*self.forward, x, absolute)

    def adjoint(self, a: Array, absolute: bool = False) -> Array:
        return _combined(*self.back, a, absolute)

    def rows(self, units: np.ndarray, signs: Array) -> Coefficients:
        """`signs` (R,) times the rows `units` (R,)."""
        values, index = self.forward
        return Coefficients(values[:, units] * signs, index[:, units], self.inputs)


def _entries(matrix: Array) -> tuple[Array, np.ndarray]:
    """Values (most entries of a row, rows) of a matrix, and their columns; 0 in column -1 where a row has fewer."""
    used = matrix != 0
    most = int(used.sum(1).max(initial=0))
    index = np.argsort(~used, axis=1, kind="stable")[:, :most].T
    values = np.take_along_axis(matrix, index.T, 1).T
    return values, np.where(values != 0, index, -1)


def _combined(values: Array, index: np.ndarray, x: Array, absolute: bool) -> Array:
    padded, total = _with_zero(x), np.zeros((index.shape[1], x.shape[1]), x.dtype)
    for value, place in zip(np.abs(values) if absolute else values, index, strict=True):
        total += value[:, None] * padded[place]
    return total


def transposed(forward: Product) -> Map:
    """The adjoint of a product as a map of its own (ConvTranspose)."""
    return _Transposed(forward)


class _Transposed:
    def __init__(self, forward: Product):
        self.forward = forward
        self.inputs, self.outputs, self.terms = forward.outputs, forward.inputs, forward.terms

    def apply(self, x: Array, absolute: bool = False) -> Array:
        return self.forward.adjoint(x, absolute)

    def adjoint(self, a: Array, absolute: bool = False) -> Array:
        return self.forward.apply(a, absolute)
