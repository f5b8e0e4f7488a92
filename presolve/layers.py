"""Tightening layer by layer: what interval arithmetic leaves unstable goes to a sharper method, then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from mipverify.network import Network, sources
from mipverify.network.operators import Array
from mipverify.proof.backward import Relaxed
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval
from mipverify.specification.regions import Region

ROW_BYTES = 32 * 2**20  # rows of one pass: small enough to stay near the caches, large enough for dense products

Known: TypeAlias = Mapping[int, tuple[Array, Array]]
UnitBounder: TypeAlias = Callable[[Relaxed, int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def tighten_by_layer(
    network: Network,
    lower: Array,
    upper: Array,
    bounder: UnitBounder,
    known: Known | None = None,
    region: Region | None = None,
) -> Bounds:
    """Layer by layer: tighten the unstable units with `bounder`, then carry on from the tightened bounds."""
    known = dict(known or {})
    bounds = interval(network, lower, upper, known, region)
    for node in network.preactivations:
        if region is None and _reads_input_once(network, node):
            continue  # interval arithmetic is exact there
        mask = np.asarray(bounds.unstable(node)).reshape(bounds.batch, -1)
        samples, units = np.nonzero(mask)
        if not len(units):
            continue
        lows, highs = bounder(Relaxed(bounds), node, samples, units)
        known[node] = _scatter(bounds, node, samples, units, lows, highs)
        bounds = interval(network, lower, upper, known, region)
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


def row_chunks(network: Network, node: int, count: int) -> Iterator[slice]:
    """Slices of `count` rows, each small enough for one pass back from `node`."""
    widest = max(int(np.prod(n.shape)) for n in network.nodes[: node + 1])
    size = max(1, ROW_BYTES // (8 * widest))
    for begin in range(0, count, size):
        yield slice(begin, min(count, begin + size))
