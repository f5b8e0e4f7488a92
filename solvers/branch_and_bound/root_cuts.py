"""Cuts for outputs at the root of a search: those that hold their bounds up, and what the search starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Bounds, Optimum, Relaxed, unit_rows
from mipverify.presolve.cutting import Cutting, raise_rows, separators_below
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.network import Network
from mipverify.proof.cuts import LayerCuts, OwnCuts

WORTH = 0.02  # share of the distance to zero that a round must gain
ROUNDS = 10
ENTRIES = 2**24  # of all cuts of all outputs
MOST = 256  # cuts of an output and layer that a round adds


@dataclass(frozen=True, eq=False)
class RootCuts:
    """lower: sound bound with the cuts. layers, multipliers, slopes: by ReLU node, the cuts that hold it up, their
    multipliers (T,), and the slopes of its lines (size,). minimizer: the input (n,) that minimizes the relaxation."""

    lower: float
    layers: dict[int, LayerCuts]
    multipliers: dict[int, np.ndarray]
    slopes: dict[int, np.ndarray]
    minimizer: np.ndarray

    def start(self, condition: int) -> Node:
        """The root of a search with these cuts."""
        factors = {node: values.astype(np.float32) for node, values in self.multipliers.items()}
        return Node(condition, (), self.lower, self.slopes, {}, factors)


def root_cuts(
    network: Network, bounds: Bounds, outputs: np.ndarray, *, stop: Callable[[], bool] = lambda: False
) -> list[RootCuts]:
    """Separate cuts in rounds while they pay, for the minimum of each of some outputs (bounds: batch 1)."""
    rows = unit_rows(network, network.output, outputs, None, bounds.lower[0])
    best: dict[int, RootCuts] = {}

    def take(index: np.ndarray, found: Optimum, cuts: Mapping[int, OwnCuts]) -> None:
        for place, row in enumerate(index):
            if row not in best or found.lower[place] > best[row].lower:
                best[int(row)] = _of_row(found, cuts, place)

    def worth(lower: np.ndarray, gained: np.ndarray) -> np.ndarray:
        return (lower <= 0) & (gained >= WORTH * -lower)

    separators = separators_below(bounds, network.output)
    width = sum(layer.weights.shape[1] for layer in separators.values())
    most = int(np.clip(ENTRIES // (2 * len(outputs) * max(1, width)), 16, MOST))
    raise_rows(Relaxed(bounds), rows, separators, Cutting(rounds=ROUNDS, most=most), worth, stop, take)
    return [best[row] for row in range(len(outputs))]


def _of_row(found: Optimum, cuts: Mapping[int, OwnCuts], row: int) -> RootCuts:
    """What was found for one row, with the cuts whose multiplier is above nothing."""
    layers, multipliers = {}, {}
    for node, own in cuts.items():
        factors = found.cut_multipliers[node][row]
        keep = np.flatnonzero(factors > 1e-3 * factors.max(initial=0))
        if len(keep):
            layers[node], multipliers[node] = own.of_row(row, keep), factors[keep]
    slopes = {k: v[row].reshape(-1) for k, v in found.slopes.items()}
    return RootCuts(float(found.lower[row]), layers, multipliers, slopes, found.minimizer[row].reshape(-1))
