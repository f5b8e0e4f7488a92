"""Every operator class: apply, apply_abs, adjoint, rows, to_sparse and both array libraries tell the same matrix."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Identity, Index, Operator, Scale, Sparse, Transposed, product
from mipverify.network.sparse_linear import SparseLinear

RNG = np.random.default_rng(3)


def _weight(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _ragged() -> scipy.sparse.csr_array:
    return scipy.sparse.random_array((7, 12), density=0.4, rng=np.random.default_rng(5), format="csr")


OPERATORS: dict[str, Operator] = {
    "identity": Identity((2, 3)),
    "dense": Dense(_weight(4, 6)),
    "dense with leading axes": Dense(_weight(4, 3), (2, 2)),
    "scale": Scale(_weight(3, 1), (2, 3, 2)),
    "scale by a number": Scale(np.float64(-0.3), (4,)),
    "slice": Index(np.array([5, 2, 0]), (2, 3), (3,)),
    "pad": Index(np.array([-1, 0, 1, -1, 2, -1]), (3,), (2, 3)),
    "repeat": Index(np.array([0, 0, 1, -1, 1, 1]), (2, 1), (6,)),
    "sparse": Sparse(_ragged(), (3, 4), (7,)),
    "sparse linear": SparseLinear(_ragged().toarray()),
    "conv": Conv(_weight(3, 2, 3, 2), (5, 4), (2, 1), (1, 0, 2, 1)),
    "conv that leaves a rest": Conv(_weight(2, 1, 2, 2), (6, 5), (3, 2)),
    "conv with groups": Conv(_weight(4, 2, 2, 3), (4, 5), groups=2, pads=(0, 1, 0, 1)),
    "dilated conv": Conv(_weight(2, 2, 2, 2), (6, 5), (2, 1), (1, 1, 1, 1), (2, 3)),
    "depthwise conv": Conv(_weight(3, 1, 2, 2), (4, 4), (2, 2), groups=3),
    "depthwise conv, padded and dilated": Conv(_weight(2, 1, 3, 2), (7, 5), (2, 1), (2, 0, 1, 1), (2, 3), 2),
    "conv with groups, strides and dilation": Conv(_weight(4, 3, 2, 3), (8, 9), (3, 2), (0, 2, 1, 0), (2, 3), 2),
    "conv of many channels": Conv(_weight(3, 6, 3, 2), (6, 5), (2, 1), (1, 0, 2, 1)),
    "dilated conv of many channels": Conv(_weight(2, 5, 3, 2), (9, 8), (2, 3), (3, 0, 1, 2), (3, 2)),
    "conv of many channels with groups": Conv(_weight(4, 5, 2, 3), (7, 6), (1, 2), (0, 1, 1, 2), (2, 1), 2),
    "conv of many channels that skips inputs": Conv(_weight(2, 5, 1, 2), (7, 8), (3, 4)),
    "conv that skips inputs": Conv(_weight(2, 3, 1, 2), (7, 8), (3, 4)),
    "conv that reads pads alone at its border": Conv(_weight(2, 1, 1, 1), (3, 3), (2, 1), (2, 2, 2, 2)),
    "transposed conv": Transposed(Conv(_weight(3, 2, 3, 2), (5, 6), (2, 2), (1, 0, 1, 1), (1, 2))),
}


@pytest.fixture(params=OPERATORS, name="operator")
def _operator(request: pytest.FixtureRequest) -> Operator:
    return OPERATORS[request.param]


@pytest.fixture(name="matrix")
def _matrix(operator: Operator) -> np.ndarray:
    """The matrix of the operator, column by column from apply."""
    columns = operator.apply(np.eye(operator.in_size).reshape(operator.in_size, *operator.in_shape))
    assert columns.shape == (operator.in_size, *operator.out_shape)
    return columns.reshape(operator.in_size, operator.out_size).T


def test_adjoint_is_the_transpose(operator: Operator, matrix: np.ndarray) -> None:
    a = RNG.normal(size=(3, *operator.out_shape))
    result = operator.adjoint(a)
    assert result.shape == (3, *operator.in_shape)
    np.testing.assert_allclose(result.reshape(3, -1), a.reshape(3, -1) @ matrix, atol=1e-12)


def test_apply_abs_is_the_absolute_matrix(operator: Operator, matrix: np.ndarray) -> None:
    x = RNG.normal(size=(3, *operator.in_shape))
    np.testing.assert_allclose(
        operator.apply_abs(x).reshape(3, -1), x.reshape(3, -1) @ np.abs(matrix).T, atol=1e-12, rtol=1e-12
    )


def test_sparse_matrix(operator: Operator, matrix: np.ndarray) -> None:
    np.testing.assert_allclose(operator.to_sparse().toarray(), matrix, atol=1e-12)


def test_rows(operator: Operator, matrix: np.ndarray) -> None:
    units = np.array([operator.out_size - 1, 0, operator.out_size // 2])
    rows = operator.rows(units, np.zeros(1))
    assert rows.shape == (3, *operator.in_shape)
    np.testing.assert_allclose(rows.reshape(3, -1), matrix[units], atol=1e-12)


def test_terms_bound_the_products_in_a_sum(operator: Operator, matrix: np.ndarray) -> None:
    """The error analysis of presolve rests on it, in both directions."""
    assert operator.terms >= (matrix != 0).sum(1).max()
    assert operator.terms >= (matrix != 0).sum(0).max()


def test_no_samples(operator: Operator) -> None:
    assert operator.apply(np.zeros((0, *operator.in_shape))).shape == (0, *operator.out_shape)
    assert operator.adjoint(np.zeros((0, *operator.out_shape))).shape == (0, *operator.in_shape)


def test_torch_agrees_with_numpy(operator: Operator) -> None:
    torch = pytest.importorskip("torch")
    x, a = RNG.normal(size=(3, *operator.in_shape)), RNG.normal(size=(3, *operator.out_shape))
    for method, given in ((operator.apply, x), (operator.apply_abs, x), (operator.adjoint, a)):
        result = method(torch.from_numpy(given))
        assert result.dtype == torch.float64
        np.testing.assert_allclose(result.numpy(), method(given), atol=1e-12)
    units = np.array([0, operator.out_size - 1])
    like = torch.zeros(1, dtype=torch.float32)
    rows = operator.rows(units, like)
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows.numpy(), operator.rows(units, np.zeros(1)), atol=1e-6)


def test_torch_gradient_is_the_adjoint(operator: Operator) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(RNG.normal(size=(2, *operator.in_shape))).requires_grad_()
    a = torch.from_numpy(RNG.normal(size=(2, *operator.out_shape)))
    (operator.apply(x) * a).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), operator.adjoint(a.numpy()), atol=1e-12)
    a.requires_grad_()
    (operator.adjoint(a) * x.detach()).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), operator.apply(x.detach().numpy()), atol=1e-12)


def test_dtype_is_kept(operator: Operator) -> None:
    for dtype in (np.float32, np.float64):
        assert operator.apply(np.ones((1, *operator.in_shape), dtype)).dtype == dtype
        assert operator.apply_abs(np.ones((1, *operator.in_shape), dtype)).dtype == dtype
        assert operator.adjoint(np.ones((1, *operator.out_shape), dtype)).dtype == dtype


def test_a_kernel_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Conv(_weight(1, 1, 4, 4), (3, 3))


def test_only_float32_products_are_silent_about_invalid_values() -> None:
    x, weight = np.array([[np.inf, 1.0]], np.float32), np.array([[0.0], [1.0]], np.float32)
    with np.errstate(invalid="raise"):
        assert np.isnan(product(x, weight)).all()
        with pytest.raises(FloatingPointError):
            product(x.astype(float), weight.astype(float))
