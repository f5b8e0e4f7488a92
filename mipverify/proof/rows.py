"""Rows: linear functionals of node values, before and after they were passed back to the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.cuts import Met


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear functionals of node values, one a row, each over one box of the batch.

    coefficients: for some nodes an array (R, *shape). samples: (R,) box of each row; None: row r has box r, or the
    only one. constant: (R,), or None for zero. deviation: by how much a quantity may lie below or above what the
    coefficients and the constant make of it, (R,), or None for nothing. units: the affine node and its flat entries
    (R,) that the rows were made of, with the factor (R,) of each, or None where the coefficients are exact as they are.
    """

    coefficients: Mapping[int, Array]
    samples: np.ndarray | None = None
    constant: Array | None = None
    deviation: Array | None = None
    units: tuple[int, np.ndarray, Array] | None = None

    @property
    def like(self) -> Array:
        """Any of the arrays: for dtype and namespace."""
        return next(iter(self.coefficients.values()))

    def __len__(self) -> int:
        return int(self.like.shape[0])

    def negated(self) -> Rows:
        """The rows of the negative quantities."""
        constant = None if self.constant is None else -self.constant
        return replace(self, coefficients={index: -a for index, a in self.coefficients.items()}, constant=constant)

    def scaled(self, factors: np.ndarray) -> Rows:
        """The rows times factors (R,), powers of two up to their sign: nothing is rounded."""
        size = np.abs(factors)
        return replace(
            self,
            coefficients={i: a * factors.reshape(-1, *[1] * (a.ndim - 1)) for i, a in self.coefficients.items()},
            constant=None if self.constant is None else self.constant * factors,
            deviation=None if self.deviation is None else self.deviation * size,
            units=None if self.units is None else (*self.units[:2], self.units[2] * size),
        )

    def take(self, keep: np.ndarray) -> Rows:
        """Some of the rows, by index."""

        def some(values: Any) -> Any:
            return None if values is None else values[keep]

        units = None if self.units is None else (self.units[0], self.units[1][keep], self.units[2][keep])
        coefficients = {i: a[keep] for i, a in self.coefficients.items()}
        return Rows(coefficients, some(self.samples), some(self.constant), some(self.deviation), units)

    def with_negated(self) -> Rows:
        """Numpy rows without samples, and after them the same with the other sign."""
        count = np.arange(len(self))
        signs = np.repeat([1.0, -1.0], len(self))
        return self.take(np.concatenate([count, count])).scaled(signs)

    def surrogate(self) -> Rows:
        """Numpy rows in float32, without deviation: for searching, not for concluding."""
        with np.errstate(over="ignore"):  # a row that overflows finds no better bound, no more
            coefficients = {node: array.astype(np.float32) for node, array in self.coefficients.items()}
            constant = None if self.constant is None else self.constant.astype(np.float32)
        return Rows(coefficients, self.samples, constant)


@dataclass(frozen=True, eq=False)
class InputRows:
    """Rows that reached the input: quantity >= coefficients . x + constant - error, with error zero if not asked for.

    passed: the coefficients (R, *shape) with which each ReLU node was met, if they were to be kept. met: the lines
    chosen where cuts were dualized.
    """

    coefficients: Array
    constant: Array
    error: Array | float
    passed: dict[int, Array] = field(default_factory=dict)
    met: dict[int, Met] = field(default_factory=dict)


def unit_rows(network: Network, node: int, units: np.ndarray, samples: np.ndarray | None, like: Array) -> Rows:
    """Rows that stand for single entries of a node: `units` (R,) are flat indices into it."""
    xp = array_namespace(like)
    current = network.nodes[node]
    if isinstance(current, (Relu, Input)):
        one_hot = np.zeros((len(units), int(np.prod(current.shape))))
        one_hot[np.arange(len(units)), units] = 1.0
        return Rows({node: parameter_like(one_hot.reshape(-1, *current.shape), like)}, samples)
    assert isinstance(current, Affine)
    coefficients: dict[int, Array] = {}
    for term in current.terms:
        rows = term.operator.rows(units, like).reshape(len(units), *network.nodes[term.source].shape)
        coefficients[term.source] = coefficients[term.source] + rows if term.source in coefficients else rows
    if not coefficients:  # a constant: nothing of the input is in it
        coefficients[0] = xp.zeros((len(units), *network.input_shape), dtype=like.dtype)
    constant = None
    if current.bias is not None:
        constant = xp.reshape(parameter_like(current.bias, like), (-1,))[units]
    deviation = None
    if current.uncertainty is not None:
        deviation = xp.reshape(parameter_like(current.uncertainty, like), (-1,))[units]
    ones = xp.ones_like(xp.reshape(next(iter(coefficients.values())), (len(units), -1))[:, 0]) if len(units) else None
    factors = xp.zeros((0,), dtype=like.dtype) if ones is None else ones
    return Rows(coefficients, samples, constant, deviation, (node, units, factors))
