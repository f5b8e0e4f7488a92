"""Rows of linear bounds passed backward through the network: the step that CROWN, its optimization and splits share.

A row is a linear functional of node values that lies below the quantity of interest. Passing it back through a node
replaces that node's value by a linear lower bound in terms of earlier nodes, until only the input is left [Zhang et al.
2018, section 3]. Together with the rows runs a bound of all rounding errors made on the way, so that the result is
sound in exact arithmetic: an error in a coefficient of node k matters at most |value of node k| times its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from array_api_compat import array_namespace
from mipverify.presolve.bounds import Bounds
from mipverify.presolve.cuts import Cuts, Met, meet, meeting_error
from mipverify.presolve.interval import rounding_terms
from mipverify.presolve.layered import Layered
from mipverify.presolve.region import region_minimum
from mipverify.presolve.relaxation import Relaxation, relax
from mipverify.presolve.rounding import SLACK, floor, gamma, row_dot

from mipverify.network import Input, Network, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.specification.regions import Region


class Relaxed:
    """A network over a batch of boxes with its ReLUs replaced by lines: bounds, lines and magnitudes, computed once.

    Arrays of the bounds may have a batch axis of 1 where all boxes share them. outer: the same network over boxes that
    contain these, whose magnitudes then serve here as well.
    """

    def __init__(self, bounds: Bounds, outer: Relaxed | None = None):
        self.bounds = bounds
        self.network: Network = bounds.network
        self._outer = outer

    @cached_property
    def lines(self) -> dict[int, Relaxation]:
        """The relaxation of each ReLU node."""
        bounds = self.bounds
        sources = {node: self.network.relu_source(node) for node in self.network.relus}
        return {node: relax(bounds.lower[source], bounds.upper[source]) for node, source in sources.items()}

    @cached_property
    def layered(self) -> Layered | None:
        """The network in layers, if it is of that form."""
        return Layered.of(self.network) if self._outer is None else self._outer.layered

    @cached_property
    def magnitudes(self) -> tuple[Array, ...]:
        """Upper bounds of the values that an error in a coefficient is multiplied with, for each node (B, *shape).

        For an affine node this is sum |W| |source| + |bias|: the error of passing a row through it is relative to that.
        """
        if self._outer is not None:
            return self._outer.magnitudes
        xp = array_namespace(self.bounds.lower[0])
        sizes = [xp.maximum(xp.abs(a), xp.abs(b)) for a, b in zip(self.bounds.lower, self.bounds.upper, strict=True)]
        tiny = float(xp.finfo(sizes[0].dtype).smallest_normal)
        found: list[Array] = []
        for index, node in enumerate(self.network.nodes):
            if isinstance(node, (Input, Relu)):
                found.append(sizes[index] if isinstance(node, Input) else sizes[node.source])
                continue
            total = xp.zeros_like(sizes[index])
            for term in node.terms:
                part = term.operator.apply_abs(sizes[term.source].reshape(total.shape[0], *term.operator.in_shape))
                total = total + part.reshape(total.shape)
                # An underflow is relative to nothing: the error of passing a row through must not vanish with it.
                whole = xp.sum(xp.reshape(sizes[term.source], (total.shape[0], -1)), axis=1)
                total = total + tiny * (1 + whole.reshape(-1, *[1] * (total.ndim - 1)))
            if node.bias is not None:
                total = total + xp.abs(parameter_like(node.bias, total))[None]
            found.append(total)
        return tuple(found)

    @cached_property
    def underflow(self) -> tuple[Array, ...]:
        """Above the sum of all underflow errors of a row that starts at or below each node (B,).

        An entry of a row that underflows is off by an absolute amount, which the value of its node multiplies.
        """
        if self._outer is not None:
            return self._outer.underflow
        xp = array_namespace(self.bounds.lower[0])
        found: list[Array] = []
        for values in self.magnitudes:
            here = floor(values) * (1 + xp.sum(xp.reshape(values, (values.shape[0], -1)), axis=1))
            found.append(here + found[-1] if found else here)
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear functionals of node values, one a row, each over one box of the batch.

    coefficients: for some nodes an array (R, *shape). samples: (R,) box of each row; None: row r has box r, or the
    only one. constant: (R,), or None for zero. doubt: by how much a quantity may lie below or above what the
    coefficients and the constant make of it, (R,), or None for nothing.
    """

    coefficients: Mapping[int, Array]
    samples: np.ndarray | None = None
    constant: Array | None = None
    doubt: Array | None = None

    def sketched(self) -> Rows:
        """Numpy rows in float32 and without doubt: for searching, not for concluding."""
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


