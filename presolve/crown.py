"""CROWN: linear bounds passed back to the input, for the units that cheaper bounds leave undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from mipverify.presolve.fast_lin import fast_lin_units
from mipverify.presolve.layers import tighten_by_layer

from mipverify.proof.backward import unit_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import UnitBounds
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.patches import adaptive_patches
from mipverify.proof.sparse_rows import sparse
from mipverify.proof.windows import windowed


def crown(bounds: Bounds, stop: Callable[[], bool] = never) -> Bounds:
    """Bounds tightened by CROWN [Zhang et al. 2018].

    A row only for a unit that is still unstable in its entry of the batch. Once `stop` returns true, units keep the
    bounds they have.
    """
    return tighten_by_layer(bounds, partial(crown_units, stop=stop), stop)


def crown_units(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool] = never
) -> Iterator[UnitBounds]:
    """What CROWN shows of single entries `units` (R,) of `node` in the entries `samples` (R,) of the batch.

    Parallel lines first, which settle most units at a quarter of the cost; CROWN's lines for those still unstable.
    """
    if not bounds.over_boxes:
        yield from _by_rows(bounds, node, samples, units, stop)
        return
    if sparse(bounds.network, node):  # arithmetic costs least there: one pass less is worth more
        yield from adaptive_patches(bounds, node, samples, units, stop)
        return
    begin, unstable = 0, np.ones(len(units), bool)
    for fact in fast_lin_units(bounds, node, samples, units, stop):
        unstable[begin : begin + len(fact.units)] = (fact.lower < 0) & (fact.upper > 0)
        begin += len(fact.units)
        yield fact
    left = np.flatnonzero(unstable)
    if not len(left):
        return
    if windowed(bounds.network, node):
        yield from adaptive_patches(bounds, node, samples[left], units[left], stop)
    else:
        yield from _by_rows(bounds, node, samples[left], units[left], stop)


def _by_rows(
    bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, stop: Callable[[], bool]
) -> Iterator[UnitBounds]:
    for part in row_chunks(bounds.network, node, len(units)):
        if stop():
            return
        yield unit_minimum(bounds, node, None if bounds.batch == 1 else samples[part], units[part])
