"""Fast-Lin: parallel lines for every ReLU, so that one pass back gives both sides of a bound [Weng et al. 2018]."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from mipverify.presolve.layers import Known, tighten_by_layer

from mipverify.network import Network
from mipverify.proof.backward import Relaxed
from mipverify.proof.bounds import Bounds
from mipverify.proof.parallel import both_sides
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.patches import convolution, parallel_patches
from mipverify.proof.rows import unit_rows


def fast_lin(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    stop: Callable[[], bool] = never,
) -> Bounds:
    """Bounds of every node by parallel lines, for boxes (B, *input_shape): half the work of CROWN, nearly as tight.

    Interval arithmetic first; a row only for a unit that is still unstable in that box. Rows are passed in float32
    with float32's error terms: sound in exact arithmetic all the same. Once `stop` returns true, units keep the bounds
    they have.
    """
    return tighten_by_layer(network, lower, upper, partial(fast_lin_units, stop=stop), known, stop=stop)


def fast_lin_units(
    relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (R,), (R,) of single entries `units` of `node` in the boxes `samples`; infinite from `stop` on."""
    thin = Relaxed(relaxed.bounds.outward(np.float32))
    if convolution(thin, node) is not None:
        return parallel_patches(thin, node, samples, units, stop)
    lows, highs = np.full(len(units), -np.inf), np.full(len(units), np.inf)
    single = thin.bounds.batch == 1
    for part in row_chunks(thin.network, node, len(units)):
        if stop():
            break
        boxes = None if single else samples[part]
        rows = unit_rows(thin.network, node, units[part], boxes, thin.bounds.lower[0])
        lows[part], highs[part] = both_sides(thin, rows)
    return lows, highs
