"""Rows raised by cuts of their own, separated where each row's averaged minimizer violates the ideal formulation.

Bounds of hidden units made so are far tighter than those of optimized CROWN where a layer hangs on many unstable ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from mipverify.presolve.ascent import Search
from mipverify.presolve.optimized import Optimum, optimize_rows
from mipverify.presolve.separation import separate_rows

from mipverify.parallel import SERIAL, Executor, partition
from mipverify.proof.backward import Evidence, lower_sides
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import IdealLayer, OwnCuts, cuttable
from mipverify.proof.facts import UnitBounds
from mipverify.proof.interval import tighten
from mipverify.proof.parts import never
from mipverify.proof.rows import Rows, unit_rows

ENTRIES = 2**23  # of all cuts of the rows that are worked on together
WORTH = 0.02  # share of a width that a round must gain
SAMPLE = 12  # units of a layer that stand for all


@dataclass(frozen=True)
class Cutting:
    """How long to search for cuts.

    search: the ascent of each round. rounds: how often cuts are separated at most. most: cuts that a row gets for a
    layer in a round; it keeps as many of earlier rounds.
    """

    search: Search = field(default_factory=lambda: Search(iterations=20))
    rounds: int = 4
    most: int = 32


class _Average:
    """The mean of what the relaxation's minimizers were over the later steps of an ascent.

    The minimizers of single steps jump between vertices; their mean approaches a solution of the linear program
    [Sherali and Choi 1996].
    """

    def __init__(self, skip: int):
        self.skip, self.seen = skip, 0
        self.values: dict[int, np.ndarray] = {}
        self.phases: dict[int, np.ndarray] = {}

    def __call__(self, values: Mapping[int, np.ndarray], phases: Mapping[int, np.ndarray]) -> None:
        self.seen += 1
        if self.seen <= self.skip:
            return
        share = 1 / (self.seen - self.skip)
        for mean, new in ((self.values, values), (self.phases, phases)):
            for node, array in new.items():
                flat = array.reshape(len(array), -1)
                mean[node] = flat.copy() if node not in mean else mean[node] + share * (flat - mean[node])


def layers_below(bounds: Bounds, node: int) -> dict[int, IdealLayer]:
    """The layers that have unstable units before a node and can be cut, by ReLU node; bounds of batch 1."""
    return {
        relu: IdealLayer.of(bounds, relu)
        for relu in cuttable(bounds.network)
        if relu < node and bounds.unstable(relu).any()
    }


def raise_rows(
    bounds: Bounds,
    rows: Rows,
    layers: Mapping[int, IdealLayer],
    cutting: Cutting,
    worth: Callable[[np.ndarray, np.ndarray], np.ndarray],
    stop: Callable[[], bool] = never,
) -> Iterator[tuple[np.ndarray, Optimum]]:
    """What rounds of ascent and separation find for rows (R,) over one box: for some of them in each round, by index.

    worth: told the best bounds of all (R,) and what the last round gained (R,), says for which another may pay.
    """
    surrogate = bounds.surrogate()
    index = np.arange(len(rows))
    lower = np.full(len(index), -np.inf)
    start = Evidence(cuts={node: layer.none(len(index)) for node, layer in layers.items()})
    for turn in range(cutting.rounds + 1):
        average, some = _Average(cutting.search.iterations // 2), rows.take(index)
        found = optimize_rows(
            bounds, some, cutting.search, start=start, surrogate=surrogate, stop=stop, observe=average
        )
        gained = np.zeros(len(lower))
        gained[index] = found.lower - lower[index]
        lower[index] = np.maximum(lower[index], found.lower)
        yield index, found
        if turn == cutting.rounds or stop() or not average.phases:
            return
        keep = np.flatnonzero(worth(lower, gained)[index])
        if not len(keep):
            return
        start, index = _separated(layers, found, average, keep, cutting.most), index[keep]


def _separated(
    layers: Mapping[int, IdealLayer], found: Optimum, average: _Average, keep: np.ndarray, most: int
) -> Evidence:
    """The cuts of some rows that hold most, joined by fresh ones, and where to start with them."""
    values, joined, factors = average.values, {}, {}
    for node, layer in layers.items():
        cuts = found.evidence.cuts[node]
        assert isinstance(cuts, OwnCuts)
        own, multipliers = cuts.rows(keep), found.evidence.cut_multipliers[node][keep]
        if node not in average.phases:  # the rows do not meet this layer
            joined[node], factors[node] = own, multipliers
            continue
        weights = found.row.relaxed[node].weight[keep]
        weight = weights - own.by_unit(multipliers, weights.shape[1])
        z, x, y = (values[k][keep] for k in (layer.source, layer.before, node))
        fresh = separate_rows(layer, z, x, y, average.phases[node][keep], weight, most)
        own, multipliers = own.held(multipliers, most)
        joined[node] = own.join(fresh)
        factors[node] = np.concatenate([multipliers, np.zeros(fresh.units.shape, np.float32)], axis=1)
    slopes = {k: v[keep] for k, v in found.evidence.slopes.items()}
    return Evidence(slopes, {}, joined, factors)


def _chunk(layers: Mapping[int, IdealLayer], most: int) -> int:
    """How many rows may be worked on together."""
    entries = sum(2 * min(most, len(layer.units)) * layer.weights.shape[1] for layer in layers.values())
    return max(1, ENTRIES // max(1, entries))


def cut_tighten(
    bounds: Bounds,
    worth: float = 0.0,
    stop: Callable[[], bool] = never,
    pool: Executor = SERIAL,
    cutting: Cutting | None = None,
) -> Bounds:
    """Bounds tightened by optimized CROWN with cuts for unstable units and both sides, for one entry.

    worth: the share that cuts must take off the widths of a few units of a layer, or its others are left as they are.
    Works best on a reduced network. Once `stop` returns true, units keep the bounds they have. pool: who works on the
    units of a layer. What is cut in one layer is not seen by the others, so that each has those below as recorded.
    """
    facts: list[UnitBounds] = []
    for node in bounds.network.preactivations:
        units = _unstable(bounds, node)
        if stop() or not len(units) or not layers_below(bounds, node):
            continue
        first = _spread(units)
        facts.extend(found := cut_units(bounds, node, first, stop, pool, cutting))
        others = np.setdiff1d(units, first)
        if len(others) and _share_cut_off(bounds, node, first, found) >= worth:
            facts.extend(cut_units(bounds, node, others, stop, pool, cutting))
    return tighten(bounds, facts)


def cut_units(
    bounds: Bounds,
    node: int,
    units: np.ndarray,
    stop: Callable[[], bool] = never,
    pool: Executor = SERIAL,
    cutting: Cutting | None = None,
) -> list[UnitBounds]:
    """What that shows of some units (U,) of one node, from bounds (batch 1) of the nodes below."""
    cutting = cutting or Cutting()
    cutting = replace(cutting, search=replace(cutting.search, enough=np.inf))
    parts = [units[part] for part in partition(np.arange(len(units)), pool)]
    done = pool.map(_cut_units, (bounds, node, cutting), parts, stop)
    return [fact for facts in done if facts is not None for fact in facts]


def _cut_units(work: tuple[Bounds, int, Cutting], units: np.ndarray, stop: Callable[[], bool]) -> list[UnitBounds]:
    bounds, node, cutting = work
    facts: list[UnitBounds] = []
    layers = layers_below(bounds, node)
    size = max(1, _chunk(layers, cutting.most) // 2)
    for begin in range(0, len(units), size):
        if stop():
            break
        part = units[begin : begin + size]
        count = len(part)
        rows = unit_rows(bounds.network, node, part, None, bounds.like)

        def worth(found: np.ndarray, gained: np.ndarray, count: int = count) -> np.ndarray:
            width = -found[:count] - found[count:]
            unstable = (found[:count] < 0) & (found[count:] < 0)
            return np.tile(unstable, 2) & (gained > WORTH * np.tile(width, 2))

        rounds = raise_rows(bounds, rows.with_negated(), layers, cutting, worth, stop)
        facts.extend(lower_sides(found.bound) for _, found in rounds)
    return facts


def share_cut_off(bounds: Bounds) -> float:
    """What share of the width of intermediate bounds a few cuts take away, on average over some units (batch 1).

    Looks at the first layer whose bounds can be cut, where it costs least; 0 if there is none. In dense networks it is
    a fifth, and tightening all units pays manifold; in convolutional ones with few weights a unit, a hundredth.
    """
    for node in bounds.network.preactivations:
        units = _unstable(bounds, node)
        if len(units) and layers_below(bounds, node):
            few = _spread(units)
            found = cut_units(bounds, node, few, cutting=Cutting(rounds=2, most=16))
            return _share_cut_off(bounds, node, few, found)
    return 0.0


def _unstable(bounds: Bounds, node: int) -> np.ndarray:
    return np.flatnonzero(np.asarray(bounds.unstable(node)).reshape(-1))


def _spread(units: np.ndarray) -> np.ndarray:
    """A few of some units, for a look at what cuts gain."""
    return units[np.linspace(0, len(units) - 1, min(SAMPLE, len(units))).astype(int)]


def _share_cut_off(bounds: Bounds, node: int, units: np.ndarray, found: list[UnitBounds]) -> float:
    """What share of the widths of units (U,) of a node facts take away, on average."""
    after = tighten(bounds, found, further=False)
    old, new = ((own.upper[node] - own.lower[node]).reshape(-1)[units] for own in (bounds, after))
    return float(np.mean(1 - new / old))
