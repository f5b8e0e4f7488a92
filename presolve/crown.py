"""CROWN: linear bounds passed back to the input, for the units that cheaper bounds leave undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from array_api_compat import array_namespace
from mipverify.presolve.backward import Relaxed, Rows, row_minimum, unit_rows
from mipverify.presolve.bounds import Bounds
from mipverify.presolve.interval import interval
from mipverify.presolve.patches import convolution, patch_units

from mipverify.network import Network, sources
from mipverify.network.operators import Array

ROW_BYTES = 32 * 2**20  # rows of one pass: small enough to stay near the caches, large enough for dense products

Known: TypeAlias = Mapping[int, tuple[Array, Array]]
UnitBounder: TypeAlias = Callable[[Relaxed, int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def crown(network: Network, lower: Array, upper: Array, known: Known | None = None) -> Bounds:
    """Bounds of every node by CROWN [Zhang et al. 2018], sound in exact arithmetic, for boxes (B, *input_shape).

    Interval arithmetic first; a row only for a unit that is still unstable in that box. known: bounds already proven.
    """
    return tighten_by_layer(network, lower, upper, crown_units, known)


def tighten_by_layer(
    network: Network, lower: Array, upper: Array, bounder: UnitBounder, known: Known | None = None
) -> Bounds:
    """Layer by layer: tighten the unstable units with `bounder`, then carry on from the tightened bounds."""
    known = dict(known or {})
    bounds = interval(network, lower, upper, known)
    for node in network.preactivations:
        if _reads_input_once(network, node):
            continue  # interval arithmetic is exact there
        mask = np.asarray(bounds.unstable(node)).reshape(bounds.batch, -1)
        samples, units = np.nonzero(mask)
        if not len(units):
            continue
        lows, highs = bounder(Relaxed(bounds), node, samples, units)
        known[node] = _scatter(bounds, node, samples, units, lows, highs)
        bounds = interval(network, lower, upper, known)
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


def crown_units(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CROWN bounds (R,), (R,) of single entries `units` of `node` in the boxes `samples`."""
    if isinstance(relaxed.bounds.lower[0], np.ndarray) and convolution(relaxed, node) is not None:
        return patch_units(relaxed, node, samples, units)
    lows, highs = _unit_bounds(Relaxed(relaxed.bounds.outward(np.float32)), node, samples, units)
    left = np.flatnonzero((lows < 0) & (highs > 0))
    if len(left):  # float32 bounds are sound, and settle most units at half the cost; these want the sharper ones
        lows[left], highs[left] = _unit_bounds(relaxed, node, samples[left], units[left])
    return lows, highs


def _unit_bounds(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lows, highs = np.empty(len(units)), np.empty(len(units))
    single = relaxed.bounds.batch == 1
    for part in row_chunks(relaxed.network, node, len(units)):
        boxes = None if single else samples[part]
        rows = unit_rows(relaxed.network, node, units[part], boxes, relaxed.bounds.lower[0])
        lows[part] = row_minimum(relaxed, rows)
        highs[part] = -row_minimum(relaxed, negated(rows))
    return lows, highs


def negated(rows: Rows) -> Rows:
    """The rows of the negative quantities."""
    constant = None if rows.constant is None else -rows.constant
    return Rows({index: -a for index, a in rows.coefficients.items()}, rows.samples, constant)


def row_chunks(network: Network, node: int, count: int) -> Iterator[slice]:
    """Slices of `count` rows, each small enough for one pass back from `node`."""
    widest = max(int(np.prod(n.shape)) for n in network.nodes[: node + 1])
    size = max(1, ROW_BYTES // (8 * widest))
    for begin in range(0, count, size):
        yield slice(begin, min(count, begin + size))


def condition_rows(
    output: int, output_rows: Array, offset: Array, input_rows: Array | None, samples: np.ndarray | None
) -> Rows:
    """Rows for linear conditions on the output: output_rows (R, *shape) . y + input_rows (R, *shape) . x - offset."""
    xp = array_namespace(output_rows)
    coefficients = {output: output_rows}
    if input_rows is not None and bool(xp.any(input_rows != 0)):
        coefficients[0] = coefficients[0] + input_rows if output == 0 else input_rows
    return Rows(coefficients, samples, -offset)
