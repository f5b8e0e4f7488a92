"""Backward bound propagation: the rule that CROWN, its optimization, splits, cuts and duals of linear programs share.

A row is a linear functional of node values that lies below the quantity of interest. Passing it back through a node
replaces that node's value by a linear lower bound in terms of earlier nodes, until only the input is left [Zhang et al.
2018, section 3]. Together with the rows runs a bound of all rounding errors made on the way, so that the result is
sound in exact arithmetic: an error in a coefficient of node k matters at most |value of node k| times its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mipverify.network import Affine, Input, Relu
from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array, parameter_like
from mipverify.network.reverse import through_terms, walk_back
from mipverify.proof.bounds import Bounds, Intervals
from mipverify.proof.cuts import CutRelaxation, Cuts, cut_relaxation_error, relax_with_cuts
from mipverify.proof.derivation import Both, Empty
from mipverify.proof.facts import SEAL, Claim, RowBounds, UnitBounds
from mipverify.proof.input_minimum import set_minimum
from mipverify.proof.recording import inequalities_met, passed, rounded, rounded_cuts, zeros_passed
from mipverify.proof.relaxation import Relaxation
from mipverify.proof.rounding import (
    SLACK,
    backward_terms,
    constant_terms,
    dot_terms,
    floor,
    gamma,
    reads,
    rounding_terms,
    row_dot,
)
from mipverify.proof.rows import InputRows, LinearBounds, Rows, functionals, unit_rows
from mipverify.specification.sets import Constrained, Proposal


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a search has found for rows (R,): any numbers will do.

    slopes: for some ReLU nodes lower slopes (R, *shape) to use instead of the line's; brought to [0, 1] [Xu et al.
    2021]. multipliers: for some ReLU nodes multipliers (R, *shape) of bounds of the pre-activation, of the lower one
    where positive, of the upper one where negative. Where a split has made that bound zero they are those of beta-CROWN
    [Wang et al. 2021, theorem 3.1]; for others, duals of a linear program. cuts, cut_multipliers: by ReLU node, cuts
    that hold there and their multipliers (R, T), of which the positive ones count (numpy only).
    """

    slopes: Mapping[int, Array] = field(default_factory=dict)
    multipliers: Mapping[int, Array] = field(default_factory=dict)
    cuts: Mapping[int, Cuts] = field(default_factory=dict)
    cut_multipliers: Mapping[int, Array] = field(default_factory=dict)


NOTHING = Evidence()


def pick(values: Array, samples: np.ndarray | None) -> Array:
    """Values (B, ...) of each row's entry: (R, ...), or (1, ...) where all rows share one.

    samples None: row r belongs to entry r, or all rows to the only one.
    """
    return values if samples is None or values.shape[0] == 1 else values[samples]


def propagate_backward(bounds: Bounds, rows: Rows, evidence: Evidence = NOTHING, *, keep: bool = False) -> LinearBounds:
    """Linear lower bounds of rows in terms of the input, whatever the evidence is.

    keep: also the coefficients at ReLU nodes. Where derivations are recorded, evidence is rounded first. Raises
    TypeError where bounds are not proven, ValueError where a cut does not hold on their sets.
    """
    if not isinstance(bounds, Bounds):
        raise TypeError("rows are bounded within proven bounds alone")
    for node, cuts in evidence.cuts.items():
        if cuts.node != node:
            raise ValueError(f"cuts of node {cuts.node} are no cuts of node {node}")
        cuts.require(bounds)
    if rows.like.dtype != bounds.like.dtype:
        raise ValueError("rows and bounds are of one precision, which rounding is counted in")
    xp, dtype = array_namespace(rows.like), rows.like.dtype
    cast = {
        name: {node: xp.astype(array, dtype, copy=False) for node, array in getattr(evidence, name).items()}
        for name in ("slopes", "multipliers", "cut_multipliers")
    }
    slopes = {node: array.clip(0, 1) for node, array in cast["slopes"].items()}
    weights = {node: array.clip(0, None) for node, array in cast["cut_multipliers"].items()}
    multipliers, how = cast["multipliers"], None
    met = None if bounds.derivation is None else rounded_cuts(bounds, evidence.cuts, weights)
    if met is not None:
        slopes, multipliers, *stored = rounded(bounds, rows.samples, slopes, multipliers)
        weights = met[0]
        how = passed(bounds, rows.claim, rows.samples, stored[0], stored[1], met[1])
    sound = Evidence(slopes, multipliers, evidence.cuts, weights)
    errors = Errors.of(bounds, rows, len(evidence.cuts))
    found = pass_coefficients(bounds, rows, sound, keep, errors)
    parts = found.coefficients, found.constant, found.passed, found.relaxed, errors.total
    return LinearBounds(*parts, bounds, rows.claim, rows.samples, seal=SEAL, derivation=how)


