"""Cuts for one output at the root: found where the relaxation's averaged minimizer violates the ideal formulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from mipverify.presolve import Bounds, Relaxed, Search, optimize_rows, unit_rows
from mipverify.presolve.cuts import LayerCuts, Separator, cuttable, separate

from mipverify.network import Network

ROUNDS = 10
WORTH = 0.02  # share of the distance to zero that a round must gain
SEARCH = Search(iterations=60, decay=0.98)


@dataclass(frozen=True, eq=False)
class RootCuts:
    """lower: sound bound with the cuts. layers, multipliers, slopes: by ReLU node, the cuts that hold it up, their
    multipliers (T,), and the slopes of its lines (size,). minimizer: the input (n,) that minimizes the relaxation."""

    lower: float
    layers: dict[int, LayerCuts]
    multipliers: dict[int, np.ndarray]
    slopes: dict[int, np.ndarray]
    minimizer: np.ndarray


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
                flat = array.reshape(-1).astype(np.float64)
                mean[node] = flat if node not in mean else mean[node] + share * (flat - mean[node])


def root_cuts(network: Network, bounds: Bounds, output: int, *, stop: Callable[[], bool] = lambda: False) -> RootCuts:
    """Separate cuts in rounds while they pay, for the minimum of one output of a margin network (bounds: batch 1)."""
    row = unit_rows(network, network.output, np.array([output]), None, bounds.lower[0])
    relaxed = Relaxed(bounds)
    sketch = Relaxed(bounds.astype(np.float32))
    separators = {node: Separator.of(bounds, node) for node in cuttable(network) if bounds.unstable(node).any()}
    layers = {node: _none(layer) for node, layer in separators.items()}
    best, slopes, factors = None, None, None
    for _ in range(ROUNDS):
        average = _Average(SEARCH.iterations // 2)
        found = optimize_rows(
            relaxed,
            row,
            SEARCH,
            slopes=slopes,
            cuts=layers,
            cut_multipliers=factors,
            sketch=sketch,
            stop=stop,
            observe=average,
        )
        lower = float(found.lower[0])
        gained = lower - (best.lower if best is not None else -np.inf)
        layers, held = _held(layers, {k: v[0] for k, v in found.cut_multipliers.items()})
        if gained > 0:
            own = {k: v[0].reshape(-1) for k, v in found.slopes.items()}
            best = RootCuts(lower, dict(layers), held, own, found.minimizer.reshape(-1))
        if lower > 0 or gained < WORTH * -lower or stop() or not average.phases:
            break
        slopes, factors = found.slopes, {}
        for node, layer in separators.items():
            fresh = separate(layer, average.values[layer.source], average.values[node], average.phases[node])
            layers[node] = layers[node].join(fresh)
            factors[node] = np.append(held[node], np.zeros(len(fresh)))[None].astype(np.float32)
    assert best is not None
    return replace(best, layers={k: layer for k, layer in best.layers.items() if len(layer)})


def _none(layer: Separator) -> LayerCuts:
    empty = sp.csr_array((0, layer.weights.shape[1]))
    return LayerCuts(layer.node, layer.source, np.zeros(0, int), empty, np.zeros(0), np.zeros(0))


def _held(
    layers: Mapping[int, LayerCuts], factors: Mapping[int, np.ndarray]
) -> tuple[dict[int, LayerCuts], dict[int, np.ndarray]]:
    """The cuts with a multiplier above nothing, and these."""
    keep = {node: np.flatnonzero(factors[node] > 1e-3 * factors[node].max(initial=0)) for node in layers}
    return {k: layers[k].select(keep[k]) for k in layers}, {k: factors[k][keep[k]] for k in layers}
