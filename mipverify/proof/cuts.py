"""Cuts of the ideal formulation in bound propagation: rows over a ReLU, its phase and the inputs of its affine map.

For y = max(0, x), x = w z + b and z in a box, with lo_i the end of z_i at which w_i z_i is least, up_i the other,
for every set I of inputs and the phase a in {0, 1}:

    y <= sum_I w_i (z_i - lo_i (1 - a)) + (b + sum_not_I w_i up_i) a          [Anderson et al. 2020, proposition 2]

Dualized with multipliers gamma >= 0 they enter a pass back as in GCP-CROWN [Zhang et al. 2022, section 3.1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import scipy

from mipverify.network import Affine, Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import SLOPE_STEPS, CutSets
from mipverify.proof.facts import SEAL, Scope, Sealed
from mipverify.proof.rounding import gamma, row_dot

ROUNDOFF = 1e-15  # several units in the last place


@dataclass(frozen=True, eq=False)
class _Cuts(Sealed):
    """What cuts of all kinds have in common. scope: where they hold; None where they were rounded, for searching."""

    node: int
    source: int
    units: np.ndarray
    matrix: Any
    step: np.ndarray
    limit: np.ndarray
    scope: Scope | None

    def require(self, bounds: Bounds) -> None:
        """Raises ValueError unless all cuts hold on the input sets of `bounds`."""
        if len(self) and (self.scope is None or not bounds.scope.has(self.scope)):
            raise ValueError("a cut is used outside of the input set that it was made for")

    def __len__(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class LayerCuts(_Cuts):
    """The fact `y[units] - matrix @ z - step * a[units] <= limit` on the ReLU layer `node`; z is the value of `source`.

    units, step, limit: (T,). matrix: sparse (T, size of source).
    """

    def __len__(self) -> int:
        return len(self.units)

    def by_unit(self, values: np.ndarray, size: int) -> np.ndarray:
        """Sums of values (R, T) over the cuts of each of `size` units: (R, size)."""
        found = np.zeros((len(values), size), values.dtype)
        present, sums = self._sums
        found[:, present] = (sums @ values.T).T
        return found

    @cached_property
    def _sums(self) -> tuple[np.ndarray, Any]:
        """The units that have cuts, and the matrix that adds up values over them."""
        present, place = np.unique(self.units, return_inverse=True)
        ones = np.ones(len(self), np.float32)  # exact, and of no consequence for the precision of what they multiply
        return present, scipy.sparse.csr_array((ones, (place, np.arange(len(self)))), (len(present), len(self)))

    def dense(self, dtype: Any) -> LayerCuts:
        """The same with a dense matrix in another precision, for searching."""
        matrix = self.matrix.toarray() if hasattr(self.matrix, "toarray") else self.matrix
        parts = matrix.astype(dtype), self.step.astype(dtype), self.limit.astype(dtype)
        return LayerCuts(self.node, self.source, self.units, *parts, None, seal=SEAL)

    def of_units(self, values: np.ndarray) -> np.ndarray:
        """Values (R, size of node) at the unit of each cut: (R, T)."""
        return values[:, self.units]

    def over_source(self, multipliers: np.ndarray) -> np.ndarray:
        """Multipliers (R, T) times the matrix: (R, size of source)."""
        return np.asarray(multipliers @ self.matrix)

    def at(self, z: np.ndarray, *, magnitude: bool = False) -> np.ndarray:
        """The matrix, or its absolute values, times points z (R, size of source): (R, T)."""
        return np.asarray(((abs(self.matrix) if magnitude else self.matrix) @ z.T).T)

    def limits(self, multipliers: np.ndarray) -> np.ndarray:
        """Multipliers (R, T) times the limits: (R,)."""
        return np.asarray(multipliers @ self.limit)


@dataclass(frozen=True, eq=False)
class OwnCuts(_Cuts):
    """Cuts as `LayerCuts`, but each row of a batch has T of its own: far fewer products than with those of all.

    units, step, limit: (R, T). matrix: dense (R, T, size of source).
    """

    def __len__(self) -> int:
        return int(self.units.shape[1])

    def by_unit(self, values: np.ndarray, size: int) -> np.ndarray:
        """Sums of values (R, T) over the cuts of each of `size` units: (R, size)."""
        count = len(self.units)
        place = np.arange(count)[:, None] * size + self.units
        return (
            np.bincount(place.reshape(-1), values.reshape(-1), count * size).reshape(count, size).astype(values.dtype)
        )

    def dense(self, dtype: Any) -> OwnCuts:
        """The same in another precision, for searching."""
        parts = self.matrix.astype(dtype), self.step.astype(dtype), self.limit.astype(dtype)
        return OwnCuts(self.node, self.source, self.units, *parts, None, seal=SEAL)

    def of_units(self, values: np.ndarray) -> np.ndarray:
        """Values (R, size of node), or (1, size of node), at the unit of each cut: (R, T)."""
        return np.take_along_axis(np.broadcast_to(values, (len(self.units), values.shape[1])), self.units, axis=1)

    def over_source(self, multipliers: np.ndarray) -> np.ndarray:
        """Multipliers (R, T) times the matrices: (R, size of source)."""
        return np.asarray(np.matmul(multipliers[:, None, :], self.matrix)[:, 0])

    def at(self, z: np.ndarray, *, magnitude: bool = False) -> np.ndarray:
        """The matrices, or their absolute values, times points z (R, size of source) or (1, size): (R, T)."""
        return np.asarray(np.matmul(np.abs(self.matrix) if magnitude else self.matrix, z[:, :, None])[..., 0])

    def limits(self, multipliers: np.ndarray) -> np.ndarray:
        """Multipliers (R, T) times the limits: (R,)."""
        return np.asarray((multipliers * self.limit).sum(axis=1))

    def held(self, multipliers: np.ndarray, count: int) -> tuple[OwnCuts, np.ndarray]:
        """The `count` cuts of each row with the largest multipliers (R, T), and these."""
        if count >= len(self):
            return self, multipliers
        keep = np.argpartition(-multipliers, count - 1, axis=1)[:, :count]
        return self._take(keep), np.take_along_axis(multipliers, keep, axis=1)

    def _take(self, keep: np.ndarray) -> OwnCuts:
        units, step, limit = (np.take_along_axis(v, keep, axis=1) for v in (self.units, self.step, self.limit))
        matrix = np.take_along_axis(self.matrix, keep[..., None], axis=1)
        how = self.derivation.take(keep) if isinstance(self.derivation, CutSets) else None
        return OwnCuts(self.node, self.source, units, matrix, step, limit, self.scope, seal=SEAL, derivation=how)

    def rows(self, keep: np.ndarray) -> OwnCuts:
        """The cuts of some rows, by index."""
        parts = self.units[keep], self.matrix[keep], self.step[keep], self.limit[keep]
        how = self.derivation.rows(keep) if isinstance(self.derivation, CutSets) else None
        return OwnCuts(self.node, self.source, *parts, self.scope, seal=SEAL, derivation=how)

    def join(self, other: OwnCuts) -> OwnCuts:
        """The cuts of both, row by row. Raises ValueError where they are of different layers or input sets."""
        scope = self.scope if len(self) else other.scope
        keys = {None if own.scope is None else own.scope.key for own in (self, other) if len(own)}
        if (self.node, self.source) != (other.node, other.source) or len(keys) > 1:
            raise ValueError("cuts of different layers or input sets are not joined")
        pairs = ((self.units, other.units), (self.matrix, other.matrix), (self.step, other.step))
        units, matrix, step = (np.concatenate(pair, axis=1) for pair in pairs)
        limit = np.concatenate([self.limit, other.limit], axis=1)
        one, two = self.derivation, other.derivation
        how = one.join(two) if isinstance(one, CutSets) and isinstance(two, CutSets) else None
        return OwnCuts(self.node, self.source, units, matrix, step, limit, scope, seal=SEAL, derivation=how)

    def of_row(self, row: int, keep: np.ndarray) -> LayerCuts:
        """Some cuts of one row, by index."""
        matrix = scipy.sparse.csr_array(self.matrix[row][keep])
        parts = self.units[row][keep], matrix, self.step[row][keep], self.limit[row][keep]
        how = self.derivation.of_row(row, keep) if isinstance(self.derivation, CutSets) else None
        return LayerCuts(self.node, self.source, *parts, self.scope, seal=SEAL, derivation=how)


Cuts: TypeAlias = LayerCuts | OwnCuts


@dataclass(frozen=True, eq=False)
class CutRelaxation:
    """A ReLU layer with cuts as rows met it, all (R, units): the coefficient of y with the cuts' share, the sum of
    multipliers times step, and the lines chosen through the envelope.

    slope of the line passed on to x; kink: whether the envelope bends at x = 0 (then two lines meet there, of slopes
    left and right); free: units that are unstable in their box.
    """

    weight: np.ndarray
    phase: np.ndarray
    slope: np.ndarray
    kink: np.ndarray
    left: np.ndarray
    right: np.ndarray
    free: np.ndarray


def relax_with_cuts(
    cuts: Cuts,
    multipliers: np.ndarray,
    coefficients: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    slopes: np.ndarray,
) -> tuple[CutRelaxation, np.ndarray]:
    """Rows with coefficients (R, units) on y and cut multipliers (R, T) meet a layer between lower and upper (R or 1,
    units): the lines, and what they add to the constants (R,).

    The function to bound from below is 0 on [l, 0], where a = 0, and weight * x - phase on [0, u], where a = 1. Its
    convex envelope is the chord, or two lines that meet at x = 0; slopes in [0, 1] choose between these two. The
    constant is the least value over the four ends, so that any line is sound.
    """
    weight = coefficients + cuts.by_unit(multipliers, coefficients.shape[1])
    phase = cuts.by_unit(multipliers * cuts.step, coefficients.shape[1])
    free = np.broadcast_to((lower < 0) & (upper > 0), weight.shape)
    low, high = np.where(free, lower, -1.0).astype(weight.dtype), np.where(free, upper, 1.0).astype(weight.dtype)
    middle, end = np.minimum(0, -phase), weight * high - phase
    chord = end / (high - low)
    kink = middle < -chord * low
    left, right = middle / -low, (end - middle) / high
    slope = np.where(kink, left + slopes * (right - left), chord)
    offset = np.minimum(np.minimum(-slope * low, 0), np.minimum(-phase, (weight - slope) * high - phase))
    active = np.broadcast_to(lower >= 0, weight.shape)
    slope = np.where(free, slope, np.where(active, weight, 0))
    offset = np.where(free, offset, np.where(active, -phase, 0))
    return CutRelaxation(weight, phase, slope, kink, left, right, free), offset.sum(axis=1) - cuts.limits(multipliers)


def cut_relaxation_error(
    cuts: Cuts,
    multipliers: np.ndarray,
    coefficients: np.ndarray,
    relaxed: CutRelaxation,
    magnitude: np.ndarray,
    source_magnitude: np.ndarray,
    terms: int,
) -> np.ndarray:
    """A bound (R,) of the rounding errors of `relax_with_cuts` and of passing the cuts on to their source.

    terms: roundings of what passes through the layer and is added up beside.
    """
    flat, below = magnitude.reshape(len(magnitude), -1), source_magnitude.reshape(len(source_magnitude), -1)
    size = np.abs(cuts.step) + np.abs(cuts.limit) + cuts.of_units(flat) + cuts.at(below, magnitude=True)
    terms = terms + 4 * flat.shape[1] + 4 * len(cuts) + 40
    total = row_dot(np.abs(coefficients) + np.abs(relaxed.weight) + np.abs(relaxed.slope), magnitude)
    return gamma(terms, coefficients) * (total + row_dot(multipliers, size) + np.abs(relaxed.phase).sum(axis=1))


def cuttable(network: Network) -> dict[int, int]:
    """ReLU nodes whose pre-activation is one operator of another node, and that node."""
    found = {}
    for node in network.relus:
        affine = network.nodes[network.relu_source(node)]
        if isinstance(affine, Affine) and len(affine.terms) == 1:
            found[node] = affine.terms[0].source
    return found


@dataclass(frozen=True, eq=False)
class IdealLayer(Sealed):
    """The unstable `units` (U,) of the ReLU layer `node`, x = weights @ z + bias up to deviation, and the box of z.

    before, source: the nodes whose values x and z are. Their cuts are of the scope of the bounds that the box is from.
    """

    node: int
    before: int
    source: int
    units: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    deviation: np.ndarray
    scope: Scope

    @classmethod
    def of(cls, bounds: Bounds, node: int) -> IdealLayer:
        """The layer within bounds of batch 1; one of `cuttable`."""
        network = bounds.network
        before = network.relu_source(node)
        affine = network.nodes[before]
        assert isinstance(affine, Affine)
        term, size = affine.terms[0], int(np.prod(affine.shape))
        units = np.flatnonzero(np.asarray(bounds.unstable(node)).reshape(-1))
        bias = np.zeros(size) if affine.bias is None else np.broadcast_to(affine.bias, affine.shape).reshape(-1)
        rows = term.operator.rows(units, np.zeros(0)).reshape(len(units), -1)
        lower, upper = (side[term.source].reshape(-1).astype(np.float64) for side in (bounds.lower, bounds.upper))
        deviation = np.zeros(size) if affine.error_bound is None else np.asarray(affine.error_bound).reshape(-1)
        off = bounds.deviation(before)
        if off is not None:
            deviation = deviation + off.reshape(-1)
        parts = np.asarray(rows, np.float64), np.asarray(bias, np.float64)[units], lower, upper, deviation[units]
        return cls(node, before, term.source, units, *parts, bounds.scope, seal=SEAL, derivation=bounds.derivation)

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Every product of a weight and its input at the end where it is least, and at the other (U, source)."""
        up = self.weights > 0
        return self.weights * np.where(up, self.lower, self.upper), self.weights * np.where(up, self.upper, self.lower)

    @cached_property
    def slack(self) -> np.ndarray:
        """Above what rounding can lose in a cut of each unit (U,), and what the layer itself may be off by."""
        low, high = self.ends
        scale = 1 + 2 * np.maximum(np.abs(low), np.abs(high)).sum(axis=1) + np.abs(self.bias)
        return np.asarray(scale * (2 * low.shape[1] + 16) * ROUNDOFF + self.deviation)

    @cached_property
    def highest(self) -> np.ndarray:
        """The bias and the greatest value of what is summed (U,)."""
        return np.asarray(self.bias + self.ends[1].sum(axis=1))

    def deepest(self, chosen: np.ndarray, position: np.ndarray, phase: np.ndarray) -> OwnCuts:
        """The cuts of unstable units by position (R, T) that are deepest at a point of each row.

        position: where in its interval each input is (R, size of source), and phase: that of each unit (R, T), both
        uint8, in parts of 1 / SLOPE_STEPS. An input belongs to I where that makes the right side less: where
        w_i (z_i - lo_i (1 - p)) < w_i up_i p. With t_i the position counted from the end lo_i, that is t_i < p.
        """
        falling = np.where(self.weights > 0, np.uint8(0), np.uint8(SLOPE_STEPS))[chosen]
        inside = (position[:, None, :] ^ falling) < phase[..., None]  # 255 - t is t ^ 255
        how = None
        if self.derivation is not None:
            units, first = self.units[chosen], np.zeros(chosen.shape, int)
            how = CutSets(self.derivation, units, phase, first, position[:, None, :])
        return self.cuts(chosen, inside, how)

    def cuts(self, chosen: np.ndarray, inside: np.ndarray, how: CutSets | None = None) -> OwnCuts:
        """The cuts of unstable units by position (R, T), each for any set I of inputs (R, T, size of source)."""
        low, high = (np.where(inside, end[chosen], 0.0).sum(axis=2) for end in self.ends)
        weights, step = np.where(inside, self.weights[chosen], 0.0), self.highest[chosen] - high + low
        parts = self.units[chosen], weights, step, self.slack[chosen] - low
        return OwnCuts(self.node, self.source, *parts, self.scope, seal=SEAL, derivation=how)

    def none(self, count: int) -> OwnCuts:
        """No cuts at all for some rows."""
        nothing, size = np.zeros((count, 0), int), self.weights.shape[1]
        how = None
        if self.derivation is not None:
            points = np.zeros((count, 0, size), np.uint8)
            how = CutSets(self.derivation, nothing, nothing.astype(np.uint8), nothing, points)
        return self.cuts(nothing, np.zeros((count, 0, size), bool), how)