def estimate_backward(
    intervals: Intervals, rows: Rows, evidence: Evidence = NOTHING, *, keep: bool = False
) -> InputRows:
    """The same without errors, in whatever precision: for searching."""
    return pass_coefficients(intervals, rows, evidence, keep, None)


class Errors:
    """The errors of rows (R,) on their way: `total` is how much less their quantities may be.

    deviations: the part of it by which values may be off their expressions in float32.
    """

    def __init__(self, bounds: Bounds, samples: np.ndarray | None, start: Array, further: int):
        """start (R,): what they are from the beginning. further: roundings in any number beside those of a node."""
        self.bounds, self.network, self.samples = bounds, bounds.network, samples
        self.total, self.further, self.deviations = start, further, 0 * start

    @staticmethod
    def of(bounds: Bounds, rows: Rows, further: int) -> Errors:
        """Those of rows."""
        like = rows.like
        constant = 0.0 * like.reshape(like.shape[0], -1)[:, 0] if rows.constant is None else rows.constant
        if rows.claim is None:
            total = constant_error(bounds, max(rows.coefficients), constant, rows.samples)
        else:
            total = claim_error(bounds, rows.claim, constant, rows.samples)
        return Errors(bounds, rows.samples, total if rows.deviation is None else total + rows.deviation, further)

    def _of(self, values: Array) -> Array:
        return pick(values, self.samples)

    def pass_node(self, index: int, coefficients: Array, multipliers: Array | None = None) -> None:
        """Rows with coefficients (R, *shape) are passed back through a node, with multipliers of its bounds or none."""
        xp = array_namespace(coefficients)
        size = xp.abs(coefficients)
        if multipliers is not None:
            size = size + 2 * xp.abs(multipliers)
        rounding = gamma(backward_terms(self.network, index) + self.further, coefficients)
        self.total = self.total + rounding * row_dot(size, self._of(self.bounds.magnitudes[index]))
        error_bound = getattr(self.network.nodes[index], "error_bound", None)
        if error_bound is not None:
            self.total = self.total + row_dot(xp.abs(coefficients), parameter_like(error_bound, coefficients)[None])
        off = self.bounds.deviation(index)
        if off is not None:
            self.deviate(row_dot(xp.abs(coefficients), self._of(off)))

    def deviate(self, lost: Array) -> None:
        """Values that rows (R,) have passed may be off their expressions, which changes the rows by so much."""
        self.total, self.deviations = self.total + lost, self.deviations + lost

    def pass_cuts(self, index: int, coefficients: Array, cuts: Cuts, factors: Array, relaxed: CutRelaxation) -> None:
        """Rows are passed back through a ReLU node with cuts."""
        terms = backward_terms(self.network, index) + reads(self.network, index) + self.further
        sizes = self._of(self.bounds.magnitudes[index]), self._of(self.bounds.magnitudes[cuts.source])
        self.total = self.total + cut_relaxation_error(cuts, factors, _flat(coefficients), relaxed, *sizes, terms)


def constant_error(bounds: Bounds, node: int, constant: Array, samples: np.ndarray | None) -> Array:
    """What rounding and underflow do to the constants (R,) of rows that start at or below a node."""
    return abs(constant) * gamma(constant_terms(bounds.network), constant) + pick(bounds.underflow[node], samples)


