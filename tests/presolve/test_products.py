"""Products in either storage are the same products."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from mipverify.presolve.products import SMALL, SPARSE, Product


@pytest.mark.parametrize(
    "given", [np.asarray, scipy.sparse.csr_array, scipy.sparse.csc_array], ids=["array", "csr", "csc"]
)
@pytest.mark.parametrize(("rows", "share", "sparse"), [(300, SPARSE / 3, True), (300, 0.5, False), (3, 0.05, False)])
def test_both_ways_in_the_storage_that_is_faster(given, rows: int, share: float, sparse: bool) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(rows, 400)) * (rng.random((rows, 400)) < share)
    assert (matrix.size > SMALL) == (rows == 300)
    product = Product.of(given(matrix))
    assert scipy.sparse.issparse(product.matrix) == sparse
    assert product.shape == matrix.shape
    there, back = rng.normal(size=(400, 7)).astype(np.float32), rng.normal(size=(rows, 7)).astype(np.float32)
    for found, wanted in ((product.apply(there), matrix @ there), (product.adjoint(back), matrix.T @ back)):
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_a_dense_matrix_of_that_type_is_not_copied() -> None:
    matrix = np.ones((300, 400), np.float32)
    assert Product.of(matrix).matrix is matrix
