"""Where the ideal formulation of a ReLU is violated: the deepest cut of each unit at one point, or at many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from mipverify.presolve.bounds import Bounds
from mipverify.presolve.cuts import LayerCuts, OwnCuts

from mipverify.network import Affine, Network

ROUNDOFF = 1e-15  # several units in the last place


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
    """The unstable `units` (U,) of the ReLU layer `node`, x = weights @ z + bias up to doubt, and the box of z.

    before, source: the nodes whose values x and z are.
    """

    node: int
    before: int
    source: int
    units: np.ndarray
    weights: Any
    bias: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    doubt: np.ndarray

    @cached_property
    def dense(self) -> np.ndarray:
        """The weights (U, size of source)."""
        return np.asarray(self.weights.toarray())

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
        return cls(
            node, network.relu_source(node), term.source, units, sp.csr_array(rows), own, lower, upper, doubt[units]
        )


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


def separate_rows(
    layer: Separator, z: np.ndarray, x: np.ndarray, y: np.ndarray, a: np.ndarray, weight: np.ndarray, most: int
) -> OwnCuts:
    """For every row its deepest cuts at a point of its own, for the units where they promise most.

    z: (R, size of source). x, y, a: (R, size of node), values before and after the ReLU, and its phase. weight: the
    coefficient of y in the row (R, size of node): only where it is negative does y's upper side matter. most: how many
    cuts a row gets, where the layer has so many unstable units. They need not be violated, but always hold.
    """
    units = layer.units
    promise = np.maximum(-weight[:, units], 0) * np.maximum(y - np.maximum(x, 0), 0)[:, units]
    count = min(most, len(units))
    chosen = np.argpartition(-promise, count - 1, axis=1)[:, :count]
    w = layer.dense[chosen]
    down, up = (np.broadcast_to(side, w.shape) for side in (layer.lower, layer.upper))
    low, high = w * np.where(w > 0, down, up), w * np.where(w > 0, up, down)
    phase = np.take_along_axis(a, units[chosen], axis=1)[..., None]
    inside = w * z[:, None, :] - low * (1 - phase) < high * phase
    bias = layer.bias[chosen]
    below = np.where(inside, low, 0.0).sum(axis=2)
    step = bias + below + np.where(inside, 0.0, high).sum(axis=2)
    scale = 1 + np.maximum(np.abs(low), np.abs(high)).sum(axis=2) + np.abs(bias)
    slack = scale * (w.shape[2] + 8) * ROUNDOFF + layer.doubt[chosen]
    return OwnCuts(layer.node, layer.source, units[chosen], np.where(inside, w, 0.0), step, slack - below)