def claim_error(bounds: Bounds, claim: Claim, constant: Array, samples: np.ndarray | None) -> Array:
    """The same of rows that stand for units, which are sums of products of their own, and cast to their precision."""
    total, node = constant_error(bounds, claim.node, constant, samples), bounds.network.nodes[claim.node]
    if isinstance(node, (Input, Relu)):
        return total
    sizes, units = _flat(bounds.magnitudes[claim.node]), claim.units
    entry = 0 if len(sizes) == 1 else np.arange(len(units)) if samples is None else samples
    terms = rounding_terms(node) + reads(bounds.network, claim.node)
    total = total + gamma(terms, constant) * abs(claim.factors) * sizes[entry, units]
    off = bounds.deviation(claim.node)
    if off is None:
        return total
    entry = 0 if len(off) == 1 else np.arange(len(units)) if samples is None else samples
    return total + abs(claim.factors) * _flat(off)[entry, units]


def pass_coefficients(
    intervals: Intervals,
    rows: Rows,
    evidence: Evidence,
    keep: bool,
    errors: Errors | None,
    lines: Mapping[int, Relaxation] | None = None,
) -> InputRows:
    """Rows at the input; `errors` counts what is lost on the way. lines: in place of those of the intervals."""
    network, like = intervals.network, rows.like
    zero = array_namespace(like).zeros_like(like.reshape(like.shape[0], -1)[:, 0])
    constant = zero if rows.constant is None else rows.constant + zero
    passing = Passing(intervals, rows.samples, constant, errors, evidence, keep, lines)
    reached = walk_back(network, rows.coefficients, passing.relu, passing.affine)
    if reached is None:
        reached = array_namespace(like).zeros((like.shape[0], *network.input_shape), dtype=like.dtype)
    return InputRows(reached, passing.constant, passing.passed, passing.relaxed)


class Passing:
    """Rows on their way back: what happens to them at a node, and what has been gathered of their constants (R,)."""

    def __init__(
        self,
        intervals: Intervals,
        samples: np.ndarray | None,
        constant: Array,
        errors: Errors | None,
        evidence: Evidence = NOTHING,
        keep: bool = False,
        lines: Mapping[int, Relaxation] | None = None,
    ):
        self.intervals, self.samples, self.constant, self.errors = intervals, samples, constant, errors
        self.evidence, self.keep, self.lines = evidence, keep, intervals.lines if lines is None else lines
        self.passed: dict[int, Array] = {}
        self.relaxed: dict[int, CutRelaxation] = {}

    def affine(self, index: int, node: Affine, coefficients: Array) -> Iterator[tuple[int, Array]]:
        """The node's value is replaced by its affine expression."""
        if self.errors is not None:
            self.errors.pass_node(index, coefficients)
        if node.bias is not None:
            self.constant = self.constant + row_dot(coefficients, parameter_like(node.bias, coefficients)[None])
        return through_terms(self.intervals.network, node, coefficients)

    def relu(self, index: int, node: Relu, coefficients: Array) -> Iterator[tuple[int, Array]]:
        """The post-activation is replaced by a line below it, or where cuts are dualized by what these leave of it."""
        line, samples, evidence = self.lines[index], self.samples, self.evidence
        below = evidence.slopes[index] if index in evidence.slopes else pick(line.lower_slope, samples)
        own = evidence.multipliers.get(index)
        if index in evidence.cuts and index in evidence.cut_multipliers:
            yield self._over_cuts(index, coefficients, below)
            relaxed = self.relaxed[index]
            through, coefficients = (v.reshape(coefficients.shape) for v in (relaxed.slope, relaxed.weight))
        else:
            positive = array_namespace(coefficients).clip(coefficients, min=0)
            negative = coefficients - positive
            through = positive * below + negative * pick(line.upper_slope, samples)
            self.constant = self.constant + row_dot(negative, pick(line.upper_offset, samples))
        if self.keep:
            self.passed[index] = coefficients
        if own is not None:
            through = self._less_multipliers(node.source, through, own)
        if self.errors is not None and (index not in self.relaxed or own is not None):
            self.errors.pass_node(index, coefficients, own)
        yield node.source, through

    def _over_cuts(self, index: int, coefficients: Array, below: Array) -> tuple[int, Array]:
        """Dualize the cuts of a ReLU node: what they leave for the values that they are about."""
        layer, factors = self.evidence.cuts[index], self.evidence.cut_multipliers[index]
        low, high = self._ends(self.intervals.network.relu_source(index))
        relaxed, gain = relax_with_cuts(layer, factors, *(_flat(v) for v in (coefficients, low, high, below)))
        if self.errors is not None:
            self.errors.pass_cuts(index, coefficients, layer, factors, relaxed)
        self.relaxed[index], self.constant = relaxed, self.constant + gain
        return layer.source, -layer.over_source(factors).reshape(-1, *self.intervals.network.nodes[layer.source].shape)

    def _less_multipliers(self, source: int, through: Array, own: Array) -> Array:
        """Coefficients of a pre-activation less multipliers of its bounds."""
        low, high = self._ends(source)
        of_lower = array_namespace(own).clip(own, min=0)
        self.constant = self.constant + row_dot(of_lower, low) + row_dot(own - of_lower, high)
        return through - own

    def _ends(self, node: int) -> tuple[Array, Array]:
        return pick(self.intervals.lower[node], self.samples), pick(self.intervals.upper[node], self.samples)


