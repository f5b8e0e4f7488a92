"""Gemm, MatMul and arithmetic with constants."""

from __future__ import annotations

import math

import numpy as np

from mipverify.network.builder import Builder, Comparison, RewriteError, Tensor, Value, limited, multiple, positions
from mipverify.network.rewrites.choice import chosen
from mipverify.network.rewrites.registry import OnnxNode, rewrite


@rewrite("Gemm")
def gemm(builder: Builder, node: OnnxNode) -> Tensor:
    """alpha A' B' + beta C with one of A and B constant."""
    a, b, c = node.value(0), node.value(1), node.value(2)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        raise RewriteError("a product of two tensors that depend on the input is not piecewise linear")
    alpha, beta = np.float64(node.get("alpha", 1.0)), np.float64(node.get("beta", 1.0))
    flip_a, flip_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    if isinstance(a, Tensor):
        weight = node.constant(1, "B")
        y = _multiplied(builder, _transposed(builder, a) if flip_a else a, weight if flip_b else weight.T, alpha)
    elif isinstance(b, Tensor):
        weight = node.constant(0, "A")
        y = _multiplied(builder, b if flip_b else _transposed(builder, b), weight.T if flip_a else weight, alpha)
        y = _transposed(builder, y)
    else:
        raise RewriteError("only its summand depends on the input: write it as an Add")
    if c is None or beta == 0:
        return y
    if isinstance(c, np.ndarray) and (beta == 1 or c.dtype == np.float32):
        return builder.shift(y, c if beta == 1 else c.astype(np.float64) * beta)  # exact
    c = builder.constant(c) if isinstance(c, np.ndarray) else c
    return builder.combine([(y, 1.0), (builder.broadcast(c, y.shape), float(beta))])


def _multiplied(builder: Builder, x: Tensor, weight: np.ndarray, factor: np.float64) -> Tensor:
    """factor * weight (out, in) applied to the last axis of x; the factor is a float32."""
    if factor == 1 or weight.dtype == np.float32:  # the product of two float32 is exact in float64
        weight = weight if factor == 1 else weight.astype(np.float64) * factor
        return builder.dense(x, np.ascontiguousarray(weight))
    return builder.scale(builder.dense(x, np.ascontiguousarray(weight)), factor)


def _transposed(builder: Builder, x: Tensor) -> Tensor:
    """x with its last two axes exchanged."""
    return builder.move(x, np.swapaxes(positions(x.shape), -1, -2))


@rewrite("MatMul")
def matmul(builder: Builder, node: OnnxNode) -> Tensor:
    """The matrix product of numpy, with one operand constant."""
    a, b = node.value(0), node.value(1)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        raise RewriteError("a product of two tensors that depend on the input is not piecewise linear")
    if isinstance(a, Tensor):
        return matmul_right(builder, a, node.constant(1, "B"))
    x = node.tensor(1)
    weight = node.constant(0, "A")
    # A x = (x' A')'
    if len(x.shape) == 1:
        return matmul_right(builder, x, np.swapaxes(weight, -1, -2) if weight.ndim > 1 else weight)
    if weight.ndim == 1:
        return matmul_right(builder, _transposed(builder, x), weight)
    return _transposed(builder, matmul_right(builder, _transposed(builder, x), np.swapaxes(weight, -1, -2)))


def matmul_right(builder: Builder, x: Tensor, weight: np.ndarray) -> Tensor:
    """x @ weight by the rules of numpy.matmul."""
    shape = _matmul_shape(x.shape, weight.shape)
    if weight.ndim == 1:
        return builder.dense(x, weight[None]).viewed(shape)
    if weight.ndim == 2 or math.prod(weight.shape[:-2]) == 1:
        y = builder.dense(x, np.ascontiguousarray(weight.reshape(weight.shape[-2:]).T))
        return y.viewed(shape)
    return _stacked(builder, x, weight, shape)


