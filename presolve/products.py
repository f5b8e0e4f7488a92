"""Products of one matrix with many columns, both ways, in whichever storage is faster.

After reduction, a unit of a convolution still reads a few per cent of all inputs, and so does a cut of it. Dense
products of those cost an ascent most of its time; of fully connected layers, they are the fastest there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SPARSE = 0.15  # share of entries that are not zero, up to which sparse products are faster (two times at 0.12, K = 128)
SMALL = 2**15  # entries, up to which a dense product takes no longer than a sparse one needs to begin


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix (M, N), and its transpose, dense or as sparse rows."""

    matrix: Any
    transposed: Any

    @staticmethod
    def of(matrix: Any, dtype: type = np.float32) -> Product:
        """Of a dense or a sparse matrix; a dense one of that type is not copied."""
        sparse = not isinstance(matrix, np.ndarray)
        size = matrix.shape[0] * matrix.shape[1]
        if size > SMALL and (matrix.nnz if sparse else np.count_nonzero(matrix)) <= SPARSE * size:
            import scipy.sparse

            rows = scipy.sparse.csr_array(matrix).astype(dtype)
            return Product(rows, scipy.sparse.csr_array(rows.T))
        dense = (matrix.toarray() if sparse else matrix).astype(dtype, copy=False)
        return Product(dense, dense.T)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """The matrix times columns (N, K): (M, K)."""
        return np.asarray(self.matrix @ columns)

    def adjoint(self, columns: np.ndarray) -> np.ndarray:
        """Its transpose times columns (M, K): (N, K)."""
        return np.asarray(self.transposed @ columns)
