"""Linear maps between flat tensors: data movement, scaling, and products with a weight over windows.

Arrays are (entries, rows): one column for each row of coefficients, or point, that is passed on. `terms` bounds the
number of products added up in any entry of any result, forward or transposed, and the roundings of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mipverify_check.arithmetic import Array

MOST_WINDOWS = 2**22  # entries of windows that are worth being looked at


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
        found = linear.rows(units, signs)
        return replace(found, of_map=RowsOf(linear, units, signs)) if 8 * len(units) >= linear.outputs else found
    one_hot = np.zeros((linear.outputs, len(units)), signs.dtype)
    one_hot[units, np.arange(len(units))] = signs
    return Coefficients(linear.adjoint(one_hot))


def adjoint(linear: Map, a: Coefficients) -> Coefficients:
    """W' a, on the entries that a holds where that is possible."""
    if isinstance(linear, Gather) and linear.identity:
        return a
    if isinstance(linear, Scale):
        return a.scaled(linear.factor)
    found = linear.adjoint_of_windows(a) if isinstance(linear, Product) else None
    return Coefficients(linear.adjoint(a.dense())) if found is None else found


@dataclass(frozen=True, eq=False)
class Places:
    """Which of `size` entries rows hold: those of a column of `table` (K, P), -1 for none."""

    table: np.ndarray
    size: int

    @cached_property
    def distinct(self) -> bool:
        """Whether no column names an entry twice."""
        held = np.sort(self.table, axis=0)
        return not ((held[1:] == held[:-1]) & (held[1:] >= 0)).any()


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Rows as columns. values: (size, R); or, with `places`, (K, R): row i holds those of column `which[i]` there.

    All other entries are 0, as are those of place -1. Entries that are named twice add up. of_map: what rows they are.
    """

    values: Array
    places: Places | None = None
    which: Any = None  # (R,), where there are places
    of_map: RowsOf | None = None

    def dense(self) -> Array:
        """(size, R)."""
        if self.places is None:
            return self.values
        count = self.values.shape[1]
        found = np.zeros((self.places.size + 1, count), self.values.dtype)  # one more for -1
        index, column = self.places.table[:, self.which], np.arange(count)
        if self.places.distinct:
            found[index, column] = self.values
        else:
            for place, value in zip(index, self.values, strict=True):
                found[place, column] += value
        return found[:-1]

    def times(self, vector: Array, absolute: bool = False) -> Array:
        """The sum over entries of `vector` (size, 1 or R) times the coefficients, or their absolute values: (R,)."""
        if self.of_map is not None and vector.shape[1] == 1:
            return self.of_map.times(vector, absolute)
        return times(self.of(vector), np.abs(self.values) if absolute else self.values)

    def scaled(self, factor: Array) -> Coefficients:
        """Coefficient by coefficient times `factor` (size, 1 or R)."""
        own = None if self.of_map is None or factor.shape[1] != 1 else self.of_map.scaled(factor)
        return Coefficients(self.values * self.of(factor), self.places, self.which, own)

    def of(self, vector: Array) -> Array:
        """What belongs to each coefficient of `vector` (size, 1 or R): itself, or (K, R) with places."""
        if self.places is None:
            return vector
        if vector.shape[1] == 1:
            return np.take(vector[:, 0][self.places.table], self.which, axis=1)
        return vector[self.places.table[:, self.which], np.arange(self.values.shape[1])]

    def with_values(self, values: Array) -> Coefficients:
        return Coefficients(values, self.places, self.which)


@dataclass(frozen=True, eq=False)
class RowsOf:
    """`signs` (R,) times the rows `units` (R,) of a map, entries times `factor` (inputs, 1), None for 1.

    What such rows make of a vector is what the map makes of it: all of them at once, without the rows.
    """

    linear: Product | Sparse
    units: np.ndarray
    signs: Array
    factor: Array | None = None

    def times(self, vector: Array, absolute: bool) -> Array:
        """As `Coefficients.times`, for a vector (inputs, 1)."""
        scaled = vector if self.factor is None else (np.abs(self.factor) if absolute else self.factor) * vector
        return self.linear.apply(scaled, absolute)[self.units, 0] * (np.abs(self.signs) if absolute else self.signs)

    def scaled(self, factor: Array) -> RowsOf:
        return replace(self, factor=factor if self.factor is None else self.factor * factor)


def times(vector: Array, values: Array) -> Array:
    """The sum (R,) over entries of `vector` (n, 1 or R) times `values` (n, R)."""
    return vector[:, 0] @ values if vector.shape[1] == 1 else np.einsum("kr,kr->r", vector, values)


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
        self._windows: dict[Places, tuple[Gather, Places] | None] = {}

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

    def adjoint_of_windows(self, a: Coefficients) -> Coefficients | None:
        """The adjoint of rows that hold windows of this product's places, the same ones of each unit; else None."""
        if a.places is None:
            return None
        if a.places not in self._windows:
            self._windows[a.places] = self._windows_below(a.places)
        found = self._windows[a.places]
        if found is None:
            return None
        gather, places = found
        units, count = self.weight.shape[1], a.values.shape[1]
        spread = np.zeros((gather.outputs + 1, count), a.values.dtype)
        product = self.weight[0].T @ a.values.reshape(units, -1)
        spread[:-1] = product.reshape(-1, count)
        values = gather.gathered(spread)
        if (places.table < 0).any():  # what was passed to the padding is read by nobody
            values = np.where(places.table[:, a.which] < 0, self.weight.dtype.type(0), values)
        return Coefficients(values, places, a.which)

    def _windows_below(self, places: Places) -> tuple[Gather, Places] | None:
        """How products of weights and places above (width * places of a window) add up to entries below, and which."""
        groups, units, width = self.weight.shape
        count = self.index.shape[2]
        if groups != 1 or len(places.table) % units or places.table.size * width > MOST_WINDOWS * units:
            return None
        index = places.table.reshape(units, -1, places.table.shape[1])
        first = index[0]
        expected = np.where(first < 0, -1, first + count * np.arange(units)[:, None, None])
        if (first >= count).any() or (index != expected).any():
            return None
        reads = np.where(first < 0, -1, self.index[0][:, first]).reshape(-1, first.shape[1])
        same = _together(reads)
        table = np.full((int(same.max(initial=-1)) + 1, reads.shape[1]), -1)
        np.maximum.at(table, same, reads)
        if ((reads != table[same]) & np.tile(first >= 0, (width, 1))).any():
            return None  # windows of different forms
        return Gather(same, len(table)), Places(table, self.inputs)

    @cached_property
    def places(self) -> Places:
        """The entries that units read, by group and place."""
        return Places(np.concatenate(list(self.index), axis=1), self.inputs)

    def rows(self, units: np.ndarray, signs: Array) -> Coefficients:
        """`signs` (R,) times the rows of the flat outputs `units` (R,): nothing is added up."""
        groups, count, _ = self.weight.shape
        group, unit, place = np.unravel_index(units, (groups, count, self.index.shape[2]))
        which, values = group * self.index.shape[2] + place, self.weight[group, unit].T * signs
        if (self.places.table < 0).any():
            values = np.where(self.places.table[:, which] < 0, self.weight.dtype.type(0), values)
        sparse = Coefficients(values, self.places, which)
        return sparse if 4 * len(values) < self.inputs else Coefficients(sparse.dense())


def _together(reads: np.ndarray) -> np.ndarray:
    """(N,): numbers from 0 of classes of rows of reads (N, P); rows with an entry >= 0 in common share one."""
    same = np.arange(len(reads))
    while True:
        before = same.copy()
        for column in reads.T:
            held = np.flatnonzero(column >= 0)
            _, entry = np.unique(column[held], return_inverse=True)
            least = np.full(len(held), len(reads))
            np.minimum.at(least, entry, same[held])
            same[held] = least[entry]
        if (same == before).all():
            return np.unique(same, return_inverse=True)[1]


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
        return Coefficients(self.forward[0][:, units] * signs, self.places, units)

    @cached_property
    def places(self) -> Places:
        return Places(self.forward[1], self.inputs)


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