def pick(values: Array, samples: np.ndarray | None) -> Array:
    """Values (B, ...) of each row's box: (R, ...), or (1, ...) where all rows share one.

    samples None: row r belongs to box r, or all rows to the one box there is.
    """
    return values if samples is None or values.shape[0] == 1 else values[samples]


def unit_rows(network: Network, node: int, units: np.ndarray, samples: np.ndarray | None, like: Array) -> Rows:
    """Rows that stand for single entries of a node: `units` (R,) are flat indices into it."""
    xp = array_namespace(like)
    current = network.nodes[node]
    if isinstance(current, (Relu, Input)):
        one_hot = np.zeros((len(units), int(np.prod(current.shape))))
        one_hot[np.arange(len(units)), units] = 1.0
        return Rows({node: parameter_like(one_hot.reshape(-1, *current.shape), like)}, samples)
    coefficients: dict[int, Array] = {}
    for term in current.terms:
        rows = term.operator.rows(units, like).reshape(len(units), *network.nodes[term.source].shape)
        coefficients[term.source] = coefficients[term.source] + rows if term.source in coefficients else rows
    constant = None
    if current.bias is not None:
        constant = xp.reshape(parameter_like(current.bias, like), (-1,))[units]
    doubt = None
    if current.uncertainty is not None:
        doubt = xp.reshape(parameter_like(current.uncertainty, like), (-1,))[units]
    return Rows(coefficients, samples, constant, doubt)


def pass_back(
    relaxed: Relaxed,
    rows: Rows,
    *,
    slopes: Mapping[int, Array] | None = None,
    multipliers: Mapping[int, Array] | None = None,
    cuts: Mapping[int, Cuts] | None = None,
    cut_multipliers: Mapping[int, Array] | None = None,
    sound: bool = True,
    keep: bool = False,
) -> InputRows:
    """Pass rows back to the input.

    slopes: for some ReLU nodes the lower slopes to use instead, in [0, 1], (R, *shape) [Xu et al. 2021].
    multipliers: for some ReLU nodes signed split multipliers (R, *shape), subtracted from the coefficients of the
    pre-activation: nonnegative where it was split to be >= 0, nonpositive where <= 0 [Wang et al. 2021, theorem 3.1].
    cuts, cut_multipliers: by ReLU node, rows that hold there and their multipliers (R, T), not negative (numpy only).
    sound: bound the rounding errors as well. keep: return the coefficients at ReLU nodes.
    """
    network, samples = relaxed.network, rows.samples
    pending = dict(rows.coefficients)
    like = next(iter(pending.values()))
    xp = array_namespace(like)
    zero = xp.zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    constant = zero if rows.constant is None else rows.constant + zero
    error = zero
    if sound:
        error = xp.abs(constant) * gamma(len(network.nodes) + 4, like) + pick(relaxed.underflow[max(pending)], samples)
        error = error if rows.doubt is None else error + rows.doubt
    passed: dict[int, Array] = {}
    met: dict[int, Met] = {}
    for index in range(max(pending), 0, -1):
        coefficients = pending.pop(index, None)
        if coefficients is None:
            continue
        node = network.nodes[index]
        if isinstance(node, Relu):
            line = relaxed.lines[index]
            if cuts is not None and cut_multipliers is not None and index in cuts and index in cut_multipliers:
                layer, factors = cuts[index], cut_multipliers[index]
                low, high = (_flat(pick(s[node.source], samples)) for s in (relaxed.bounds.lower, relaxed.bounds.upper))
                own = _flat(pick(line.lower_slope, samples) if slopes is None else slopes[index])
                met[index], gain = meet(layer, factors, _flat(coefficients), low, high, own)
                constant = constant + gain
                if keep:
                    passed[index] = met[index].weight.reshape(coefficients.shape)
                through = met[index].slope.reshape(coefficients.shape)
                if sound:
                    magnitude = pick(relaxed.magnitudes[index], samples)
                    beneath = pick(relaxed.magnitudes[layer.source], samples)
                    error = error + meeting_error(layer, factors, _flat(coefficients), met[index], magnitude, beneath)
                _add(pending, layer.source, -layer.over_source(factors).reshape(-1, *network.nodes[layer.source].shape))
                if multipliers is not None and index in multipliers:
                    through = through - multipliers[index]
                    if sound:
                        error = error + gamma(8, like) * row_dot(xp.abs(multipliers[index]), magnitude)
                _add(pending, node.source, through)
                continue
            if keep:
                passed[index] = coefficients
            positive = xp.clip(coefficients, min=0)
            negative = coefficients - positive
            lower_slope = slopes[index] if slopes is not None and index in slopes else pick(line.lower_slope, samples)
            through = positive * lower_slope + negative * pick(line.upper_slope, samples)
            constant = constant + row_dot(negative, pick(line.upper_offset, samples))
            if sound:
                magnitude = pick(relaxed.magnitudes[index], samples)
                terms = 2 * magnitude.reshape(magnitude.shape[0], -1).shape[1] + 8
                error = error + gamma(terms, like) * row_dot(positive - negative, magnitude)
            if multipliers is not None and index in multipliers:
                through = through - multipliers[index]
                if sound:
                    error = error + gamma(8, like) * row_dot(xp.abs(multipliers[index]), magnitude)
            _add(pending, node.source, through)
            continue
        assert not isinstance(node, Input)
        if node.bias is not None:
            constant = constant + row_dot(coefficients, parameter_like(node.bias, like)[None])
        if sound:
            magnitude = pick(relaxed.magnitudes[index], samples)
            size = magnitude.reshape(magnitude.shape[0], -1).shape[1]
            terms = max(rounding_terms(node), size) + network.use_counts[index] + len(network.nodes) + 4
            error = error + gamma(terms, like) * row_dot(xp.abs(coefficients), magnitude)
            if node.uncertainty is not None:
                error = error + row_dot(xp.abs(coefficients), parameter_like(node.uncertainty, like)[None])
        for term in node.terms:
            back = term.operator.adjoint(coefficients.reshape(coefficients.shape[0], *term.operator.out_shape))
            _add(pending, term.source, back.reshape(back.shape[0], *network.nodes[term.source].shape))
    reached = pending[0] if 0 in pending else xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    return InputRows(reached, constant, error, passed, met)


