"""Rows raised by cuts of their own, separated where each row's averaged minimizer violates the ideal formulation.

Bounds of hidden units made so are far tighter than those of optimized CROWN where a layer hangs on many unstable ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from mipverify.presolve.ascent import Search
from mipverify.presolve.layers import Known, tighten_by_layer
from mipverify.presolve.optimized import Optimum, optimize_rows
from mipverify.presolve.separation import Separator, cuttable, separate_rows

from mipverify.network import Network
from mipverify.parallel import ALONE, Hands, dealt
from mipverify.proof.backward import Relaxed
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import OwnCuts
from mipverify.proof.rows import Rows, unit_rows
from mipverify.specification.regions import Region

ENTRIES = 2**23  # of all cuts of the rows that are worked on together
WORTH = 0.02  # share of a width that a round must gain


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


def separators_below(bounds: Bounds, node: int) -> dict[int, Separator]:
    """What separates cuts of the layers that have unstable units before a node, by ReLU node; bounds of batch 1."""
    return {
        relu: Separator.of(bounds, relu)
        for relu in cuttable(bounds.network)
        if relu < node and bounds.unstable(relu).any()
    }


def raise_rows(
    relaxed: Relaxed,
    rows: Rows,
    separators: Mapping[int, Separator],
    cutting: Cutting,
    worth: Callable[[np.ndarray, np.ndarray], np.ndarray],
    stop: Callable[[], bool] = lambda: False,
    observe: Callable[[np.ndarray, Optimum, Mapping[int, OwnCuts]], None] = lambda index, found, cuts: None,
) -> np.ndarray:
    """Sound lower bounds (R,) of rows over one box, by rounds of ascent and separation.

    worth: told all bounds (R,) and what the last round gained (R,), says for which rows another round may pay.
    observe: shown after each round which rows were worked on, what was found for them, and with which cuts.
    """
    sketch = Relaxed(relaxed.bounds.astype(np.float32))
    index = np.arange(len(next(iter(rows.coefficients.values()))))
    lower = np.full(len(index), -np.inf)
    cuts = {node: _none(layer, len(index)) for node, layer in separators.items()}
    slopes: dict[int, np.ndarray] | None = None
    factors: dict[int, np.ndarray] | None = None
    for turn in range(cutting.rounds + 1):
        average = _Average(cutting.search.iterations // 2)
        found = optimize_rows(
            relaxed,
            rows.take(index),
            cutting.search,
            slopes=slopes,
            cuts=cuts,
            cut_multipliers=factors,
            sketch=sketch,
            stop=stop,
            observe=average,
        )
        gained = np.zeros(len(lower))
        gained[index] = found.lower - lower[index]
        lower[index] = np.maximum(lower[index], found.lower)
        observe(index, found, cuts)
        if turn == cutting.rounds or stop() or not average.phases:
            break
        keep = np.flatnonzero(worth(lower, gained)[index])
        if not len(keep):
            break
        cuts, factors = _separated(separators, cuts, found, average, keep, cutting.most)
        slopes, index = {k: v[keep] for k, v in found.slopes.items()}, index[keep]
    return lower


def _none(layer: Separator, count: int) -> OwnCuts:
    empty, width = np.zeros((count, 0)), layer.weights.shape[1]
    return OwnCuts(layer.node, layer.source, empty.astype(int), np.zeros((count, 0, width)), empty, empty)


def _separated(
    separators: Mapping[int, Separator],
    cuts: Mapping[int, OwnCuts],
    found: Optimum,
    average: _Average,
    keep: np.ndarray,
    most: int,
) -> tuple[dict[int, OwnCuts], dict[int, np.ndarray]]:
    """The cuts of some rows that hold most, joined by fresh ones, and multipliers to start from."""
    values, joined, factors = average.values, {}, {}
    for node, layer in separators.items():
        own, multipliers = cuts[node].rows(keep), found.cut_multipliers[node][keep]
        if node not in average.phases:  # the rows do not meet this layer
            joined[node], factors[node] = own, multipliers
            continue
        weight = found.row.met[node].weight[keep] - own.by_unit(multipliers, found.row.met[node].weight.shape[1])
        z, x, y = (values[k][keep] for k in (layer.source, layer.before, node))
        fresh = separate_rows(layer, z, x, y, average.phases[node][keep], weight, most)
        own, multipliers = own.held(multipliers, most)
        joined[node] = own.join(fresh)
        factors[node] = np.concatenate([multipliers, np.zeros(fresh.units.shape, np.float32)], axis=1)
    return joined, factors


def _chunk(separators: Mapping[int, Separator], most: int) -> int:
    """How many rows may be worked on together."""
    entries = sum(2 * min(most, len(layer.units)) * layer.weights.shape[1] for layer in separators.values())
    return max(1, ENTRIES // max(1, entries))


def cut_tighten(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    cutting: Cutting | None = None,
    stop: Callable[[], bool] = lambda: False,
    region: Region | None = None,
    hands: Hands = ALONE,
) -> Bounds:
    """Bounds by optimized CROWN with cuts for every unstable unit and side, of one box (1, *input_shape).

    Same shape of answer as `optimized_crown`; works best on a reduced network. Once `stop` returns true, units keep the
    bounds they have. hands: who works on the units of a layer.
    """

    def bounder(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cut_units(relaxed.bounds, node, units, stop, hands, cutting)

    return tighten_by_layer(network, lower, upper, bounder, known, region, stop)


def cut_units(
    bounds: Bounds,
    node: int,
    units: np.ndarray,
    stop: Callable[[], bool] = lambda: False,
    hands: Hands = ALONE,
    cutting: Cutting | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The same for some units of one node: bounds (U,), (U,), from bounds (batch 1) of the nodes below."""
    cutting = cutting or Cutting()
    cutting = replace(cutting, search=replace(cutting.search, enough=np.inf))
    lows, highs = (side[node].reshape(-1)[units].copy() for side in (bounds.lower, bounds.upper))
    parts = dealt(np.arange(len(units)), hands)
    work = bounds, node, cutting
    for part, found in zip(parts, hands.map(_cut_units, work, [units[p] for p in parts], stop), strict=True):
        if found is not None:
            lows[part], highs[part] = found
    return lows, highs