def minimum(linear: LinearBounds) -> RowBounds:
    """The minimum of each row over its input set, rounded down; -inf where anything is not finite."""
    bounds, samples, how, inputs = linear.bounds, linear.samples, linear.derivation, linear.bounds.inputs
    met = None
    if bounds.derivation is not None and isinstance(inputs, Constrained):
        box = (_flat(pick(side[0], samples)) for side in (bounds.lower, bounds.upper))
        how, met = inequalities_met(bounds, how, linear.claim, _flat(linear.coefficients), *box)
    value, error = _least(bounds, linear, samples, evidence=met)
    lower = rounded_down(bounds, value, error + linear.error)
    return RowBounds(bounds.scope, linear.claim, samples, lower, linear.key, seal=SEAL, derivation=how)


def estimate_minimum(intervals: Intervals, rows: InputRows, samples: np.ndarray | None) -> Array:
    """The minimum of each row (R,) over its input set as floating point has it; -inf where it is not finite."""
    value, _ = _least(intervals, rows, samples, sound=False)
    xp = array_namespace(value)
    return xp.where(xp.isfinite(value), value, -xp.inf * xp.ones_like(value))


def _least(
    intervals: Intervals,
    rows: InputRows,
    samples: np.ndarray | None,
    sound: bool = True,
    evidence: Proposal | None = None,
) -> tuple[Array, Array]:
    """The least values (R,) of rows over their input sets, and by how much rounding may have raised them."""
    a, constant = rows.coefficients, rows.constant
    lower, upper = (pick(side[0], samples) for side in (intervals.lower, intervals.upper))
    if intervals.inputs is not None and not intervals.over_boxes:
        value, error = set_minimum(intervals.inputs, _flat(a), _flat(lower), _flat(upper), evidence)
        return value + constant, error
    return box_minimum(a, constant, lower, upper, sound)


def box_minimum(a: Array, constant: Array, lower: Array, upper: Array, sound: bool = True) -> tuple[Array, Array]:
    """The least values (R,) of a . x + constant for x from lower to upper (R or 1, ...), and their rounding errors."""
    xp = array_namespace(a)
    positive = xp.clip(a, min=0)
    negative = a - positive
    value = row_dot(positive, lower) + row_dot(negative, upper) + constant
    if not sound:
        return value, 0.0
    size = xp.maximum(xp.abs(lower), xp.abs(upper))
    return value, gamma(2 * dot_terms(math.prod(a.shape[1:])) + 8, a) * row_dot(positive - negative, size)


def rounded_down(bounds: Bounds, value: Array, error: Array) -> Array:
    """Least values (R,) of rows less the errors made on their way; -inf where anything is not finite."""
    xp = array_namespace(value)
    rounding = gamma(constant_terms(bounds.network), value)
    value = value - SLACK * error - rounding * xp.abs(value) - floor(value)
    return xp.where(xp.isfinite(value), value, -xp.inf * xp.ones_like(value))


