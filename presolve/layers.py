"""Tightening layer by layer: what interval arithmetic leaves unstable goes to a sharper method, then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from mipverify.network import Network, sources
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import UnitBounds
from mipverify.proof.interval import tighten
from mipverify.proof.parts import never

# Finds facts about single entries `units` (R,) of a node in the entries `samples` (R,) of a batch.
UnitBounder: TypeAlias = Callable[[Bounds, int, np.ndarray, np.ndarray], Iterable[UnitBounds]]


def tighten_by_layer(bounds: Bounds, bounder: UnitBounder, stop: Callable[[], bool] = never) -> Bounds:
    """Layer by layer: tighten the unstable units with `bounder`, then carry on from the tightened bounds.

    Once `stop` returns true, layers that were not reached keep what interval arithmetic makes of those before.
    """
    for node in bounds.network.preactivations:
        if bounds.over_boxes and _reads_input_once(bounds.network, node):
            continue  # interval arithmetic is exact there
        if stop():
            break
        mask = np.asarray(bounds.unstable(node)).reshape(-1, int(np.prod(bounds.network.nodes[node].shape)))
        samples, units = np.nonzero(mask)
        if len(units):
            bounds = tighten(bounds, bounder(bounds, node, samples, units))
    return bounds


def _reads_input_once(network: Network, node: int) -> bool:
    """Whether a node is one operator away from the input."""
    return list(sources(network.nodes[node])) == [0]
