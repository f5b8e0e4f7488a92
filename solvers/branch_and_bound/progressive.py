"""Hidden bounds layer by layer with all that is at hand, each on the network as the layers before have left it.

In deep networks the gain of one layer multiplies in the next: of 227 unstable units in a fourth layer 18 are left once
cuts and trees have settled a few dozen in the three before. So no layer is worked on before those below it are done,
and what is unstable there is all that the work on it costs: everything else is multiplied out first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from mipverify.presolve.cutting import cut_units
from mipverify.presolve.layers import tighten_by_layer
from mipverify.solvers.branch_and_bound.stabilization import Effort, stabilize

from mipverify.errors import Stopped
from mipverify.network import Network
from mipverify.parallel import SERIAL, Executor
from mipverify.proof.bounds import Bounds, prefix
from mipverify.proof.facts import UnitBounds
from mipverify.proof.interval import tighten
from mipverify.proof.parts import never
from mipverify.proof.reduction import reduce

# Which of some units of a network's output are known not to be positive somewhere, and not to be negative.
FindSigns: TypeAlias = Callable[[Network, np.ndarray], tuple[np.ndarray, np.ndarray]]


def progressive_tighten(
    bounds: Bounds,
    effort: Effort | None = None,
    find_signs: FindSigns | None = None,
    stop: Callable[[], bool] = never,
    pool: Executor = SERIAL,
) -> Bounds:
    """Bounds tightened by optimized CROWN with cuts, then by branching on the phases below, for one entry.

    find_signs: spares trees that cannot be closed; nothing rests on it. Once `stop` returns true, units keep the bounds
    they have. pool: who works on the units of a layer.
    """
    effort = effort or Effort()

    def bounder(bounds: Bounds, node: int, _: np.ndarray, units: np.ndarray) -> list[UnitBounds]:
        if stop():
            return []
        part = prefix(bounds, node)
        try:
            reduced = reduce(part, stop)
        except Stopped:
            return []
        below = reduced.bounds
        own = cut_units(below, below.network.output, units, stop, pool)
        facts = [reduced.lifted_outputs(fact) for fact in own]
        tight = tighten(part, facts)
        low, high = (side[node].reshape(-1)[units] for side in (tight.lower, tight.upper))
        open_ = np.flatnonzero((low < 0) & (high > 0))
        if below.network.relus and len(open_):
            some, none = units[open_], np.zeros(len(open_), bool)
            signs_seen = (none, none) if find_signs is None else find_signs(part.network, some)
            found = stabilize(below, some, (low[open_], high[open_]), signs_seen, effort, stop, pool)
            facts.extend(reduced.lifted_outputs(fact) for fact in found)
        return facts

    return tighten_by_layer(bounds, bounder, stop)