def _cut_units(
    work: tuple[Bounds, int, Cutting], units: np.ndarray, stop: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (U,), (U,) of some units of a node, from bounds of the nodes below."""
    bounds, node, cutting = work
    relaxed, separators = Relaxed(bounds), separators_below(bounds, node)
    lows, highs = (side[node].reshape(-1)[units].copy() for side in (bounds.lower, bounds.upper))
    size = max(1, _chunk(separators, cutting.most) // 2)
    for begin in range(0, len(units), size):
        part = slice(begin, begin + size)
        if stop():
            break
        count = len(units[part])
        rows = unit_rows(bounds.network, node, units[part], None, bounds.lower[0])

        def worth(found: np.ndarray, gained: np.ndarray, count: int = count) -> np.ndarray:
            width = -found[:count] - found[count:]
            unstable = (found[:count] < 0) & (found[count:] < 0)
            return np.tile(unstable, 2) & (gained > WORTH * np.tile(width, 2))

        found = raise_rows(relaxed, rows.with_negated(), separators, cutting, worth, stop)
        lows[part] = np.maximum(lows[part], found[:count])
        highs[part] = np.minimum(highs[part], -found[count:])
    return lows, highs


def share_cut_off(bounds: Bounds, sample: int = 12) -> float:
    """What share of the width of hidden bounds a few cuts take away, on average over some units (bounds of batch 1).

    Looks at the first layer whose bounds can be cut, where it costs least; 0 if there is none. In dense networks it is
    a fifth, and tightening all units pays manifold; in convolutional ones with few weights a unit, a hundredth.
    """
    network, cutting = bounds.network, Cutting(Search(iterations=20, enough=np.inf), rounds=2, most=16)
    for node in network.preactivations:
        separators = separators_below(bounds, node)
        units = np.flatnonzero(np.asarray(bounds.unstable(node)).reshape(-1)) if separators else np.zeros(0, int)
        if not len(units):
            continue
        units = units[np.linspace(0, len(units) - 1, min(sample, len(units))).astype(int)]
        rows = unit_rows(network, node, units, None, bounds.lower[0]).with_negated()
        found = raise_rows(Relaxed(bounds), rows, separators, cutting, lambda lower, gained: np.ones(len(lower), bool))
        width = (bounds.upper[node] - bounds.lower[node]).reshape(-1)[units]
        return float(np.mean(1 - np.minimum(-found[: len(units)] - found[len(units) :], width) / width))
    return 0.0
