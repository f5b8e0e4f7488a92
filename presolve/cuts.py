"""Cuts of the ideal formulation in bound propagation: rows over a ReLU, its phase and the inputs of its affine map.

For y = max(0, x), x = w z + b and z in a box, with lo_i the end of z_i at which w_i z_i is least, up_i the other,
for every set I of inputs and the phase a in {0, 1}:

    y <= sum_I w_i (z_i - lo_i (1 - a)) + (b + sum_not_I w_i up_i) a          [Anderson et al. 2020, proposition 2]

Dualized with multipliers gamma >= 0 they enter a pass back as in GCP-CROWN [Zhang et al. 2022, section 3.1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from mipverify.presolve.rounding import gamma, row_dot

from mipverify.network import Affine, Network

if TYPE_CHECKING:
    from mipverify.presolve.bounds import Bounds

ROUNDOFF = 1e-15  # several units in the last place


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
        ones = np.ones(len(self), values.dtype)
        return np.asarray((sp.csr_array((ones, (self.units, np.arange(len(self)))), (size, len(self))) @ values.T).T)

    def select(self, keep: np.ndarray) -> LayerCuts:
        """Some of the cuts, by index."""
        return replace(
            self, units=self.units[keep], matrix=self.matrix[keep], step=self.step[keep], limit=self.limit[keep]
        )

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


def cuttable(network: Network) -> dict[int, int]:
    """ReLU nodes whose pre-activation is one operator of another node, and that node."""
    found = {}
    for node in network.relus:
        affine = network.nodes[network.relu_source(node)]
        if isinstance(affine, Affine) and len(affine.terms) == 1:
            found[node] = affine.terms[0].source
    return found


@dataclass(frozen=True, eq=False)
class Separator:
    """The unstable `units` (U,) of the ReLU layer `node`, x = weights @ z + bias up to doubt, and the box of z."""

    node: int
    source: int
    units: np.ndarray
    weights: Any
    bias: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    doubt: np.ndarray

    @classmethod
    def of(cls, bounds: Bounds, node: int) -> Separator:
        """The layer within bounds of batch 1; one of `cuttable`."""
        network = bounds.network
        affine = network.nodes[network.relu_source(node)]
        assert isinstance(affine, Affine)
        term, size = affine.terms[0], int(np.prod(affine.shape))
        units = np.flatnonzero(np.asarray(bounds.unstable(node)).reshape(-1))
        bias = np.zeros(size) if affine.bias is None else np.broadcast_to(affine.bias, affine.shape).reshape(-1)
        rows = term.operator.rows(units, np.zeros(0)).reshape(len(units), -1)
        lower, upper = (side[term.source].reshape(-1).astype(np.float64) for side in (bounds.lower, bounds.upper))
        doubt = np.zeros(size) if affine.uncertainty is None else np.asarray(affine.uncertainty).reshape(-1)
        own = np.asarray(bias, np.float64)[units]
        return cls(node, term.source, units, sp.csr_array(rows), own, lower, upper, doubt[units])


def separate(layer: Separator, z: np.ndarray, y: np.ndarray, a: np.ndarray, least: float = 1e-6) -> LayerCuts:
    """The most violated cut of every unit of a layer at a point: z (size of source,), y and a (size of node,).

    Right sides are rounded up by more than computing a row can lose.
    """
    units, weights, bias, lower, upper = layer.units, layer.weights, layer.bias, layer.lower, layer.upper
    count = len(units)
    row, column, w = np.repeat(np.arange(count), np.diff(weights.indptr)), weights.indices, weights.data
    low, high = w * np.where(w > 0, lower[column], upper[column]), w * np.where(w > 0, upper[column], lower[column])
    y, a = y[units], a[units]
    inner, outer = w * z[column] - low * (1 - a[row]), high * a[row]
    inside = inner < outer
    violation = y - np.bincount(row, np.where(inside, inner, outer), count) - bias * a
    scale = 1 + np.bincount(row, np.maximum(np.abs(low), np.abs(high)), count) + np.abs(bias)
    cut = np.flatnonzero(violation > least * scale)
    below = np.bincount(row[inside], low[inside], count)
    step = bias + below + np.bincount(row[~inside], high[~inside], count)
    slack = scale * (np.bincount(row, minlength=count) + 8) * ROUNDOFF + layer.doubt
    matrix = sp.csr_array((np.where(inside, w, 0.0), column, weights.indptr), shape=weights.shape)[cut]
    matrix.eliminate_zeros()
    return LayerCuts(layer.node, layer.source, units[cut], matrix, step[cut], (slack - below)[cut])


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
    cuts: LayerCuts,
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
    return Met(weight, phase, slope, kink, left, right, free), offset.sum(axis=1) - multipliers @ cuts.limit


def meeting_error(
    cuts: LayerCuts,
    multipliers: np.ndarray,
    coefficients: np.ndarray,
    met: Met,
    magnitude: np.ndarray,
    source_magnitude: np.ndarray,
) -> np.ndarray:
    """A bound (R,) of the rounding errors of `meet` and of passing the cuts on to their source."""
    matrix = np.abs(cuts.matrix) if isinstance(cuts.matrix, np.ndarray) else abs(cuts.matrix)
    flat, below = magnitude.reshape(len(magnitude), -1), source_magnitude.reshape(len(source_magnitude), -1)
    size = np.abs(cuts.step) + np.abs(cuts.limit) + flat[:, cuts.units] + (matrix @ below.T).T
    terms = 4 * flat.shape[1] + 4 * len(cuts) + 40
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
