"""Bounds of all nodes on input sets, and rows passed back through the network within them.

Every array of values is (entries, columns): a column is one input set. What rounding may cost is charged as
docs/proofs.md, section 2, has it: a row's coefficients a of node k are passed on with errors that change the row by at
most gamma(roundings) |a| . M_k, where M_k = sum |W| |v| + |b| from bounds of the values v that node k reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.float32 import deviation
from mipverify_check.input_set import InputSet
from mipverify_check.maps import Coefficients, adjoint, rows
from mipverify_check.network import Affine, Input, Network, Relu

if TYPE_CHECKING:
    from mipverify_check.cuts import Cuts

LARGEST = 2.0**100
Beside = list[tuple[int, Coefficients]]  # nodes, and coefficients that rows have of them besides
WORKING_BYTES = 2**19  # of one array of a pass


@dataclass(eq=False)
class Bounds:
    """lower, upper: by node, (size, columns). magnitudes: M_k by node. deviations: how far float32 may take the
    values of some nodes from their expressions. empty: columns shown to hold no input.

    One object is never changed once it has been made; its lines are kept.
    """

    network: Network
    set: InputSet
    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    magnitudes: list[Array] = field(default_factory=list)
    deviations: dict[int, Array] = field(default_factory=dict)
    _lines: dict[int, tuple[Array, Array, Array]] = field(default_factory=dict)

    @property
    def columns(self) -> int:
        return int(self.set.lower.shape[1])

    @property
    def empty(self) -> np.ndarray:
        """(columns,): where some lower bound is above the upper one."""
        crossed = [(low > high).any(0) for low, high in zip(self.lower, self.upper, strict=True)]
        return np.asarray(np.any(crossed, axis=0), dtype=bool)

    def lines(self, source: int) -> tuple[Array, Array, Array]:
        """`lines` of the ReLUs that read node `source`, each (size, columns)."""
        if source not in self._lines:
            self._lines[source] = lines(self.network.arithmetic, self.lower[source], self.upper[source])
        return self._lines[source]

    @property
    def nbytes(self) -> int:
        return 6 * sum(int(low.nbytes) for low in self.lower)


def interval(network: Network, inputs: InputSet, known: Bounds | None = None, start: int = 0) -> Bounds:
    """Interval arithmetic, intersected with what is `known`; nodes before `start` are taken from there."""
    found = Bounds(network, inputs)
    arithmetic, columns = network.arithmetic, inputs.lower.shape[1]
    for k, node in enumerate(network.nodes):
        magnitude: Array = arithmetic.zeros((node.size, 1))
        off: Array | None = None
        if known is not None and k < start:
            low, high, magnitude, off = known.lower[k], known.upper[k], known.magnitudes[k], known.deviations.get(k)
        elif isinstance(node, Input):
            low, high = inputs.lower, inputs.upper
        elif isinstance(node, Relu):
            low, high = (np.maximum(side[node.source], arithmetic.array(0)) for side in (found.lower, found.upper))
        else:
            low, high, magnitude = _affine(network, k, node, found, columns)
            off = deviation(network, found.lower, found.upper, k)
            if off is not None:
                wider = off + arithmetic.gamma(4) * (magnitude + off)
                low, high, magnitude = low - wider, high + wider, magnitude + off
        if known is not None and k >= start:
            low, high = np.fmax(low, known.lower[k]), np.fmin(high, known.upper[k])
        found.lower.append(arithmetic.checked(low))
        found.upper.append(arithmetic.checked(high))
        found.magnitudes.append(magnitude)
        if off is not None:
            found.deviations[k] = off
    return found


def _affine(network: Network, k: int, node: Affine, found: Bounds, columns: int) -> tuple[Array, Array, Array]:
    """Lower, upper bound and magnitude of an affine node: its value at the centers, give or take |W| radius."""
    arithmetic = network.arithmetic
    center: list[Any] = [None] * len(network.nodes)
    spread: list[Any] = [None] * len(network.nodes)
    for source, _ in node.terms:
        low, high = found.lower[source], found.upper[source]
        middle = (low + high) / 2
        radius = np.maximum(high - middle, middle - low) * (1 + arithmetic.gamma(4)) + arithmetic.floor
        center[source] = middle
        spread[source] = np.concatenate([radius, np.maximum(np.abs(low), np.abs(high))], axis=1)
    value = network.affine(node, center, columns)
    both = network.affine(node, spread, 2 * columns, absolute=True)
    radius, magnitude = both[:, :columns], both[:, columns:]
    if node.bias is not None:
        radius = radius - np.abs(node.bias)[:, None]
    error = 4 * arithmetic.gamma(network.roundings[k]) * magnitude + arithmetic.floor
    low, high = value - radius - error, value + radius + error
    if not arithmetic.exact:  # beyond LARGEST nothing is concluded: so products with numbers that underflow stay small
        held = magnitude < LARGEST
        low, high = np.where(held, low, -np.inf), np.where(held, high, np.inf)
    return low, high, magnitude


@dataclass(frozen=True, eq=False)
class Evidence:
    """Slopes, multipliers of R rows. lines: of units without slopes, "parallel" or "adaptive".

    slopes, multipliers: by ReLU node, units (U,) and numbers (R, U). inequalities: (R, m) or None.
    splits: by node of a pre-activation, (units, rows, signs): the unit is >= 0 (1) or <= 0 (-1) in the set of the row.
    cuts: of ReLU nodes, or None.
    """

    lines: str
    slopes: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    multipliers: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    inequalities: np.ndarray | None = None
    splits: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)
    cuts: Cuts | None = None

    def part(self, begin: int, end: int) -> Evidence:
        """That of the rows from `begin` to `end`."""

        def cut(held: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
            return {k: (units, numbers[begin:end]) for k, (units, numbers) in held.items()}

        splits = {}
        for k, (units, which, signs) in self.splits.items():
            own = (which >= begin) & (which < end)
            splits[k] = (units[own], which[own] - begin, signs[own])
        inequalities = None if self.inequalities is None else self.inequalities[begin:end]
        cuts = None if self.cuts is None else self.cuts.part(begin, end)
        return Evidence(self.lines, cut(self.slopes), cut(self.multipliers), inequalities, splits, cuts)

    def plain(self) -> bool:
        """Whether a row and its negative are passed back by the same coefficients."""
        given = self.slopes or self.multipliers or self.inequalities is not None or self.cuts is not None
        return self.lines == "parallel" and not given


@dataclass(frozen=True, eq=False)
class Aim:
    """Rows to be bounded: `factors` (R,) of 1, -1 or 0 times the entries `units` (R,) of a node.

    column: for each row the column of its input set, None where there is one set.
    """

    node: int
    units: np.ndarray
    factors: np.ndarray
    column: np.ndarray | None = None

    def part(self, begin: int, end: int) -> Aim:
        column = None if self.column is None else self.column[begin:end]
        return Aim(self.node, self.units[begin:end], self.factors[begin:end], column)

    def of(self, values: Array) -> Array:
        """By row, what is known by column."""
        return values if self.column is None else np.take(values, self.column, axis=1)


def aim(node: int, units: np.ndarray, sign: int = 1, column: np.ndarray | None = None) -> Aim:
    """All rows with the same sign."""
    return Aim(node, units, np.full(len(units), sign), column)


def least(bounds: Bounds, aim: Aim, evidence: Evidence) -> Array:
    """Lower bounds (R,) of rows on their sets."""
    return _in_parts(bounds, aim, evidence, False)[0]


def ranges(bounds: Bounds, aim: Aim) -> Array:
    """Lower and upper bounds (2, R) of rows by parallel lines."""
    return _in_parts(bounds, aim, Evidence("parallel"), True)


def planes(bounds: Bounds, aim: Aim, evidence: Evidence) -> tuple[Array, Array]:
    """a (R, inputs) and c (R,) with each row >= a . x + c on its set, which is one for all."""
    found = walk(bounds, aim, lambda k, source, a: _relu(bounds, k, source, a, evidence, aim.of, False))
    a = found.inputs.dense()
    size = np.maximum(np.abs(bounds.set.lower), np.abs(bounds.set.upper))
    return a.T, found.constant[0] - found.lost((np.abs(a) * size).sum(0))


def under(old: Bounds, inputs: InputSet, splits: dict[int, tuple[np.ndarray, np.ndarray]]) -> Bounds:
    """`old` on a part of its set, where units are >= 0 or <= 0. splits: by pre-activation node, units and signs."""
    zero, lower, upper = old.network.arithmetic.array(0), list(old.lower), list(old.upper)
    for node, (units, signs) in splits.items():
        lower[node], upper[node] = lower[node].copy(), upper[node].copy()
        active, inactive = units[signs > 0], units[signs < 0]
        lower[node][active] = np.maximum(lower[node][active], zero)
        upper[node][inactive] = np.minimum(upper[node][inactive], zero)
    return Bounds(old.network, inputs, lower, upper, old.magnitudes, old.deviations)


def _in_parts(bounds: Bounds, aim: Aim, evidence: Evidence, both: bool) -> Array:
    """Passes of as many rows at once as caches hold, judged by how many coefficients a row of the part before has."""
    begin, count, widest = 0, len(aim.units), max(node.size for node in bounds.network.nodes)
    found = [bounds.network.arithmetic.zeros((2 if both else 1, 0))]
    while begin < count:
        end = min(count, begin + max(1, WORKING_BYTES // (8 * widest)))
        ends, widest = _pass(bounds, aim.part(begin, end), evidence.part(begin, end), both)
        found.append(ends)
        begin = end
    return bounds.network.arithmetic.checked(np.concatenate(found, axis=1))


def _pass(bounds: Bounds, aim: Aim, evidence: Evidence, both: bool) -> tuple[Array, int]:
    widest = 1

    def relu(k: int, source: int, a: Coefficients) -> tuple[Coefficients, Array, Array, Beside]:
        nonlocal widest
        widest = max(widest, len(a.values))
        return _relu(bounds, k, source, a, evidence, aim.of, both)

    found = walk(bounds, aim, relu, 2 if both else 1)
    box = bounds.lower[0], bounds.upper[0], evidence.splits.get(0)
    ends, charged = bounds.set.least_in(box, found.inputs, aim.of, evidence.inequalities, both)
    lost, ends = found.lost(charged), found.constant + ends
    ends[0] = ends[0] - lost
    ends[1:] = ends[1:] + lost
    return ends, max(widest, len(found.inputs.values))


@dataclass(frozen=True, eq=False)
class Walked:
    """Rows on the input. inputs: their coefficients. constant: (1, R), or (2, R) for both sides of rows.

    size, error: the sum of all absolute values that went into the constant, and what the coefficients may be off by.
    """

    network: Network
    inputs: Coefficients
    constant: Array
    size: Array
    error: Array

    def lost(self, charged: Array) -> Array:
        """What rounding may have cost in all; charged: sums of absolute values of what was added to the constant."""
        arithmetic = self.network.arithmetic
        steps = arithmetic.gamma(4 * len(self.network.nodes) + 64)
        return (self.error + steps * (self.size + charged) + arithmetic.floor) * (1 + steps)


ReluRule = Callable[[int, int, Coefficients], tuple[Coefficients, Array, Array, Beside]]


def walk(bounds: Bounds, aim: Aim, relu: ReluRule, sides: int = 1) -> Walked:
    """Rows passed back to the input.

    relu: takes a ReLU node, its source and coefficients to those of the source, what falls to the constants (sides, R),
    the sum of absolute values that errors are relative to, and coefficients of nodes further down.
    """
    network, count = bounds.network, len(aim.units)
    arithmetic = network.arithmetic
    constant = arithmetic.zeros((sides, count))
    size, error = arithmetic.zeros((count,)), arithmetic.zeros((count,))
    pending: dict[int, Coefficients] = {}

    def add(node: int, more: Coefficients) -> None:
        held = pending.get(node)
        pending[node] = more if held is None else Coefficients(held.dense() + more.dense())

    for k in range(aim.node, 0, -1):
        node, loss = network.nodes[k], arithmetic.gamma(max(network.roundings[k], network.nodes[k].size) + 8)
        part, off = arithmetic.zeros((1, count)), bounds.deviations.get(k)
        if k == aim.node and isinstance(node, Affine):  # the rows of its maps are at hand
            sign = arithmetic.array(aim.factors)
            for source, linear in node.terms:
                add(source, rows(linear, aim.units, sign))
            if node.bias is not None:
                part = (node.bias[aim.units] * sign)[None]
            at = aim.units, 0 if aim.column is None else aim.column
            charged = bounds.magnitudes[k][at] * np.abs(sign)
            if off is not None:
                error = error + off[at] * np.abs(sign)
        else:
            a = _one_hot(bounds, aim) if k == aim.node else pending.pop(k, None)
            if a is None:
                continue
            if isinstance(node, Affine):
                for source, linear in node.terms:
                    add(source, adjoint(linear, a))
                if node.bias is not None:
                    part = a.times(node.bias[:, None])[None]
                charged = a.times(aim.of(bounds.magnitudes[k]), absolute=True)
                if off is not None:
                    error = error + a.times(aim.of(off), absolute=True)
            else:
                assert isinstance(node, Relu)
                passed, part, charged, beside = relu(k, node.source, a)
                add(node.source, passed)
                for source, more in beside:
                    add(source, more)
        constant, size, error = constant + part, size + charged, error + loss * charged
    a = _one_hot(bounds, aim) if aim.node == 0 else pending.get(0)
    inputs = Coefficients(arithmetic.zeros((network.nodes[0].size, count))) if a is None else a
    return Walked(network, inputs, constant, size, error)


def _one_hot(bounds: Bounds, aim: Aim) -> Coefficients:
    arithmetic = bounds.network.arithmetic
    a = arithmetic.zeros((bounds.network.nodes[aim.node].size, len(aim.units)))
    a[aim.units, np.arange(len(aim.units))] = arithmetic.array(aim.factors)
    return Coefficients(a)


def _relu(
    bounds: Bounds, k: int, source: int, a: Coefficients, evidence: Evidence, of: Callable[[Array], Array], both: bool
) -> tuple[Coefficients, Array, Array, Beside]:
    """Coefficients of ReLU node k replaced by some of its pre-activation.

    Returns these, what falls to the constants (1 or 2, R), the sum of absolute values that errors are relative to, and
    what cuts add to other nodes.
    """
    arithmetic = bounds.network.arithmetic
    low, high = of(bounds.lower[source]), of(bounds.upper[source])
    value = np.maximum(np.abs(low), np.abs(high))
    slope, offset, lower_slope = (of(part) for part in bounds.lines(source))
    beside, cut = Beside(), evidence.cuts is not None and k in evidence.cuts.sites
    if source in evidence.splits or k in evidence.slopes or k in evidence.multipliers or cut:
        a = Coefficients(a.dense())
    shape = a.values.shape
    if source in evidence.splits:
        units, which, signs = evidence.splits[source]
        held = (np.broadcast_to(part, shape).copy() for part in (low, high, slope, offset, lower_slope))
        low, high, slope, offset, lower_slope = held
        for side, sign in ((low, 1), (high, -1)):
            at = units[signs == sign], which[signs == sign]
            side[at] = np.maximum(side[at], 0) if sign == 1 else np.minimum(side[at], 0)
        at = units, which
        slope[at], offset[at], lower_slope[at] = lines(arithmetic, low[at], high[at])
    if both:  # one line on both sides
        # min(a, 0) . t and max(a, 0) . t, from a . t and |a| . t
        middle, spread = a.times(offset), a.times(offset, absolute=True)
        charged = a.times(slope * value + offset, absolute=True)
        return a.scaled(slope), np.stack([middle - spread, middle + spread]) / 2, charged, beside
    lower_slope = lower_slope if evidence.lines == "adaptive" else slope
    if k in evidence.slopes:
        units, numbers = evidence.slopes[k]
        lower_slope = np.broadcast_to(lower_slope, shape).copy()
        stable = np.broadcast_to((low >= 0) | (high <= 0), shape)[units]
        lower_slope[units] = np.where(stable, lower_slope[units], _slopes(arithmetic, numbers).T)
    if cut:
        assert evidence.cuts is not None
        passed, part, charged, beside = evidence.cuts.meet(k, a.values, (low, high), lower_slope)
    else:
        positive = np.maximum(a.values, 0)
        negative = a.values - positive
        passed = positive * a.of(lower_slope) + negative * a.of(slope)
        part = a.with_values(negative).times(offset)
        charged = a.times(np.maximum(slope, lower_slope) * value + offset, absolute=True)
    if k in evidence.multipliers:
        units, numbers = evidence.multipliers[k]
        mu = arithmetic.array(numbers).T
        passed[units] = passed[units] - mu
        low, high, value = (np.broadcast_to(side, shape)[units] for side in (low, high, value))
        part = part + (np.maximum(mu, 0) * low + np.minimum(mu, 0) * high).sum(0)
        charged = charged + (2 * np.abs(mu) * value).sum(0)
    return a.with_values(passed), part[None], charged, beside


def _slopes(arithmetic: Any, numbers: np.ndarray) -> Array:
    """Slopes in [0, 1]: an unsigned byte k stands for k / 255."""
    if numbers.dtype == np.uint8:
        return arithmetic.array(numbers) / arithmetic.array(255)
    return arithmetic.array(np.clip(numbers.astype(np.float64), 0, 1))


def lines(arithmetic: Arithmetic, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """s and t with max(0, z) <= s z + t for z in [low, high], and the slope of `adaptive` lines below.

    Exact where a unit is stable, else s z + t goes from corner to corner.
    """
    zero, one = arithmetic.array(0), arithmetic.array(1)
    active, unstable = low >= 0, (low < 0) & (high > 0)
    width = np.where(unstable, high - low, one)
    # Any slope is sound with its own offset; in rational numbers, one of few digits keeps what follows short.
    slope = np.where(unstable, high, zero) / width
    slope = arithmetic.array(np.clip(slope.astype(np.float64), 0, 1))
    offset = np.maximum((1 - slope) * high, -slope * low) * (1 + arithmetic.gamma(6)) + arithmetic.floor
    slope = np.where(active, one, np.where(unstable, slope, zero))
    below = np.where(unstable, np.where(high > -low, one, zero), slope)
    return slope, np.where(unstable, offset, zero), below
