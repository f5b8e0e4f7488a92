"""A-priori bounds of how far another evaluation of a network in floating point may be from its real-valued function.

For sums of n products in any order, with or without fused multiply-add, |fl(s) - s| <= gamma(n) sum |a_i b_i| with
gamma(n) = n u / (1 - n u) [Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1]. Errors of
earlier nodes are passed on by the absolute values of the weights; a ReLU passes them on as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipverify.network.convolution import Conv
from mipverify.network.graph import Affine, Network, Relu
from mipverify.network.operators import Dense, Operator, parameter_like

SLACK = 1.01  # for the rounding of the error terms themselves, which are sums of nonnegative numbers
EXTRA = 8  # roundings of one node beyond those of its sums: weights and biases that a runtime folds into each other
_TINY = 2.0**-126, 2.0**-1022  # below which float32 and float64 lose relative precision


def unit_roundoff(double: bool) -> float:
    """u of float64 or float32."""
    return 2.0**-53 if double else 2.0**-24


def node_error(
    node: Affine, sizes: list[np.ndarray], errors: list[np.ndarray], double: bool, like: np.ndarray
) -> np.ndarray:
    """Bound (B, *shape) of the error of an affine node.

    sizes: |value| (B, *shape) of every earlier node. errors: bounds of the errors they already have. `like` has B rows.
    Rounding of an evaluation in the dtype of `like` is covered too.
    """
    terms = sum(_products(term.operator) for term in node.terms) + len(node.terms) + EXTRA
    relative = terms * (unit_roundoff(double) + float(np.finfo(like.dtype).eps) / 2)
    gamma = relative / (1 - relative) if relative < 0.5 else np.inf
    total = np.zeros((len(like), *node.shape), like.dtype)
    for term in node.terms:
        error, size = errors[term.source], sizes[term.source]
        x = error + gamma * (size + error)
        total += term.operator.apply_abs(x.reshape(len(x), *term.operator.in_shape)).reshape(total.shape)
    if node.bias is not None:
        size = np.abs(node.bias) if node.magnitude is None else node.magnitude
        total += gamma * parameter_like(size, like)[None]
    return SLACK * total + terms * max(_TINY[double], float(np.finfo(like.dtype).smallest_normal))


def _products(operator: Operator) -> int:
    """How many products are added up in an entry of the operator's result."""
    if isinstance(operator, Dense):
        return operator.in_shape[-1]
    return math.prod(operator.weight.shape[1:]) if isinstance(operator, Conv) else operator.terms


def _moves(node: Affine) -> bool:
    """Whether a node only moves entries of another one."""
    operator = node.terms[0].operator
    return len(node.terms) == 1 and node.bias is None and operator.terms == 1 and not operator.parameters()


def error_bounds(
    network: Network, values: Sequence[np.ndarray], double: bool, *, exact_moves: bool = False
) -> list[np.ndarray]:
    """For every node a bound (1, *shape) of the error at all points whose values (P, *shape) are given.

    With bounds for values, lower and upper ones, this holds at all points for which they do. exact_moves: trust the
    other evaluation to move data as they are; a comparison with it is there to see whether it does.
    """
    sizes = [np.abs(value).max(axis=0, keepdims=True) for value in values]
    errors: list[np.ndarray] = []
    for node in network.nodes:
        if isinstance(node, Affine) and exact_moves and _moves(node):
            moved = errors[node.terms[0].source].reshape(1, *node.terms[0].operator.in_shape)
            errors.append(node.terms[0].operator.apply_abs(moved).reshape(1, *node.shape))
        elif isinstance(node, Affine):
            errors.append(node_error(node, sizes, errors, double, sizes[0]))
        elif isinstance(node, Relu):
            errors.append(errors[node.source].reshape(1, *node.shape))
        else:
            errors.append(np.zeros((1, *node.shape), sizes[0].dtype))
    return errors
