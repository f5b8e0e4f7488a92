"""Rows of units that reach only a part of what is below them, for many units and boxes at once.

Of units of convolutions that is their receptive field (`windows`), of those of sparse layers few entries
(`sparse_rows`). The rules are those of `backward` and `parallel`, for as long as rows are partial and after that. Only
the magnitudes differ that rounding errors are relative to: the largest one of a node stands for all of it in windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

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
from mipverify.proof.rounding import backward_terms, constant_terms, gamma
from mipverify.proof.rows import require_units
from mipverify.proof.sparse_rows import Matrices, sparse
from mipverify.proof.windows import Images, Windows, windowed

CHUNK_BYTES = 8 * 2**20  # of the largest array of coefficients in one pass: it stays in the third-level cache
FIRST_ROWS = 64  # in the first chunk, which shows what a row costs


def convolution(network: Network, node: int) -> Conv | None:
    """The convolution behind an affine node that is nothing but one (and a bias); None for any other node."""
    current = network.nodes[node]
    if not isinstance(current, Affine) or len(current.terms) != 1 or current.error_bound is not None:
        return None
    operator = current.terms[0].operator
    if not isinstance(operator, Conv) or operator.groups > 1:
        return None
    return operator if network.nodes[current.terms[0].source].shape == operator.in_shape else None


def parallel_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """Bounds of single entries `units` (R,) of a node by parallel lines: both sides at once.

    samples (R,): the entry of the batch of each. The node is one that `has_partial_rows`. Chunk after chunk, until
    `stop`.
    """
    return _in_chunks(bounds, node, samples, units, _parallel, "parallel", stop)


def adaptive_patches(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """The same by CROWN's lines: a row for each side."""
    return _in_chunks(bounds, node, samples, units, _adaptive, "adaptive", stop)


class PartialRows(Protocol):
    """Coefficients of rows on a part of a node: `Windows` or `SparseRows`."""

    @property
    def coefficients(self) -> np.ndarray: ...

    def dot(self, coefficients: np.ndarray, values: np.ndarray) -> np.ndarray: ...

    def replaced(self, coefficients: np.ndarray) -> Any: ...


class PartialField(Protocol):
    """Rows of units on their way, and how partial ones pass through nodes: `windows.Field` or `SparseField`."""

    samples: np.ndarray | None
    units: np.ndarray

    def twice(self) -> Any: ...

    def start(self, like: np.ndarray) -> dict[int, Any]: ...

    def arrived(self, index: int, rows: Any) -> Any: ...

    def add(self, one: Any, other: Any, index: int) -> Any: ...

    def through(self, index: int, node: Affine, rows: Any) -> Any: ...

    def under(self, index: int, name: str, values: np.ndarray, rows: Any) -> np.ndarray: ...

    def error(self, index: int, magnitudes: np.ndarray, rows: Any) -> tuple[np.ndarray, int]: ...

    def whole(self, index: int, rows: Any) -> np.ndarray: ...


_Method: TypeAlias = Callable[[Bounds, int, PartialField], tuple[np.ndarray, np.ndarray]]


def has_partial_rows(network: Network, node: int) -> bool:
    """Whether rows of single units of a node reach only a part of what is below it: windows, or few entries."""
    return windowed(network, node) or sparse(network, node)


