"""Where the ideal formulation of a ReLU is violated: for each of many points the deepest cuts of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mipverify.presolve.bounds import Bounds
from mipverify.presolve.cuts import OwnCuts

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
    weights: np.ndarray
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
        return cls(
            node,
            network.relu_source(node),
            term.source,
            units,
            np.asarray(rows, np.float64),
            own,
            lower,
            upper,
            doubt[units],
        )


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
    w = layer.weights[chosen]
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
