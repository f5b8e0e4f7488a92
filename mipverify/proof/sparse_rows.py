"""Rows of networks whose weights are sparse: only the entries that a unit depends on, as sparse matrices.

In a lattice of minima and maxima, or a pruned network, a unit reads few others, and these few again. Where rows have
filled up, they go on as whole ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from mipverify.network import Affine, Network
from mipverify.network.convolution import Conv
from mipverify.network.sparse_linear import SparseLinear
from mipverify.proof.parts import RowCosts

LEAST_SPARSE = 0.5  # share of the weights in sparse layers, from which on rows of a network begin as sparse ones
FULL = 1 / 6  # share of entries that are not zero, from which on whole rows are faster


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Coefficients of rows (R,) of a node: `matrix`, a scipy.sparse.csr_array (R, size)."""

    matrix: Any

    @property
    def coefficients(self) -> np.ndarray:
        """The entries that are stored (E,), row after row."""
        return np.asarray(self.matrix.data)

    @cached_property
    def row(self) -> np.ndarray:
        """The row of each entry (E,)."""
        return np.repeat(np.arange(self.matrix.shape[0]), np.diff(self.matrix.indptr))

    @cached_property
    def longest(self) -> int:
        """The most entries of a row."""
        return int(np.diff(self.matrix.indptr).max(initial=1))

    def replaced(self, coefficients: np.ndarray) -> SparseRows:
        """Other coefficients at the same entries."""
        import scipy.sparse

        arrays = coefficients, self.matrix.indices.copy(), self.matrix.indptr.copy()
        return SparseRows(scipy.sparse.csr_array(arrays, shape=self.matrix.shape))

    def dot(self, coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums (R,) of coefficients times values (E,), in as many additions as a row has entries."""
        total = np.zeros(self.matrix.shape[0], coefficients.dtype)
        filled = np.flatnonzero(np.diff(self.matrix.indptr))
        if len(filled):
            total[filled] = np.add.reduceat(coefficients * values, self.matrix.indptr[filled])
        return total

    def with_negated(self) -> SparseRows:
        """The rows, and behind them the same with the other sign."""
        import scipy.sparse

        return SparseRows(scipy.sparse.csr_array(scipy.sparse.vstack([self.matrix, -self.matrix], format="csr")))


Passed: TypeAlias = SparseRows | np.ndarray  # sparse rows, or whole ones (R, *shape)


def sparse(network: Network, node: int) -> bool:
    """Whether rows of single units of a node are sparse."""
    few = every = 0
    for current in network.nodes[: node + 1]:
        for term in current.terms if isinstance(current, Affine) else ():
            operator = term.operator
            if isinstance(operator, Conv):
                return False
            size = operator.work if not isinstance(operator, SparseLinear) else operator.in_size * operator.out_size
            every += size
            few += size if isinstance(operator, SparseLinear) else 0
    current = network.nodes[node]
    exact = isinstance(current, Affine) and bool(current.terms) and current.error_bound is None
    return exact and few > LEAST_SPARSE * every


class Matrices(RowCosts):
    """What rows of units of one node share: the matrices of the operators on their way."""

    def __init__(self, network: Network, node: int):
        self.network, self.node = network, node
        self._matrices: dict[tuple[int, int, Any], Any] = {}
        super().__init__()

    def field(self, samples: np.ndarray | None, units: np.ndarray) -> SparseField:
        """Some units on their way; samples: the entry of each, None where all share one."""
        return SparseField(self, samples, units)

    def matrix(self, node: int, term: int, dtype: Any) -> Any:
        """The matrix of a term of an affine node."""
        key = node, term, dtype
        if key not in self._matrices:
            current = self.network.nodes[node]
            assert isinstance(current, Affine)
            self._matrices[key] = current.terms[term].operator.to_sparse().astype(dtype)
        return self._matrices[key]


class SparseField:
    """Rows of some units of a node on their way: how they pass through nodes as sparse ones."""

    def __init__(self, shared: Matrices, samples: np.ndarray | None, units: np.ndarray, sides: int = 1):
        self.shared, self.network, self.samples, self.units, self.sides = shared, shared.network, samples, units, sides

    def twice(self) -> SparseField:
        """For the same rows, and behind them the same once more."""
        samples = None if self.samples is None else np.tile(self.samples, 2)
        return SparseField(self.shared, samples, np.tile(self.units, 2), 2)

    def start(self, like: np.ndarray) -> dict[int, Passed]:
        """The units as rows of what their node reads, in the dtype of `like`."""
        node, found = self.network.nodes[self.shared.node], dict[int, Passed]()
        assert isinstance(node, Affine)
        for place, term in enumerate(node.terms):
            rows = SparseRows(self.shared.matrix(self.shared.node, place, like.dtype)[self.units])
            both = found.get(term.source)
            found[term.source] = rows if both is None else self.add(both, rows, term.source)
        return found

    def arrived(self, index: int, rows: Passed) -> Passed:
        """Rows that reached a node, as whole ones where these are faster, or where the node is not exact."""
        node = self.network.nodes[index]
        if isinstance(rows, SparseRows):
            rows.matrix.eliminate_zeros()
            size = rows.matrix.shape[0] * rows.matrix.shape[1]
            if rows.matrix.nnz > FULL * size or getattr(node, "error_bound", None) is not None:
                rows = self.whole(index, rows)
        if isinstance(rows, SparseRows):
            entries = work = rows.longest
        else:
            entries = math.prod(rows.shape[1:])
            work = sum(term.operator.work for term in node.terms) if isinstance(node, Affine) else entries
        self.shared.count(index, self.sides * entries, self.sides * work)
        return rows

    def add(self, one: Passed, other: Passed, index: int) -> Passed:
        """The sum of rows at a node."""
        if isinstance(one, SparseRows) and isinstance(other, SparseRows):
            return SparseRows((one.matrix + other.matrix).tocsr())
        return np.asarray(self.whole(index, one) + self.whole(index, other))

    def through(self, index: int, node: Affine, rows: SparseRows) -> list[tuple[int, Passed]]:
        """Rows of an affine node as those of what it reads."""
        dtype = rows.coefficients.dtype
        return [
            (term.source, SparseRows(rows.matrix @ self.shared.matrix(index, place, dtype)))
            for place, term in enumerate(node.terms)
        ]

    def under(self, index: int, name: str, values: np.ndarray, rows: SparseRows) -> np.ndarray:
        """The values (B, *shape) of a node where its rows have entries, (E,)."""
        del index, name
        flat, columns = values.reshape(len(values), -1), rows.matrix.indices
        if self.samples is None or len(flat) == 1:
            return np.asarray(flat[0][columns])
        return np.asarray(flat[self.samples[rows.row], columns])

    def error(self, index: int, magnitudes: np.ndarray, rows: SparseRows) -> tuple[np.ndarray, int]:
        """Absolute values of rows times the magnitudes of a node (R,), and how many roundings a sum takes."""
        return rows.dot(np.abs(rows.coefficients), self.under(index, "", magnitudes, rows)), rows.longest

    def whole(self, index: int, rows: Passed) -> np.ndarray:
        """Rows as whole ones (R, *shape)."""
        if not isinstance(rows, SparseRows):
            return rows
        return np.asarray(rows.matrix.toarray().reshape(-1, *self.network.nodes[index].shape))