def _in_chunks(
    bounds: Bounds,
    node: int,
    samples: np.ndarray,
    units: np.ndarray,
    method: _Method,
    lines: Lines,
    stop: Callable[[], bool],
) -> Iterator[UnitBounds]:
    require_units(bounds.network, node, units)
    windows = windowed(bounds.network, node)
    shared = Images(bounds.network, node) if windows else Matrices(bounds.network, node)
    begin, size = 0, FIRST_ROWS
    while begin < len(units) and not stop():
        part = slice(begin, begin + size)
        field = shared.field(None if bounds.batch == 1 else samples[part], units[part])
        lows, highs = method(bounds, node, field)
        how = None
        if bounds.derivation is not None:
            some = np.flatnonzero(np.isfinite(lows) | np.isfinite(highs))
            how = entries_passed(bounds, node, units[part][some], samples[part][some], lines)
        yield UnitBounds(bounds.scope, node, samples[part], units[part], lows, highs, seal=SEAL, derivation=how)
        begin += size
        # By what the first rows have cost and not by the clock, so that the same question gets the same chunks.
        size = max(1, min(CHUNK_BYTES // (bounds.like.itemsize * shared.entries), ROW_WORK // shared.work))


def _parallel(bounds: Bounds, node: int, field: PartialField) -> tuple[np.ndarray, np.ndarray]:
    """Both sides at once, with the upper line's slope on both."""
    claim = Claim(node, field.units, np.ones(len(field.units), bounds.like.dtype))
    constant = _constants(bounds, node, field.units)
    errors = _PartialErrors(bounds, field, claim_error(bounds, claim, constant, field.samples), FURTHER)
    passing = ParallelPassing(bounds, field.samples, constant, errors)
    partly = _Partially(passing, field, errors, partial(_under_parallel, passing, field))
    return passing.sides(*_at_input(bounds, field, _walk(bounds, partly, field.start(bounds.like))))


def _adaptive(bounds: Bounds, node: int, field: PartialField) -> tuple[np.ndarray, np.ndarray]:
    """CROWN's lines: the rows of all units, and behind them those of the negated ones."""
    count, constant = len(field.units), _constants(bounds, node, field.units)
    start = {source: _with_negated(rows) for source, rows in field.start(bounds.like).items()}
    field, constant = field.twice(), np.concatenate([constant, -constant])
    claim = Claim(node, field.units, np.repeat(np.array([1, -1], bounds.like.dtype), count))
    errors = _PartialErrors(bounds, field, claim_error(bounds, claim, constant, field.samples), 0)
    passing = Passing(bounds, field.samples, constant, errors)
    partly = _Partially(passing, field, errors, partial(_under_adaptive, passing, field))
    a, lower, upper = _at_input(bounds, field, _walk(bounds, partly, start))
    value, error = box_minimum(a, passing.constant, lower, upper)
    found = rounded_down(bounds, value, error + errors.total)
    return found[:count], -found[count:]


def _with_negated(rows: Any) -> Any:
    return np.concatenate([rows, -rows]) if isinstance(rows, np.ndarray) else rows.with_negated()


def _constants(bounds: Bounds, node: int, units: np.ndarray) -> np.ndarray:
    current, like = bounds.network.nodes[node], bounds.like
    assert isinstance(current, Affine)
    if current.bias is None:
        return np.zeros(len(units), like.dtype)
    return np.asarray(parameter_like(current.bias, like).reshape(-1)[units])


def _walk(bounds: Bounds, partly: _Partially, start: dict[int, Any]) -> Any:
    reached = walk_back(bounds.network, start, partly.relu, partly.affine, partly.field.add)
    assert reached is not None  # units of nodes that read anything depend on the input
    return partly.field.arrived(0, reached)


def _at_input(bounds: Bounds, field: PartialField, a: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of the input, and its bounds under each row's window or as they are."""
    if not isinstance(a, Windows):
        a = field.whole(0, a)
        return a, pick(bounds.lower[0], field.samples), pick(bounds.upper[0], field.samples)
    lower, upper = (field.under(0, name, getattr(bounds, name)[0], a) for name in ("lower", "upper"))
    return a.coefficients, lower, upper


class _PartialErrors(Errors):
    """`Errors` of rows that may be partial ones."""

    def __init__(self, bounds: Bounds, field: PartialField, start: np.ndarray, further: int):
        super().__init__(bounds, field.samples, start, further)
        self.field = field

    def pass_partial(self, index: int, rows: PartialRows) -> None:
        """Partial rows are passed back through a node."""
        size, terms = self.field.error(index, self.bounds.magnitudes[index], rows)
        terms = max(backward_terms(self.network, index), terms + constant_terms(self.network)) + self.further
        self.total = self.total + gamma(terms, size) * size
        off = self.bounds.deviation(index)
        if off is not None:
            values = self.field.under(index, "deviation", off, rows)
            self.deviate(rows.dot(np.abs(rows.coefficients), values))


@dataclass(eq=False)
class _Partially:
    """Rows as partial ones while these pay, then whole as `whole` passes them back, whose constant takes all offsets.

    under_lines: from partial rows at a ReLU to the coefficients of what that reads; adds the offsets.
    """

    whole: Passing | ParallelPassing
    field: PartialField
    errors: _PartialErrors
    under_lines: Callable[[int, PartialRows], np.ndarray]

    def affine(self, index: int, node: Affine, rows: Any) -> Any:
        """As `whole` does it; partial rows through the node's terms."""
        rows = self.field.arrived(index, rows)
        if isinstance(rows, np.ndarray):
            return self.whole.affine(index, node, rows)
        self.errors.pass_partial(index, rows)
        self.whole.constant = self.whole.constant + _bias(self.field, index, node, rows)
        return self.field.through(index, node, rows)

    def relu(self, index: int, node: Relu, rows: Any) -> Any:
        """As `whole` does it; partial rows under their lines."""
        rows = self.field.arrived(index, rows)
        if isinstance(rows, np.ndarray):
            return self.whole.relu(index, node, rows)
        self.errors.pass_partial(index, rows)
        return [(node.source, rows.replaced(self.under_lines(index, rows)))]


def _under_adaptive(passing: Passing, field: PartialField, index: int, rows: PartialRows) -> np.ndarray:
    a, line, under = rows.coefficients, passing.lines[index], field.under
    positive = np.maximum(a, 0)
    negative = a - positive
    passing.constant = passing.constant + rows.dot(negative, under(index, "offset", line.upper_offset, rows))
    positive *= under(index, "below", line.lower_slope, rows)
    negative *= under(index, "above", line.upper_slope, rows)
    return positive + negative


def _under_parallel(passing: ParallelPassing, field: PartialField, index: int, rows: PartialRows) -> np.ndarray:
    a, line = rows.coefficients, passing.bounds.lines[index]
    passing.add_offset(a, field.under(index, "offset", line.upper_offset, rows), rows.dot)
    return np.asarray(a * field.under(index, "above", line.upper_slope, rows))


def _bias(field: PartialField, index: int, node: Affine, rows: PartialRows) -> Any:
    """What a node's bias adds to the constants of rows."""
    if node.bias is None:
        return 0.0
    bias = np.broadcast_to(parameter_like(node.bias, rows.coefficients), node.shape)
    return rows.dot(rows.coefficients, field.under(index, "bias", bias[None], rows))
