"""Rows of convolutional units as patches: only the receptive field of each unit, for many units and boxes at once.

The rules are those of `backward` and `parallel`. Only the magnitudes differ that rounding errors are relative to: the
largest one of a node stands for all of it while rows are patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from mipverify.network import Affine, Network, Relu
from mipverify.network.convolution import Conv
from mipverify.network.operators import parameter_like
from mipverify.network.reverse import walk_back
from mipverify.proof.backward import Errors, Passing, box_minimum, claim_error, pick, rounded_down
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Lines
from mipverify.proof.facts import SEAL, Claim, UnitBounds
from mipverify.proof.parallel import FURTHER, ParallelPassing
from mipverify.proof.parts import ROW_WORK, never
from mipverify.proof.recording import entries_passed
from mipverify.proof.rounding import backward_terms, constant_terms, dot_terms, gamma, row_dot
from mipverify.proof.windows import Field, Images, Passed, Windows

CHUNK_BYTES = 4 * 2**20  # of the largest array of coefficients in one pass: it stays near the caches
FIRST_ROWS = 64  # in the first chunk, which shows what a row costs


def convolution(network: Network, node: int) -> Conv | None:
    """The convolution behind an affine node that is nothing but one (and a bias); None for any other node."""
    current = network.nodes[node]
    if not isinstance(current, Affine) or len(current.terms) != 1 or current.uncertainty is not None:
        return None
    operator = current.terms[0].operator
    if not isinstance(operator, Conv) or operator.groups > 1:
        return None
    return operator if network.nodes[current.terms[0].source].shape == operator.in_shape else None


def parallel_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """Bounds of single entries `units` (R,) of a node by parallel lines: both sides at once.

    samples (R,): the entry of the batch of each. The node is one that is `windowed`. Chunk after chunk, until `stop`.
    """
    return _in_chunks(bounds, node, samples, units, _parallel, "parallel", stop)


def adaptive_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """The same by CROWN's lines: a row for each side."""
    return _in_chunks(bounds, node, samples, units, _adaptive, "adaptive", stop)


