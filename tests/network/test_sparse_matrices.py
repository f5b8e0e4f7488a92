"""The sparse matrix of every operator is the one that its products multiply with."""

from __future__ import annotations

import numpy as np
import pytest

from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Identity, Index, Operator, Scale, Sparse, Transposed

RNG = np.random.default_rng(0)


def kernel(*shape: int) -> np.ndarray:
    values = RNG.normal(size=shape).astype(np.float32)
    values[RNG.random(shape) < 0.2] = 0
    return values


OPERATORS: dict[str, Operator] = {
    "identity": Identity((2, 3)),
    "dense": Dense(kernel(3, 4)),
    "dense with lead": Dense(kernel(3, 4), (2, 5)),
    "scale": Scale(kernel(4, 1), (4, 3)),
    "index": Index(np.array([2, -1, 0, 0]), (3,), (2, 2)),
    "sparse": Sparse(kernel(5, 6), (2, 3), (5,)),
    "conv": Conv(kernel(4, 3, 3, 2), (5, 6)),
    "strides and pads": Conv(kernel(4, 3, 3, 2), (5, 6), (2, 1), (1, 0, 2, 1)),
    "dilations": Conv(kernel(2, 3, 2, 3), (7, 8), (1, 2), (1, 1, 0, 2), (3, 2)),
    "groups": Conv(kernel(6, 2, 3, 3), (5, 5), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    "depthwise": Conv(kernel(4, 1, 2, 2), (4, 4), (2, 2), (0, 0, 0, 0), (1, 1), 4),
    "pads beyond the kernel": Conv(kernel(2, 1, 2, 2), (2, 2), (1, 1), (3, 3, 3, 3)),
    "transposed": Transposed(Conv(kernel(4, 3, 3, 2), (5, 6), (2, 1), (1, 0, 2, 1))),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_products_with_the_matrix_are_those_of_the_operator(name: str) -> None:
    operator = OPERATORS[name]
    matrix = operator.to_sparse()
    assert matrix.shape == (operator.out_size, operator.in_size)
    x = RNG.normal(size=(3, *operator.in_shape))
    a = RNG.normal(size=(3, *operator.out_shape))
    np.testing.assert_allclose(matrix @ x.reshape(3, -1).T, operator.apply(x).reshape(3, -1).T, atol=1e-12)
    np.testing.assert_allclose(matrix.T @ a.reshape(3, -1).T, operator.adjoint(a).reshape(3, -1).T, atol=1e-12)
    assert (matrix.data != 0).all()
    per_row, per_column = np.diff(matrix.indptr).max(), np.bincount(matrix.indices).max()
    assert operator.work >= matrix.nnz
    assert operator.terms >= max(per_row, per_column)