def _matmul_shape(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    a = left if len(left) > 1 else (1, *left)
    b = right if len(right) > 1 else (*right, 1)
    if a[-1] != b[-2]:
        raise RewriteError(f"shapes {list(left)} and {list(right)} do not match")
    lead = np.broadcast_shapes(a[:-2], b[:-2])
    return (*lead, *(a[-2:-1] if len(left) > 1 else ()), *(b[-1:] if len(right) > 1 else ()))


def _stacked(builder: Builder, x: Tensor, weight: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """A stack of different matrices, one for each leading index, as one sparse map."""
    import scipy.sparse

    rows_shape = x.shape if len(x.shape) > 1 else (1, *x.shape)
    lead = np.broadcast_shapes(rows_shape[:-2], weight.shape[:-2])
    m, k, n = rows_shape[-2], weight.shape[-2], weight.shape[-1]
    limited([*lead, m, k, n])
    source = np.broadcast_to(positions(rows_shape), (*lead, m, k))[..., :, :, None]
    target = positions((*lead, m, n))[..., :, None, :]
    values = np.broadcast_to(weight, (*lead, k, n))[..., None, :, :]
    target, source, values = np.broadcast_arrays(target, source, values)
    entries = (values.reshape(-1).astype(np.float64), (target.reshape(-1), source.reshape(-1)))
    matrix = scipy.sparse.csr_array(entries, shape=(math.prod(shape), x.size))
    return builder.sparse(x, matrix, shape)


@rewrite("Add", "Sum")
def add(builder: Builder, node: OnnxNode) -> Tensor:
    """Sum of tensors and constants."""
    return signed_sum(builder, [(node.present(i), 1.0) for i in range(len(node.inputs))])


@rewrite("Sub")
def sub(builder: Builder, node: OnnxNode) -> Tensor:
    """Difference of tensors and constants."""
    return signed_sum(builder, [(node.present(0), 1.0), (node.present(1), -1.0)])


@rewrite("Mean")
def mean(builder: Builder, node: OnnxNode) -> Tensor:
    """Mean of tensors and constants."""
    total = signed_sum(builder, [(node.present(i), 1.0) for i in range(len(node.inputs))])
    return divided(builder, total, np.float64(len(node.inputs)))


def signed_sum(builder: Builder, parts: list[tuple[Value, float]]) -> Tensor:
    """Sum of sign * part with the broadcasting of numpy; the constants are added one after another, exactly."""
    shape = np.broadcast_shapes(*(part.shape for part, _ in parts))
    tensors = [(part, sign) for part, sign in parts if isinstance(part, Tensor)]
    total = builder.combine([(builder.broadcast(x, shape), sign) for x, sign in tensors])
    for part, sign in parts:
        if not isinstance(part, Tensor):
            total = builder.shift(total, np.negative(part) if sign < 0 else part)
    return total


@rewrite("Neg")
def neg(builder: Builder, node: OnnxNode) -> Tensor:
    """-x."""
    x = node.tensor(0)
    return builder.affine([(x, multiple(-1.0, x.shape))], x.shape)


@rewrite("Mul")
def mul(builder: Builder, node: OnnxNode) -> Tensor:
    """Product with a constant, or with a comparison as 1 and 0."""
    for mask, other in ((0, 1), (1, 0)):
        if isinstance(node.inputs[mask], Comparison):
            return chosen(builder, node.comparison(mask), node.present(other), np.zeros(()))
    a, b = node.value(0), node.value(1)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        raise RewriteError("a product of two tensors that depend on the input is not piecewise linear")
    x, factor = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(x, Tensor)
    assert isinstance(factor, np.ndarray)
    shape = np.broadcast_shapes(x.shape, factor.shape)
    return builder.scale(builder.broadcast(x, shape), factor)


@rewrite("Div")
def div(builder: Builder, node: OnnxNode) -> Tensor:
    """Quotient by a constant."""
    x = node.tensor(0)
    return divided(builder, x, node.constant(1, "the divisor"))


def divided(builder: Builder, x: Tensor, divisor: np.ndarray | np.float64) -> Tensor:
    """x / divisor as a product with the reciprocal, rounded once in float64 unless the divisor is a power of two."""
    divisor = np.asarray(divisor, dtype=np.float64)
    if not divisor.all():
        raise RewriteError("the divisor holds a zero")
    shape = np.broadcast_shapes(x.shape, divisor.shape)
    exact = bool((np.abs(np.frexp(divisor)[0]) == 0.5).all())
    return builder.scale(builder.broadcast(x, shape), 1.0 / divisor, roundings=0 if exact else 1)
