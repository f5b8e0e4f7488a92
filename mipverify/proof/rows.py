"""Rows: linear functionals of node values, before and after they were passed back to the input."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import CutRelaxation
from mipverify.proof.facts import SEAL, Claim, Sealed
from mipverify.proof.rounding import row_dot


@dataclass(frozen=True, eq=False)
class Rows(Sealed):
    """Linear functionals of node values, one a row, each over one entry of a batch.

    coefficients: for some nodes an array (R, *shape). samples: (R,) entry of each row; None: row r has entry r, or the
    only one. constant: (R,), or None for zero. deviation: by how much a quantity may lie below or above what the
    coefficients and the constant make of it, (R,), or None for nothing. claim: what the rows stand for (`unit_rows`);
    None where the coefficients are exact as they are (`functionals`).
    """

    coefficients: Mapping[int, Array]
    samples: np.ndarray | None = None
    constant: Array | None = None
    deviation: Array | None = None
    claim: Claim | None = None

    @property
    def like(self) -> Array:
        """Any of the arrays: for dtype and namespace."""
        return next(iter(self.coefficients.values()))

    def __len__(self) -> int:
        return int(self.like.shape[0])

    def negated(self) -> Rows:
        """The rows of the negative quantities."""
        claim = None if self.claim is None else Claim(self.claim.node, self.claim.units, -self.claim.factors)
        coefficients = {index: -a for index, a in self.coefficients.items()}
        constant = None if self.constant is None else -self.constant
        return Rows(coefficients, self.samples, constant, self.deviation, claim, seal=SEAL)

    def scaled(self, factors: np.ndarray) -> Rows:
        """The rows times factors (R,): powers of two up to their sign, so that nothing is rounded.

        Raises ValueError for others.
        """
        # In the precision that the rows were made in: it is what their rounding errors are counted by.
        factors = np.asarray(factors, self.like.dtype)
        if not (np.abs(np.frexp(factors)[0]) == 0.5).all():
            raise ValueError("rows are scaled by powers of two alone")
        claim = None if self.claim is None else Claim(self.claim.node, self.claim.units, self.claim.factors * factors)
        coefficients = {i: a * factors.reshape(-1, *[1] * (a.ndim - 1)) for i, a in self.coefficients.items()}
        constant = None if self.constant is None else self.constant * factors
        deviation = None if self.deviation is None else self.deviation * np.abs(factors)
        return Rows(coefficients, self.samples, constant, deviation, claim, seal=SEAL)

    def take(self, keep: np.ndarray) -> Rows:
        """Some of the rows, by index."""

        def some(values: Any) -> Any:
            return None if values is None else values[keep]

        claim = self.claim
        claim = None if claim is None else Claim(claim.node, claim.units[keep], claim.factors[keep])
        coefficients = {i: a[keep] for i, a in self.coefficients.items()}
        deviation = some(self.deviation)
        return Rows(coefficients, some(self.samples), some(self.constant), deviation, claim, seal=SEAL)

    def with_negated(self) -> Rows:
        """Numpy rows, and after them the same with the other sign."""
        count = np.arange(len(self))
        return self.take(np.concatenate([count, count])).scaled(np.repeat([1.0, -1.0], len(self)))

    def surrogate(self) -> Rows:
        """Numpy rows in float32, which stand for nothing: for searching, not for concluding."""
        with np.errstate(over="ignore"):  # a row that overflows finds no better bound, no more
            coefficients = {node: array.astype(np.float32) for node, array in self.coefficients.items()}
            constant = None if self.constant is None else self.constant.astype(np.float32)
        return Rows(coefficients, self.samples, constant, seal=SEAL)


def functionals(
    coefficients: Mapping[int, Array], samples: np.ndarray | None = None, constant: Array | None = None
) -> Rows:
    """Rows that are exactly what their coefficients say."""
    return Rows(coefficients, samples, constant, seal=SEAL)


def require_units(network: Network, node: int, units: np.ndarray) -> None:
    """Raises ValueError where a node has no such flat entries."""
    if node < 0 or (len(units) and not 0 <= np.min(units) <= np.max(units) < math.prod(network.nodes[node].shape)):
        raise ValueError(f"node {node} has no such units")


def unit_rows(network: Network, node: int, units: np.ndarray, samples: np.ndarray | None, like: Array) -> Rows:
    """Rows that stand for single entries of a node: `units` (R,) are flat indices into it."""
    xp = array_namespace(like)
    current = network.nodes[node]
    require_units(network, node, units)
    claim = Claim(node, units, xp.ones(len(units), dtype=like.dtype, device=like.device))
    if isinstance(current, (Relu, Input)):
        one_hot = np.zeros((len(units), int(np.prod(current.shape))))
        one_hot[np.arange(len(units)), units] = 1.0
        rows = {node: parameter_like(one_hot.reshape(-1, *current.shape), like)}
        return Rows(rows, samples, claim=claim, seal=SEAL)
    assert isinstance(current, Affine)
    coefficients: dict[int, Array] = {}
    for term in current.terms:
        part = term.operator.rows(units, like).reshape(len(units), *network.nodes[term.source].shape)
        coefficients[term.source] = coefficients[term.source] + part if term.source in coefficients else part
    if not coefficients:  # a constant: nothing of the input is in it
        coefficients[0] = xp.zeros((len(units), *network.input_shape), dtype=like.dtype, device=like.device)
    constant = None
    if current.bias is not None:
        constant = xp.reshape(parameter_like(current.bias, like), (-1,))[units]
    deviation = None
    if current.error_bound is not None:
        deviation = xp.reshape(parameter_like(current.error_bound, like), (-1,))[units]
    return Rows(coefficients, samples, constant, deviation, claim, seal=SEAL)


@dataclass(frozen=True, eq=False)
class InputRows:
    """Rows as they reached the input: coefficients (R, *input_shape) and constant (R,).

    passed: the coefficients (R, *shape) with which each ReLU node was met, if they were to be kept. relaxed: what was
    chosen where cuts were dualized.
    """

    coefficients: Array
    constant: Array
    passed: dict[int, Array] = field(default_factory=dict)
    relaxed: dict[int, CutRelaxation] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LinearBounds(InputRows, Sealed):
    """The fact that each row's quantity is at least coefficients . x + constant - error, (R,) all, on its input set.

    bounds: under which that holds. claim, samples: as in `Rows`. key: of these rows, with this evidence.
    """

    error: Array = None
    bounds: Bounds = None  # type: ignore[assignment]  # always given
    claim: Claim | None = None
    samples: np.ndarray | None = None
    key: bytes = field(default_factory=lambda: os.urandom(16))

    @cached_property
    def size(self) -> np.ndarray:
        """What rounding errors of the rows' values are relative to: |coefficients| . |x| + |constant| (R,)."""
        sizes = np.maximum(np.abs(self.bounds.lower[0]), np.abs(self.bounds.upper[0]))
        every = sizes if len(sizes) == 1 or self.samples is None else sizes[self.samples]
        return np.asarray(row_dot(np.abs(self.coefficients), every) + np.abs(self.constant))

    def take(self, keep: np.ndarray) -> LinearBounds:
        """Some of the rows, by index."""
        claim, entries = self.claim, np.arange(len(self.constant)) if self.samples is None else self.samples
        claim = None if claim is None else Claim(claim.node, claim.units[keep], claim.factors[keep])
        passed = {node: a[keep] for node, a in self.passed.items()}
        error, arrays = np.asarray(self.error)[keep], (self.coefficients[keep], self.constant[keep])
        return LinearBounds(*arrays, passed, {}, error, self.bounds, claim, entries[keep], seal=SEAL)