class _Method(Protocol):
    def __call__(self, bounds: Bounds, field: Field, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def _in_chunks(
    bounds: Bounds,
    node: int,
    samples: np.ndarray,
    units: np.ndarray,
    method: _Method,
    lines: Lines,
    stop: Callable[[], bool],
) -> Iterator[UnitBounds]:
    images, begin, size = Images(bounds.network, node), 0, FIRST_ROWS
    while begin < len(units) and not stop():
        part = slice(begin, begin + size)
        field = Field(images, None if bounds.batch == 1 else samples[part], units[part])
        lows, highs = method(bounds, field, units[part])
        how = None
        if bounds.derivation is not None:
            some = np.flatnonzero(np.isfinite(lows) | np.isfinite(highs))
            how = entries_passed(bounds, node, units[part][some], samples[part][some], lines)
        yield UnitBounds(bounds.scope, node, samples[part], units[part], lows, highs, seal=SEAL, derivation=how)
        begin += size
        # By what the first rows have cost and not by the clock, so that the same question gets the same chunks.
        size = max(1, min(CHUNK_BYTES // (bounds.like.itemsize * images.entries), ROW_WORK // images.work))


def _parallel(bounds: Bounds, field: Field, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides at once, with the upper line's slope on both."""
    claim = Claim(field.images.node, units, np.ones(len(units), bounds.like.dtype))
    constant = _constants(bounds, field, units)
    errors = _WindowErrors(bounds, field, claim_error(bounds, claim, constant, field.samples), FURTHER)
    passing = _ParallelPassing(bounds, field, constant, errors)
    a = _walk(bounds, field, passing, field.start(bounds.like))
    return passing.sides(*_at_input(bounds, field, a))


def _adaptive(bounds: Bounds, field: Field, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CROWN's lines: the rows of all units, and behind them those of the negated ones."""
    count, start, constant = len(units), field.start(bounds.like), _constants(bounds, field, units)
    signs = np.repeat(np.array([1, -1], bounds.like.dtype), count)
    field = field.twice()
    for node, rows in start.items():
        start[node] = _with_negated(rows)
    constant = np.concatenate([constant, -constant])
    claim = Claim(field.images.node, np.tile(units, 2), signs)
    errors = _WindowErrors(bounds, field, claim_error(bounds, claim, constant, field.samples), 0)
    passing = _AdaptivePassing(bounds, field, constant, errors)
    a, lower, upper = _at_input(bounds, field, _walk(bounds, field, passing, start))
    value, error = box_minimum(a, passing.constant, lower, upper)
    found = rounded_down(bounds, value, error + errors.total)
    return found[:count], -found[count:]


def _with_negated(rows: Passed) -> Passed:
    if isinstance(rows, Windows):
        return rows.replaced(np.concatenate([rows.coefficients, -rows.coefficients]))
    return np.concatenate([rows, -rows])


def _constants(bounds: Bounds, field: Field, units: np.ndarray) -> np.ndarray:
    node, like = bounds.network.nodes[field.images.node], bounds.like
    assert isinstance(node, Affine)
    if node.bias is None:
        return np.zeros(len(units), like.dtype)
    return np.asarray(parameter_like(node.bias, like).reshape(-1)[units])


def _walk(bounds: Bounds, field: Field, passing: _Handlers, start: dict[int, Passed]) -> Passed:
    reached = walk_back(bounds.network, start, passing.relu, passing.affine, field.add)
    assert reached is not None  # rows of convolutions always reach the input
    return field.arrived(0, reached)


def _at_input(bounds: Bounds, field: Field, a: Passed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of the input, and its bounds under each row's window or as they are."""
    if not isinstance(a, Windows):
        return a, pick(bounds.lower[0], field.samples), pick(bounds.upper[0], field.samples)
    lower, upper = (field.under(0, name, getattr(bounds, name)[0], a) for name in ("lower", "upper"))
    return a.coefficients, lower, upper


class _WindowErrors(Errors):
    """`Errors` of rows that may be windows."""

    def __init__(self, bounds: Bounds, field: Field, start: np.ndarray, further: int):
        super().__init__(bounds, field.samples, start, further)
        self.field = field

    def pass_windows(self, index: int, coefficients: np.ndarray) -> None:
        """Windows with coefficients (R, h, w, C) are passed back through a node."""
        entries = math.prod(coefficients.shape[1:])
        terms = max(backward_terms(self.network, index), dot_terms(entries) + constant_terms(self.network))
        size = row_dot(np.abs(coefficients), np.ones((1, entries), coefficients.dtype))
        largest = pick(self.field.images.largest(index, self.bounds.magnitudes[index]), self.samples)
        self.total = self.total + gamma(terms + self.further, coefficients) * size * largest


class _Handlers(Protocol):
    def affine(self, index: int, node: Affine, rows: Any) -> Any: ...

    def relu(self, index: int, node: Relu, rows: Any) -> Any: ...


class _AdaptivePassing(Passing):
    """Rows as windows while these pay, then whole; CROWN's lines."""

    errors: _WindowErrors

    def __init__(self, bounds: Bounds, field: Field, constant: np.ndarray, errors: _WindowErrors):
        super().__init__(bounds, field.samples, constant, errors)
        self.field = field

    def affine(self, index: int, node: Affine, rows: Any) -> Any:
        """As in `backward`."""
        rows = self.field.arrived(index, rows)
        if not isinstance(rows, Windows):
            return super().affine(index, node, rows)
        self.errors.pass_windows(index, rows.coefficients)
        self.constant = self.constant + _bias(self.field, index, node, rows)
        return self.field.through(index, node, rows)

    def relu(self, index: int, node: Relu, rows: Any) -> Any:
        """As in `backward`."""
        rows = self.field.arrived(index, rows)
        if not isinstance(rows, Windows):
            return super().relu(index, node, rows)
        a, line = rows.coefficients, self.lines[index]
        self.errors.pass_windows(index, a)
        positive = np.maximum(a, 0)
        negative = a - positive
        self.constant = self.constant + row_dot(negative, self.field.under(index, "offset", line.upper_offset, rows))
        positive *= self.field.under(index, "below", line.lower_slope, rows)
        negative *= self.field.under(index, "above", line.upper_slope, rows)
        return [(node.source, rows.replaced(positive + negative))]


class _ParallelPassing(ParallelPassing):
    """Rows as windows while these pay, then whole; parallel lines."""

    errors: _WindowErrors

    def __init__(self, bounds: Bounds, field: Field, constant: np.ndarray, errors: _WindowErrors):
        super().__init__(bounds, field.samples, constant, errors)
        self.field = field

    def affine(self, index: int, node: Affine, rows: Any) -> Any:
        """As in `parallel`."""
        rows = self.field.arrived(index, rows)
        if not isinstance(rows, Windows):
            return super().affine(index, node, rows)
        self.errors.pass_windows(index, rows.coefficients)
        self.constant = self.constant + _bias(self.field, index, node, rows)
        return self.field.through(index, node, rows)

    def relu(self, index: int, node: Relu, rows: Any) -> Any:
        """As in `parallel`."""
        rows = self.field.arrived(index, rows)
        if not isinstance(rows, Windows):
            return super().relu(index, node, rows)
        a, line = rows.coefficients, self.bounds.lines[index]
        self.errors.pass_windows(index, a)
        self.add_offset(a, self.field.under(index, "offset", line.upper_offset, rows))
        return [(node.source, rows.replaced(a * self.field.under(index, "above", line.upper_slope, rows)))]


def _bias(field: Field, index: int, node: Affine, rows: Windows) -> Any:
    """What a node's bias adds to the constants of rows."""
    if node.bias is None:
        return 0.0
    bias = np.broadcast_to(parameter_like(node.bias, rows.coefficients), node.shape)
    return row_dot(rows.coefficients, field.under(index, "bias", bias[None], rows))
