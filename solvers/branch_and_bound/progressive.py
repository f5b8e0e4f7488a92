"""Hidden bounds layer by layer with all that is at hand, each on the network as the layers before have left it.

In deep networks the gain of one layer multiplies in the next: of 227 unstable units in a fourth layer 18 are left once
cuts and trees have settled a few dozen in the three before. So no layer is worked on before those below it are done,
and what is unstable there is all that the work on it costs: everything else is multiplied out first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from mipverify.presolve import Bounds, Relaxed, reduce
from mipverify.presolve.cutting import cut_units
from mipverify.presolve.layers import Known, tighten_by_layer
from mipverify.solvers.branch_and_bound.hidden import Effort, settle_signs

from mipverify.errors import Stopped
from mipverify.network import Network
from mipverify.parallel import ALONE, Hands
from mipverify.specification.regions import Region

# Which of some units of a network's output are known not to be positive somewhere, and not to be negative.
SignsMet: TypeAlias = Callable[[Network, np.ndarray], tuple[np.ndarray, np.ndarray]]


def progressive_tighten(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    effort: Effort | None = None,
    signs_met: SignsMet | None = None,
    stop: Callable[[], bool] = lambda: False,
    region: Region | None = None,
    hands: Hands = ALONE,
) -> Bounds:
    """Bounds by optimized CROWN with cuts, then by branching on the phases below, for one box (1, *input_shape).

    Same shape of answer as `crown`. signs_met: spares trees that cannot be closed; nothing rests on it. Once `stop`
    returns true, units keep the bounds they have. hands: who works on the units of a layer.
    """
    effort = effort or Effort()

    def bounder(relaxed: Relaxed, node: int, _: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = (side[node].reshape(-1)[units] for side in (relaxed.bounds.lower, relaxed.bounds.upper))
        if stop():
            return lows, highs
        part = up_to(relaxed.bounds, node)
        try:
            below = reduce(part, stop).bounds
        except Stopped:
            return lows, highs
        low, high = cut_units(below, below.network.output, units, stop, hands)
        lows, highs = np.maximum(lows, low), np.minimum(highs, high)
        open_ = np.flatnonzero((lows < 0) & (highs > 0))
        if below.network.relus and len(open_):
            some, none = units[open_], np.zeros(len(open_), bool)
            met = (none, none) if signs_met is None else signs_met(part.network, some)
            sides = settle_signs(below, some, lows[open_], highs[open_], met, effort, stop, hands)
            lows[open_], highs[open_] = sides
        return lows, highs

    return tighten_by_layer(network, lower, upper, bounder, known, region, stop)


def up_to(bounds: Bounds, node: int) -> Bounds:
    """The part of a network that one of its nodes depends on, with that node as output."""
    part = Network(bounds.network.nodes[: node + 1], node)
    return Bounds(part, bounds.lower[: node + 1], bounds.upper[: node + 1], bounds.region)
