"""Where the ideal formulation of a ReLU is violated: for each of many points the deepest cuts of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mipverify.network import Affine, Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import OwnCuts

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

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Every product of a weight and its input at the end where it is least, and at the other (U, source)."""
        up = self.weights > 0
        return self.weights * np.where(up, self.lower, self.upper), self.weights * np.where(up, self.upper, self.lower)

    @cached_property
    def thin(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights and `ends` in float32, for searching."""
        weights, low, high = (np.asarray(array, np.float32) for array in (self.weights, *self.ends))
        return weights, low, high

    @cached_property
    def slack(self) -> np.ndarray:
        """Above what rounding can lose in a cut of each unit (U,), and what the layer's own uncertainty adds."""
        low, high = self.ends
        scale = 1 + 2 * np.maximum(np.abs(low), np.abs(high)).sum(axis=1) + np.abs(self.bias)
        return np.asarray(scale * (2 * low.shape[1] + 16) * ROUNDOFF + self.doubt)

    @cached_property
    def highest(self) -> np.ndarray:
        """The bias and the greatest value of what is summed (U,)."""
        return np.asarray(self.bias + self.ends[1].sum(axis=1))

    def cuts(self, chosen: np.ndarray, inside: np.ndarray) -> OwnCuts:
        """The cuts of unstable units by position (R, T), each for its set I of inputs (R, T, size of source)."""
        low, high = (np.where(inside, end[chosen], 0.0).sum(axis=2) for end in self.ends)
        limit = self.slack[chosen] - low
        return OwnCuts(
            self.node,
            self.source,
            self.units[chosen],
            np.where(inside, self.weights[chosen], 0.0),
            self.highest[chosen] - high + low,
            limit,
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
    w, low, high = (thin[chosen] for thin in layer.thin)
    phase = np.take_along_axis(a, units[chosen], axis=1)[..., None].astype(np.float32)
    return layer.cuts(chosen, w * z[:, None, :].astype(np.float32) - low * (1 - phase) < high * phase)
