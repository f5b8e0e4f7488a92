"""Exact minima of sums of functions of one unit each, in rational numbers.

The end of a network (a ReLU, a clip, an absolute value, a minimum with a constant) is often a piecewise-linear
function of single units of the layer before. Its minimum over bounds of these units is found at a break point, without
rounding: what no outward rounded bound can show, that a value reaches a limit and does not pass it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from mipverify.network import Affine, Relu
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.specification.exact import float_up

MOST_ENTRIES = 1_000_000  # of operators that are looked at; beyond it nothing is shown
MOST_UNITS = 5_000  # functions that are made; likewise
MOST_BREAKS = 64  # of one function
DEEPEST = 100  # nodes that one function goes through

_Unit: TypeAlias = tuple[int, int]  # node, flat index


class _TooLargeError(Exception):
    """The search for the minimum has become too long."""


@dataclass(frozen=True)
class _Piecewise:
    """A continuous piecewise-linear function on an interval: its values at the ends and at all breaks, in order."""

    at: tuple[Fraction, ...]
    values: tuple[Fraction, ...]

    def __call__(self, t: Fraction) -> Fraction:
        for k in range(len(self.at) - 1):
            if t <= self.at[k + 1]:
                width = self.at[k + 1] - self.at[k]
                share = (t - self.at[k]) / width if width else Fraction(0)
                return self.values[k] + share * (self.values[k + 1] - self.values[k])
        return self.values[-1]

    def times(self, factor: Fraction, offset: Fraction) -> _Piecewise:
        return _Piecewise(self.at, tuple(factor * v + offset for v in self.values))

    def plus(self, other: _Piecewise) -> _Piecewise:
        if self.at == other.at:
            return _Piecewise(self.at, tuple(a + b for a, b in zip(self.values, other.values, strict=True)))
        at = tuple(sorted({*self.at, *other.at}))
        if len(at) > MOST_BREAKS:
            raise _TooLargeError
        return _Piecewise(at, tuple(self(t) + other(t) for t in at))

    def rectified(self) -> _Piecewise:
        at, values = [self.at[0]], [self.values[0]]
        for k in range(1, len(self.at)):
            before, after = self.values[k - 1], self.values[k]
            if before * after < 0:
                at.append(self.at[k - 1] + (self.at[k] - self.at[k - 1]) * before / (before - after))
                values.append(Fraction(0))
            at.append(self.at[k])
            values.append(after)
        if len(at) > MOST_BREAKS:
            raise _TooLargeError
        return _Piecewise(tuple(at), tuple(max(v, Fraction(0)) for v in values))


def separable_minimum(bounds: Bounds, node: int, units: np.ndarray) -> UnitBounds:
    """Lower bounds of flat units (R,) of a node: those of `lowest`, rounded down; -inf where there is none."""
    exact = [-np.inf if least is None else -float_up(-least) for least in lowest(bounds, node, units)]
    upper = np.full(len(units), np.inf)
    return UnitBounds(bounds.scope, node, None, units, np.array(exact, float), upper, seal=SEAL)


def lowest(bounds: Bounds, node: int, units: np.ndarray) -> list[Fraction | None]:
    """Proven lower bounds, without rounding, of flat units (R,) of a node over the (one) box of `bounds`.

    Each is written as a sum of functions of single units, each of which takes its own minimum over that unit's bounds.
    None where that takes too long, or a bound is not finite.
    """
    sums = _Sums(bounds)
    found: list[Fraction | None] = []
    for unit in units.tolist():
        try:
            found.append(sums.lowest(node, unit))
        except _TooLargeError:
            found.append(None)
    return found


class _Sums:
    def __init__(self, bounds: Bounds):
        self._bounds, self._network = bounds, bounds.network
        self._known: dict[_Unit, tuple[_Unit, _Piecewise]] = {}
        self._entries = 0

    def lowest(self, node: int, unit: int) -> Fraction:
        total, functions = Fraction(0), dict[_Unit, _Piecewise]()
        open_: list[tuple[_Unit, Fraction]] = [((node, unit), Fraction(1))]
        while open_:
            (index, at), factor = open_.pop()
            what = self._network.nodes[index]
            if isinstance(what, Affine) and index not in self._network.preactivations:
                summands, offset = self._summands(what, at)
                total += factor * offset
                open_ += [(source, factor * weight) for source, weight in summands]
                continue
            base, function = self._function((index, at))
            mine = function.times(factor, Fraction(0))
            functions[base] = functions[base].plus(mine) if base in functions else mine
        return total + sum((min(f.values) for f in functions.values()), Fraction(0))

    def _function(self, unit: _Unit, depth: int = 0) -> tuple[_Unit, _Piecewise]:
        """A unit as a function of one unit: itself, or the one that it is made of alone."""
        if unit not in self._known:
            if len(self._known) >= MOST_UNITS or depth >= DEEPEST:
                raise _TooLargeError
            self._known[unit] = self._made(unit, depth + 1)
        return self._known[unit]

    def _made(self, unit: _Unit, depth: int) -> tuple[_Unit, _Piecewise]:
        index, at = unit
        what = self._network.nodes[index]
        if isinstance(what, Relu):
            base, function = self._function((what.source, at), depth)
            return base, function.rectified()
        if isinstance(what, Affine) and not what.inexact:
            summands, offset = self._summands(what, at)
            if len(summands) == 1:
                ((source, weight),) = summands
                base, function = self._function(source, depth)
                return base, function.times(weight, offset)
        low, high = (float(side[index].reshape(-1)[at]) for side in (self._bounds.lower, self._bounds.upper))
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise _TooLargeError
        ends = (Fraction(low), Fraction(high))
        return unit, _Piecewise(ends, ends)

    def _summands(self, node: Affine, unit: int) -> tuple[list[tuple[_Unit, Fraction]], Fraction]:
        """The units that an affine unit reads, with their weights, and its bias."""
        if node.inexact:
            raise _TooLargeError
        weights: dict[_Unit, Fraction] = {}
        for term, row in zip(node.terms, self._rows(node, unit), strict=True):
            for k in np.flatnonzero(row).tolist():
                source = (term.source, k)
                weights[source] = weights.get(source, Fraction(0)) + Fraction(float(row[k]))
        bias = 0.0 if node.bias is None else float(np.asarray(node.bias, np.float64).reshape(-1)[unit])
        if not np.isfinite(bias):
            raise _TooLargeError
        return [(source, weight) for source, weight in weights.items() if weight], Fraction(bias)

    def _rows(self, node: Affine, unit: int) -> list[np.ndarray]:
        """What a unit multiplies each entry of each of its node's terms with, (in_size,) float64."""
        rows = []
        for term in node.terms:
            self._entries += term.operator.in_size
            if self._entries > MOST_ENTRIES:
                raise _TooLargeError
            row = np.asarray(term.operator.rows(np.array([unit]), np.zeros(0)), np.float64).reshape(-1)
            if not np.isfinite(row).all():
                raise _TooLargeError
            rows.append(row)
        return rows
