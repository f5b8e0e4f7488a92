"""CROWN: linear bounds passed back to the input, for the units that cheaper bounds leave undecided."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from array_api_compat import array_namespace
from mipverify.presolve.fast_lin import fast_lin_units
from mipverify.presolve.layers import Known, tighten_by_layer

from mipverify.network import Network
from mipverify.network.operators import Array
from mipverify.proof.backward import Relaxed, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.patches import adaptive_patches, convolution
from mipverify.proof.rows import Rows, unit_rows
from mipverify.specification.regions import Region


def crown(
    network: Network,
    lower: Array,
    upper: Array,
    known: Known | None = None,
    region: Region | None = None,
    stop: Callable[[], bool] = never,
) -> Bounds:
    """Bounds of every node by CROWN [Zhang et al. 2018], sound in exact arithmetic, for boxes (B, *input_shape).

    Interval arithmetic first; a row only for a unit that is still unstable in that box. known: bounds already proven.
    region: what cuts the input sets out of their boxes. Once `stop` returns true, units keep the bounds they have.
    """
    return tighten_by_layer(network, lower, upper, partial(crown_units, stop=stop), known, region, stop)


def crown_units(
    relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> tuple[np.ndarray, np.ndarray]:
    """CROWN bounds (R,), (R,) of single entries `units` of `node` in the boxes `samples`.

    Parallel lines first, which settle most units at a quarter of the cost; CROWN's lines for those still unstable.
    """
    if relaxed.bounds.region is not None:
        return _unit_bounds(relaxed, node, samples, units, stop)
    lows, highs = fast_lin_units(relaxed, node, samples, units, stop)
    left = np.flatnonzero((lows < 0) & (highs > 0))
    if len(left):
        bound = adaptive_patches if convolution(relaxed, node) is not None else _unit_bounds
        low, high = bound(relaxed, node, samples[left], units[left], stop)
        lows[left], highs[left] = np.maximum(lows[left], low), np.minimum(highs[left], high)
    return lows, highs


def _unit_bounds(
    relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray]:
    lows, highs = np.full(len(units), -np.inf), np.full(len(units), np.inf)
    single = relaxed.bounds.batch == 1
    for part in row_chunks(relaxed.network, node, len(units)):
        if stop():
            break
        boxes = None if single else samples[part]
        rows = unit_rows(relaxed.network, node, units[part], boxes, relaxed.bounds.lower[0])
        lows[part] = row_minimum(relaxed, rows)
        highs[part] = -row_minimum(relaxed, rows.negated())
    return lows, highs


def condition_rows(
    output: int, output_rows: Array, offset: Array, input_rows: Array | None, samples: np.ndarray | None
) -> Rows:
    """Rows for linear conditions on the output: output_rows (R, *shape) . y + input_rows (R, *shape) . x - offset."""
    xp = array_namespace(output_rows)
    coefficients = {output: output_rows}
    if input_rows is not None and bool(xp.any(input_rows != 0)):
        coefficients[0] = coefficients[0] + input_rows if output == 0 else input_rows
    return Rows(coefficients, samples, -offset)
