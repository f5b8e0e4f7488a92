"""Cuts of the ideal formulation in bound propagation: rows over a ReLU, its phase and the inputs of its affine map.

For y = max(0, x), x = w z + b and z in a box, with lo_i the end of z_i at which w_i z_i is least, up_i the other,
for every set I of inputs and the phase a in {0, 1}:

    y <= sum_I w_i (z_i - lo_i (1 - a)) + (b + sum_not_I w_i up_i) a          [Anderson et al. 2020, proposition 2]

Dualized with multipliers gamma >= 0 they enter a pass back as in GCP-CROWN [Zhang et al. 2022, section 3.1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from mipverify.proof.rounding import gamma, row_dot


@dataclass(frozen=True, eq=False)
class LayerCuts:
    """Cuts `y[units] - matrix @ z - step * a[units] <= limit` on the ReLU layer `node`; z is the value of `source`.

    units, step, limit: (T,). matrix: sparse (T, size of source). Each holds for all inputs of the box it was made for.
    """

    node: int
    source: int
    units: np.ndarray
    matrix: Any
    step: np.ndarray
    limit: np.ndarray

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
        return present, sp.csr_array((ones, (place, np.arange(len(self)))), (len(present), len(self)))

    def join(self, other: LayerCuts) -> LayerCuts:
        """The cuts of both."""
        return replace(
            self,
            units=np.concatenate([self.units, other.units]),
            matrix=sp.csr_array(sp.vstack([self.matrix, other.matrix], format="csr")),
            step=np.concatenate([self.step, other.step]),
            limit=np.concatenate([self.limit, other.limit]),
        )

    def dense(self, dtype: Any) -> LayerCuts:
        """The same with a dense matrix in another precision, for products with many multipliers."""
        matrix = self.matrix.toarray() if hasattr(self.matrix, "toarray") else self.matrix
        return replace(self, matrix=matrix.astype(dtype), step=self.step.astype(dtype), limit=self.limit.astype(dtype))

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
class OwnCuts:
    """Cuts as `LayerCuts`, but each row of a batch has T of its own: far fewer products than with those of all.

    units, step, limit: (R, T). matrix: dense (R, T, size of source).
    """

    node: int
    source: int
    units: np.ndarray
    matrix: np.ndarray
    step: np.ndarray
    limit: np.ndarray

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
        """The same in another precision."""
        return replace(
            self, matrix=self.matrix.astype(dtype), step=self.step.astype(dtype), limit=self.limit.astype(dtype)
        )

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
        return replace(self, units=units, matrix=matrix, step=step, limit=limit)

    def rows(self, keep: np.ndarray) -> OwnCuts:
        """The cuts of some rows, by index."""
        return replace(
            self, units=self.units[keep], matrix=self.matrix[keep], step=self.step[keep], limit=self.limit[keep]
        )

    def join(self, other: OwnCuts) -> OwnCuts:
        """The cuts of both, row by row."""
        pairs = ((self.units, other.units), (self.matrix, other.matrix), (self.step, other.step))
        units, matrix, step = (np.concatenate(pair, axis=1) for pair in pairs)
        limit = np.concatenate([self.limit, other.limit], axis=1)
        return replace(self, units=units, matrix=matrix, step=step, limit=limit)

    def of_row(self, row: int, keep: np.ndarray) -> LayerCuts:
        """Some cuts of one row, by index."""
        matrix = sp.csr_array(self.matrix[row][keep])
        return LayerCuts(
            self.node, self.source, self.units[row][keep], matrix, self.step[row][keep], self.limit[row][keep]
        )


Cuts: TypeAlias = LayerCuts | OwnCuts


@dataclass(frozen=True, eq=False)
class Met:
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


def meet(
    cuts: Cuts,
    multipliers: np.ndarray,
    coefficients: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    slopes: np.ndarray,
) -> tuple[Met, np.ndarray]:
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
    return Met(weight, phase, slope, kink, left, right, free), offset.sum(axis=1) - cuts.limits(multipliers)


def meeting_error(
    cuts: Cuts,
    multipliers: np.ndarray,
    coefficients: np.ndarray,
    met: Met,
    magnitude: np.ndarray,
    source_magnitude: np.ndarray,
    terms: int,
) -> np.ndarray:
    """A bound (R,) of the rounding errors of `meet` and of passing the cuts on to their source.

    terms: roundings of what passes through the layer and is added up beside.
    """
    flat, below = magnitude.reshape(len(magnitude), -1), source_magnitude.reshape(len(source_magnitude), -1)
    size = np.abs(cuts.step) + np.abs(cuts.limit) + cuts.of_units(flat) + cuts.at(below, magnitude=True)
    terms = terms + 4 * flat.shape[1] + 4 * len(cuts) + 40
    total = row_dot(np.abs(coefficients) + np.abs(met.weight) + np.abs(met.slope), magnitude)
    return gamma(terms, coefficients) * (total + row_dot(multipliers, size) + np.abs(met.phase).sum(axis=1))


def respond(met: Met, x: np.ndarray, lower: np.ndarray, upper: np.ndarray, slopes: np.ndarray) -> tuple[Any, Any]:
    """y and a (R, units) at pre-activations x (R, units): the derivatives of the envelope by weight and phase."""
    low, high = np.where(met.free, lower, -1.0), np.where(met.free, upper, 1.0)
    on_chord = (x - low) / (high - low)
    through = np.where(met.phase > 0, 1 + (1 - slopes) * x / -low, slopes * x / high)
    a = np.where(met.kink, through, on_chord)
    y = np.where(met.kink, slopes * x, high * on_chord)
    active = np.broadcast_to(lower >= 0, x.shape)
    return np.where(met.free, y, np.where(active, x, 0)), np.where(met.free, a, active)
