"""Tightening layer by layer: what interval arithmetic leaves unstable goes to a sharper method, then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from mipverify.network import Network, sources
from mipverify.network.operators import Array
from mipverify.proof.backward import Relaxed
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval
from mipverify.proof.parts import never
from mipverify.specification.regions import Region

Known: TypeAlias = Mapping[int, tuple[Array, Array]]
UnitBounder: TypeAlias = Callable[[Relaxed, int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def tighten_by_layer(
    network: Network,
    lower: Array,
    upper: Array,
    bounder: UnitBounder,
    known: Known | None = None,
    region: Region | None = None,
    stop: Callable[[], bool] = never,
) -> Bounds:
    """Layer by layer: tighten the unstable units with `bounder`, then carry on from the tightened bounds.

    Once `stop` returns true, layers that were not reached keep what interval arithmetic makes of those before.
    """
    known = dict(known or {})
    bounds = interval(network, lower, upper, known, region)
    for node in network.preactivations:
        if region is None and _reads_input_once(network, node):
            continue  # interval arithmetic is exact there
        if stop():
            break
        mask = np.asarray(bounds.unstable(node)).reshape(bounds.batch, -1)
        samples, units = np.nonzero(mask)
        if not len(units):
            continue
        lows, highs = bounder(Relaxed(bounds), node, samples, units)
        known[node] = _scatter(bounds, node, samples, units, lows, highs)
        bounds = interval(network, lower, upper, known, region, bounds, node)
    return bounds


def _reads_input_once(network: Network, node: int) -> bool:
    """Whether a node is one operator away from the input."""
    return list(sources(network.nodes[node])) == [0]


def _scatter(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, lows: np.ndarray, highs: np.ndarray
) -> tuple[Array, Array]:
    shape = tuple(bounds.lower[node].shape)
    low, high = bounds.lower[node].reshape(shape[0], -1).copy(), bounds.upper[node].reshape(shape[0], -1).copy()
    low[samples, units] = np.maximum(low[samples, units], lows)
    high[samples, units] = np.minimum(high[samples, units], highs)
    return low.reshape(shape), high.reshape(shape)
