"""What linear solvers are told of an input set: rows over its inputs and over further columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


class Surface(Protocol):
    """A curved part of a set, which rows only touch."""

    def tangents(self, point: Floats) -> tuple[Any, Floats] | None:
        """Rows `matrix @ v >= limit`, csr (m, columns) and (m,), that hold on all the set and cut off a point
        (columns,); None for a point within the surface."""


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """A set as `lower <= matrix @ (x, t) <= upper` over inputs x (n,) within a box and further columns t (e,).

    matrix: csr (m, n + e). further_lower, further_upper: (e,). An x within the box belongs to the set exactly where
    some t meets all of that; where there are surfaces, it belongs to the set only if it lies within these, too.
    """

    matrix: Any
    lower: Floats
    upper: Floats
    further_lower: Floats = field(default_factory=lambda: np.zeros(0))
    further_upper: Floats = field(default_factory=lambda: np.zeros(0))
    surfaces: tuple[Surface, ...] = ()

    @classmethod
    def empty(cls, size: int) -> LinearSystem:
        """No rows over `size` inputs."""
        return cls(scipy.sparse.csr_array((0, size)), np.zeros(0), np.zeros(0))

    @property
    def columns(self) -> int:
        """Number of inputs and further columns, n + e."""
        return int(self.matrix.shape[1])

    def after_rows(self, matrix: Any, lower: Floats, upper: Floats) -> LinearSystem:
        """The same after more rows over the inputs, sparse (m, n)."""
        wide = widened(scipy.sparse.csr_array(matrix), self.columns)
        return LinearSystem(
            scipy.sparse.csr_array(scipy.sparse.vstack([wide, self.matrix], format="csr")),
            np.concatenate([lower, self.lower]),
            np.concatenate([upper, self.upper]),
            self.further_lower,
            self.further_upper,
            self.surfaces,
        )

    def tangents(self, point: Floats) -> tuple[Any, Floats] | None:
        """Rows `matrix @ v >= limit` that cut off a point (columns,) outside of a surface; None where nothing does."""
        found = [rows for rows in (surface.tangents(point) for surface in self.surfaces) if rows is not None]
        if not found:
            return None
        return scipy.sparse.csr_array(scipy.sparse.vstack([rows for rows, _ in found], format="csr")), np.concatenate(
            [r for _, r in found]
        )


def side_by_side(systems: Sequence[LinearSystem], sizes: Sequence[int]) -> LinearSystem:
    """The system of several sets of `sizes` inputs each, whose inputs follow one another."""
    total = sum(system.columns for system in systems)
    inputs, further = np.cumsum([0, *sizes]), sum(sizes)
    rows, surfaces = [], list[Surface]()
    for system, size, begin in zip(systems, sizes, inputs[:-1], strict=True):
        more = system.columns - size
        columns = np.concatenate([begin + np.arange(size), further + np.arange(more)])
        further += more
        rows.append(placed(system.matrix, columns, total))
        surfaces += [_Placed(surface, columns, total) for surface in system.surfaces]
    return LinearSystem(
        scipy.sparse.csr_array(scipy.sparse.vstack(rows, format="csr")),
        np.concatenate([system.lower for system in systems]),
        np.concatenate([system.upper for system in systems]),
        np.concatenate([system.further_lower for system in systems]),
        np.concatenate([system.further_upper for system in systems]),
        tuple(surfaces),
    )


@dataclass(frozen=True, eq=False)
class _Placed:
    """A surface among more columns: its own are `columns` of `total`."""

    surface: Surface
    columns: NDArray[np.intp]
    total: int

    def tangents(self, point: Floats) -> tuple[Any, Floats] | None:
        found = self.surface.tangents(point[self.columns])
        return None if found is None else (placed(found[0], self.columns, self.total), found[1])


def placed(matrix: Any, columns: NDArray[np.intp], total: int) -> Any:
    """A sparse matrix (m, c) whose columns become `columns` (c,) of `total`."""
    entries = scipy.sparse.coo_array(matrix)
    return scipy.sparse.csr_array((entries.data, (entries.row, columns[entries.col])), shape=(matrix.shape[0], total))


def widened(matrix: Any, columns: int) -> Any:
    """The same rows over more columns, which they do not read."""
    return scipy.sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))
