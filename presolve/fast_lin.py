"""Fast-Lin: parallel lines for every ReLU, so that one pass back gives both sides of a bound [Weng et al. 2018]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from mipverify.presolve.layers import tighten_by_layer

from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import UnitBounds
from mipverify.proof.parallel import both_sides
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.patches import has_partial_rows, parallel_patches
from mipverify.proof.rows import unit_rows


def fast_lin(bounds: Bounds, stop: Callable[[], bool] = never) -> Bounds:
    """Bounds tightened by parallel lines: half the work of CROWN, nearly as tight.

    A row only for a unit that is still unstable in its entry of the batch. Rows are passed in float32 with float32's
    error terms: sound in exact arithmetic all the same. Once `stop` returns true, units keep the bounds they have.
    """
    return tighten_by_layer(bounds, partial(fast_lin_units, stop=stop), stop)


def fast_lin_units(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """What parallel lines show of single entries `units` (R,) of `node` in the entries `samples` (R,) of the batch.

    In the order given, but for those after `stop`.
    """
    # Who checks a recorded pass makes it again in float64: from bounds that are looser by float32's errors, lines that
    # are chosen by a comparison would come out otherwise here and there.
    outward = bounds if bounds.derivation is not None else bounds.outward(np.float32)
    if has_partial_rows(bounds.network, node):
        yield from parallel_patches(outward, node, samples, units, stop)
        return
    for part in row_chunks(bounds.network, node, len(units)):
        if stop():
            return
        entries = None if bounds.batch == 1 else samples[part]
        yield both_sides(outward, unit_rows(bounds.network, node, units[part], entries, outward.like))