def minimizer(intervals: Intervals, coefficients: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
    """Inputs (R, *input_shape) at which rows with these coefficients are least, or nearly so."""
    lower, upper = (pick(side[0], samples) for side in (intervals.lower, intervals.upper))
    if intervals.inputs is None or intervals.over_boxes:
        return np.asarray(np.where(coefficients > 0, lower, upper))
    flat = (np.asarray(_flat(values), np.float64) for values in (coefficients, lower, upper))
    return intervals.inputs.propose(*flat).points.astype(coefficients.dtype).reshape(coefficients.shape)


def _flat(values: Array) -> Array:
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))  # -1 would not do for no rows


def row_minimum(bounds: Bounds, rows: Rows, evidence: Evidence = NOTHING) -> RowBounds:
    """A lower bound of each row over its input set."""
    return minimum(propagate_backward(bounds, rows, evidence))


def both(lower: RowBounds, negated: RowBounds) -> UnitBounds:
    """Bounds of single entries from those of their rows and of the negated ones, in the same order.

    Raises ValueError where these do not belong together.
    """
    one, two = lower.claim, negated.claim
    if one is None or two is None or lower.scope.key != negated.scope.key or one.node != two.node:
        raise ValueError("the two sides are not of the same entries")
    entries = np.array_equal(lower.entries(), negated.entries())
    if not (
        entries and np.array_equal(one.units, two.units) and (one.factors == 1).all() and (two.factors == -1).all()
    ):
        raise ValueError("the two sides are not of the same entries")
    how = None
    if lower.derivation is not None and negated.derivation is not None:
        how = Both(lower.derivation, negated.derivation)
    sides = lower.lower, -negated.lower
    return UnitBounds(lower.scope, one.node, lower.samples, one.units, *sides, seal=SEAL, derivation=how)


def lower_sides(found: RowBounds) -> UnitBounds:
    """Bounds of single entries from rows that are multiples of them: below where the factor is positive, else above."""
    claim = found.claim
    if claim is None or claim.units.ndim != 1:
        raise ValueError("the rows do not stand for single entries")
    size = np.abs(claim.factors)
    with np.errstate(over="ignore", under="ignore"):
        value = found.lower / size
    tiny, most = np.finfo(value.dtype).smallest_normal, np.finfo(value.dtype).max
    value = np.where((size != 1) & (np.abs(value) < tiny), np.nextafter(value, -np.inf), value)
    value = np.where(np.isposinf(value) & np.isfinite(found.lower), most, value)
    low, high = np.where(claim.factors > 0, value, -np.inf), np.where(claim.factors < 0, -value, np.inf)
    how = found.derivation
    return UnitBounds(found.scope, claim.node, found.samples, claim.units, low, high, seal=SEAL, derivation=how)


def by_empty_program(bounds: Bounds, rows: Rows, evidence: Evidence) -> RowBounds:
    """Rows are above everything where the multipliers of bounds show that no input is there: that zero is positive."""
    network, count = bounds.network, len(rows)
    nothing = {relu: np.zeros((count, *network.nodes[relu].shape)) for relu in network.relus}
    how = None
    if bounds.derivation is not None and not evidence.cuts:
        slopes, multipliers, *stored = rounded(bounds, rows.samples, evidence.slopes, evidence.multipliers)
        evidence = Evidence(slopes, multipliers)
        zeros = zeros_passed(bounds, rows.samples, count, slopes=stored[0], multipliers=stored[1])
        how = None if zeros is None else Empty(zeros)
    zero = row_minimum(bounds, functionals(nothing, rows.samples), evidence)
    lower = np.where(zero.lower > 0, np.inf, -np.inf)
    return RowBounds(bounds.scope, rows.claim, rows.samples, lower, seal=SEAL, derivation=how)


def unit_minimum(bounds: Bounds, node: int, samples: np.ndarray | None, units: np.ndarray) -> UnitBounds:
    """Bounds of single entries `units` (R,) of a node by CROWN's lines, each side a row of its own."""
    rows = unit_rows(bounds.network, node, units, samples, bounds.like)
    return both(row_minimum(bounds, rows), row_minimum(bounds, rows.negated()))
