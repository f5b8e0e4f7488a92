"""Dense layers of which few weights are not zero: lattices, pruned networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.operators import Array, Dense


class SparseLinear(Dense):
    """`weight` (out, in) of which few entries are not zero, applied to vectors: products with its sparse matrix."""

    LEAST_SIZE = 2**13  # of the weight
    SHARE = 1 / 16  # of entries that are not zero, up to which sparse products are faster than dense ones

    def __init__(self, weight: np.ndarray):
        import scipy.sparse

        super().__init__(weight)
        self.matrix = scipy.sparse.csr_array(weight).astype(np.float64)
        per_row, per_column = np.diff(self.matrix.indptr), np.bincount(self.matrix.indices, minlength=1)
        self.terms = int(max(per_row.max(initial=1), per_column.max(initial=1)))
        self._variants: dict[tuple[str, Any], Any] = {}

    @classmethod
    def fits(cls, weight: Array) -> bool:
        """Whether it pays for a weight."""
        if is_torch_array(weight) or weight.ndim != 2 or weight.size < cls.LEAST_SIZE:
            return False
        return bool(np.count_nonzero(weight) <= cls.SHARE * weight.size)

    @property
    def work(self) -> int:
        return max(int(self.matrix.nnz), self.in_size, self.out_size)

    def _variant(self, kind: str, dtype: Any) -> Any:
        """The matrix, its absolute value or its transpose in a dtype, made on first use."""
        if (kind, dtype) not in self._variants:
            matrix = {"plain": self.matrix, "abs": abs(self.matrix), "transposed": self.matrix.T}[kind]
            self._variants[kind, dtype] = matrix.tocsr().astype(dtype)
        return self._variants[kind, dtype]

    def _times(self, kind: str, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((self._variant(kind, x.dtype) @ x.T).T)

    def apply(self, x: Array) -> Array:
        return super().apply(x) if is_torch_array(x) else self._times("plain", x)

    def apply_abs(self, x: Array) -> Array:
        return super().apply_abs(x) if is_torch_array(x) else self._times("abs", x)

    def adjoint(self, a: Array) -> Array:
        return super().adjoint(a) if is_torch_array(a) else self._times("transposed", a)

    def to_sparse(self) -> Any:
        return self.matrix

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_variants": {}}
