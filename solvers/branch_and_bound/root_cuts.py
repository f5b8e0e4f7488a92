"""Cuts for outputs at the root of a search: those that hold their bounds up, and what the search starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Optimum
from mipverify.presolve.cutting import Cutting, layers_below, raise_rows
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import LayerCuts, OwnCuts
from mipverify.proof.facts import RowBounds
from mipverify.proof.parts import never
from mipverify.proof.rows import unit_rows

WORTH = 0.02  # share of the distance to zero that a round must gain
ROUNDS = 10  # of separation at most; few questions see the fifth
ENTRIES = 2**24  # of all cuts of all outputs, in float64: 128 MB
FEWEST, MOST = 16, 256  # cuts of an output and layer that a round adds, between which ENTRIES decides
HOLDS_UP = 1e-3  # of a row's largest multiplier: cuts with less hold nothing up, and would be dualized in every node


@dataclass(frozen=True, eq=False)
class RootCuts:
    """What cuts prove of one output: entry `place` of `fact`.

    layers, multipliers, slopes: by ReLU node, the cuts that hold its bound up, their multipliers (T,), and the slopes
    of its lines (size,). minimizer: the input (n,) that minimizes the relaxation.
    """

    fact: RowBounds
    place: int
    layers: dict[int, LayerCuts]
    multipliers: dict[int, np.ndarray]
    slopes: dict[int, np.ndarray]
    minimizer: np.ndarray

    @property
    def lower(self) -> float:
        return float(self.fact.lower[self.place])

    def start(self, condition: int) -> Node:
        """The root of a search with these cuts."""
        factors = {node: values.astype(np.float32) for node, values in self.multipliers.items()}
        start = root(condition)
        start.slopes.update(self.slopes)
        start.cut_multipliers.update(factors)
        return start.learned(self.fact, self.place)


def root_cuts(bounds: Bounds, outputs: np.ndarray, *, stop: Callable[[], bool] = never) -> list[RootCuts]:
    """Separate cuts in rounds while they pay, for the minimum of each of some outputs (bounds: batch 1)."""
    network = bounds.network
    rows = unit_rows(network, network.output, outputs, None, bounds.like)
    best: dict[int, RootCuts] = {}

    def worth(lower: np.ndarray, gained: np.ndarray) -> np.ndarray:
        return (lower <= 0) & (gained >= WORTH * -lower)

    layers = layers_below(bounds, network.output)
    width = sum(layer.weights.shape[1] for layer in layers.values())
    most = int(np.clip(ENTRIES // (2 * len(outputs) * max(1, width)), FEWEST, MOST))
    for index, found in raise_rows(bounds, rows, layers, Cutting(rounds=ROUNDS, most=most), worth, stop):
        for place, row in enumerate(index.tolist()):
            if row not in best or found.lower[place] > best[row].lower:
                best[row] = _of_row(found, place)
    return [best[row] for row in range(len(outputs))]


def _of_row(found: Optimum, row: int) -> RootCuts:
    """What was found for one row, with the cuts whose multiplier is above nothing."""
    layers, multipliers = {}, {}
    for node, own in found.evidence.cuts.items():
        assert isinstance(own, OwnCuts)
        factors = found.evidence.cut_multipliers[node][row]
        keep = np.flatnonzero(factors > HOLDS_UP * factors.max(initial=0))
        if len(keep):
            layers[node], multipliers[node] = own.of_row(row, keep), factors[keep]
    slopes = {k: v[row].reshape(-1) for k, v in found.evidence.slopes.items()}
    return RootCuts(found.bound, row, layers, multipliers, slopes, found.minimizer[row].reshape(-1))