def _add(pending: dict[int, Array], index: int, rows: Array) -> None:
    pending[index] = pending[index] + rows if index in pending else rows


def minimum_over_box(relaxed: Relaxed, rows: InputRows, samples: np.ndarray | None, *, sound: bool = True) -> Array:
    """The minimum of each row over its input set (R,), rounded down; -inf where anything is not finite."""
    if relaxed.bounds.region is not None:
        return _minimum_over_region(relaxed, rows, samples, sound=sound)
    lower, upper = pick(relaxed.bounds.lower[0], samples), pick(relaxed.bounds.upper[0], samples)
    a = rows.coefficients
    xp = array_namespace(a)
    positive = xp.clip(a, min=0)
    negative = a - positive
    value = row_dot(positive, lower) + row_dot(negative, upper) + rows.constant
    if sound:
        magnitude = pick(relaxed.magnitudes[0], samples)
        terms = 2 * relaxed.network.input_size + 8
        error = rows.error + gamma(terms, a) * row_dot(positive - negative, magnitude)
        value = value - SLACK * error - gamma(len(relaxed.network.nodes) + 8, a) * xp.abs(value) - floor(a)
    return xp.where(xp.isfinite(value), value, -xp.inf * xp.ones_like(value))


def _minimum_over_region(relaxed: Relaxed, rows: InputRows, samples: np.ndarray | None, *, sound: bool) -> np.ndarray:
    a, constant = _flat(rows.coefficients), np.asarray(rows.constant)
    value, error, _ = region_minimum(_region(relaxed), a, *_flat_box(relaxed, samples))
    value = value + constant
    if sound:
        value = (
            value - SLACK * (error + rows.error) - gamma(len(relaxed.network.nodes) + 8, a) * np.abs(value) - floor(a)
        )
    return np.where(np.isfinite(value), value, -np.inf)


def minimizer(relaxed: Relaxed, coefficients: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
    """Inputs (R, *input_shape) at which rows with these coefficients are least, or nearly so."""
    if relaxed.bounds.region is None:
        lower, upper = pick(relaxed.bounds.lower[0], samples), pick(relaxed.bounds.upper[0], samples)
        return np.asarray(np.where(coefficients > 0, lower, upper))
    _, _, points = region_minimum(_region(relaxed), _flat(coefficients), *_flat_box(relaxed, samples))
    return points.reshape(coefficients.shape)


def _region(relaxed: Relaxed) -> Region:
    assert relaxed.bounds.region is not None
    return relaxed.bounds.region


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _flat_box(relaxed: Relaxed, samples: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = (pick(side[0], samples) for side in (relaxed.bounds.lower, relaxed.bounds.upper))
    return _flat(lower), _flat(upper)


def row_minimum(relaxed: Relaxed, rows: Rows) -> Array:
    """A sound lower bound (R,) of each row over its box."""
    return minimum_over_box(relaxed, pass_back(relaxed, rows), rows.samples)
