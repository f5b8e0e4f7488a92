"""Rows of linear bounds passed backward through the network: the step that CROWN, its optimization and splits share.

A row is a linear functional of node values that lies below the quantity of interest. Passing it back through a node
replaces that node's value by a linear lower bound in terms of earlier nodes, until only the input is left [Zhang et al.
2018, section 3]. Together with the rows runs a bound of all rounding errors made on the way, so that the result is
sound in exact arithmetic: an error in a coefficient of node k matters at most |value of node k| times its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from mipverify.network import Input, Network, Relu
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import Cuts, Met, meet, meeting_error
from mipverify.proof.input_minimum import region_minimum
from mipverify.proof.relaxation import Relaxation, relax
from mipverify.proof.rounding import SLACK, backward_terms, constant_terms, floor, gamma, reads, rounding_terms, row_dot
from mipverify.proof.rows import InputRows, Rows
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
    def kept(self) -> dict[Any, Any]:
        """What searches on these boxes and on parts of them make once and use again."""
        return {} if self._outer is None else self._outer.kept

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


def pick(values: Array, samples: np.ndarray | None) -> Array:
    """Values (B, ...) of each row's box: (R, ...), or (1, ...) where all rows share one.

    samples None: row r belongs to box r, or all rows to the one box there is.
    """
    return values if samples is None or values.shape[0] == 1 else values[samples]


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
    multipliers: for some ReLU nodes the multipliers (R, *shape) of bounds of the pre-activation, subtracted from its
    coefficients: positive ones of its lower bound, negative ones of the upper one. Where a split has made that zero,
    these are the multipliers of beta-CROWN [Wang et al. 2021, theorem 3.1]; for others, duals of a linear program.
    cuts, cut_multipliers: by ReLU node, rows that hold there and their multipliers (R, T), not negative (numpy only).
    sound: bound the rounding errors as well. keep: return the coefficients at ReLU nodes.
    """
    network, samples, like = relaxed.network, rows.samples, rows.like
    pending = dict(rows.coefficients)
    xp = array_namespace(like)
    zero = xp.zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    constant = zero if rows.constant is None else rows.constant + zero
    error = starting_error(relaxed, rows, constant) if sound else zero
    further = len(cut_multipliers or ())  # layers whose cuts add to the coefficients of their source
    passed: dict[int, Array] = {}
    met: dict[int, Met] = {}
    for index in range(max(pending), 0, -1):
        coefficients = pending.pop(index, None)
        if coefficients is None:
            continue
        node = network.nodes[index]
        magnitude: Array = pick(relaxed.magnitudes[index], samples) if sound else None
        rounding = gamma(backward_terms(network, index) + further, like) if sound else 0.0
        if isinstance(node, Relu):
            line = relaxed.lines[index]
            if cuts is not None and cut_multipliers is not None and index in cuts and index in cut_multipliers:
                layer, factors = cuts[index], cut_multipliers[index]
                low, high = (_flat(pick(s[node.source], samples)) for s in (relaxed.bounds.lower, relaxed.bounds.upper))
                own = _flat(pick(line.lower_slope, samples) if slopes is None else slopes[index])
                met[index], gain = meet(layer, factors, _flat(coefficients), low, high, own)
                constant = constant + gain
                through = met[index].slope.reshape(coefficients.shape)
                if sound:
                    beneath = pick(relaxed.magnitudes[layer.source], samples)
                    more = backward_terms(network, index) + reads(network, index) + further
                    error = error + meeting_error(
                        layer, factors, _flat(coefficients), met[index], magnitude, beneath, more
                    )
                _add(pending, layer.source, -layer.over_source(factors).reshape(-1, *network.nodes[layer.source].shape))
                coefficients = met[index].weight.reshape(coefficients.shape)
            else:
                positive = xp.clip(coefficients, min=0)
                negative = coefficients - positive
                below = slopes[index] if slopes is not None and index in slopes else pick(line.lower_slope, samples)
                if sound and slopes is not None and index in slopes:
                    below = xp.clip(below, min=0, max=1)
                through = positive * below + negative * pick(line.upper_slope, samples)
                constant = constant + row_dot(negative, pick(line.upper_offset, samples))
                if sound:
                    error = error + rounding * row_dot(positive - negative, magnitude)
            if keep:
                passed[index] = coefficients
            if multipliers is not None and index in multipliers:
                factors = multipliers[index]
                from_below = xp.clip(factors, min=0)
                low, high = (pick(side[node.source], samples) for side in (relaxed.bounds.lower, relaxed.bounds.upper))
                constant = constant + row_dot(from_below, low) + row_dot(factors - from_below, high)
                through = through - factors
                if sound:
                    error = error + 2 * rounding * row_dot(xp.abs(factors), magnitude)
            _add(pending, node.source, through)
            continue
        assert not isinstance(node, Input)
        if node.bias is not None:
            constant = constant + row_dot(coefficients, parameter_like(node.bias, like)[None])
        if sound:
            error = error + rounding * row_dot(xp.abs(coefficients), magnitude)
            if node.uncertainty is not None:
                error = error + row_dot(xp.abs(coefficients), parameter_like(node.uncertainty, like)[None])
        for term in node.terms:
            back = term.operator.adjoint(coefficients.reshape(coefficients.shape[0], *term.operator.out_shape))
            _add(pending, term.source, back.reshape(back.shape[0], *network.nodes[term.source].shape))
    reached = pending[0] if 0 in pending else xp.zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    return InputRows(reached, constant, error, passed, met)


def starting_error(relaxed: Relaxed, rows: Rows, constant: Array) -> Array:
    """What rows (R,) may be off by before they are passed back: rounded when they were made, underflow further on."""
    network = relaxed.network
    start = max(rows.coefficients) if rows.units is None else rows.units[0]
    error = abs(constant) * gamma(constant_terms(network), constant) + pick(relaxed.underflow[start], rows.samples)
    if rows.units is not None:
        node, units, factors = rows.units
        sizes = _flat(relaxed.magnitudes[node])
        affine = network.nodes[node]
        assert not isinstance(affine, (Input, Relu))
        box = 0 if len(sizes) == 1 else np.arange(len(units)) if rows.samples is None else rows.samples
        terms = rounding_terms(affine) + reads(network, node)
        error = error + gamma(terms, constant) * factors * sizes[box, units]
    return error if rows.deviation is None else error + rows.deviation


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
        value = value - SLACK * error - gamma(constant_terms(relaxed.network), a) * xp.abs(value) - floor(a)
    return xp.where(xp.isfinite(value), value, -xp.inf * xp.ones_like(value))


def _minimum_over_region(relaxed: Relaxed, rows: InputRows, samples: np.ndarray | None, *, sound: bool) -> np.ndarray:
    a, constant = _flat(rows.coefficients), np.asarray(rows.constant)
    value, error, _ = region_minimum(_region(relaxed), a, *_flat_box(relaxed, samples))
    value = value + constant
    if sound:
        value = (
            value - SLACK * (error + rows.error) - gamma(constant_terms(relaxed.network), a) * np.abs(value) - floor(a)
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
