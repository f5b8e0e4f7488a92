"""Hidden bounds by branch and bound: what MILP tightening is for, with proven bounds instead of a solver's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mipverify.presolve import Bounds, Relaxed, unit_rows
from mipverify.presolve.crown import negated
from mipverify.presolve.layers import Known, tighten_by_layer
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import search_phases
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.network import Network
from mipverify.specification.regions import Region

NODES = 200
SAMPLES = 256


def branch_tighten(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    nodes: int = NODES,
    stop: Callable[[], bool] = lambda: False,
    region: Region | None = None,
) -> Bounds:
    """Bounds by branching on the phases of the units below, for one box (1, *input_shape) [Tjeng et al. 2019, 4.2].

    Same shape of answer as `crown`. Each unstable unit is worked on until its sign is proven, which is all that a
    formulation needs to do without its binary, or for that many nodes a side; units that take both signs at sampled
    points are left as they are. Once `stop` returns true, the others are as well.
    """
    seen = network.values(_samples(lower[0], upper[0], region))

    def bounder(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        below = _up_to(relaxed.bounds, node)
        lows, highs = np.full(len(units), -np.inf), np.full(len(units), np.inf)
        rows = unit_rows(network, node, units, None, relaxed.bounds.lower[0])
        for index in range(len(units)):
            if stop():
                break
            values = seen[node].reshape(len(seen[node]), -1)[:, units[index]]
            if not (values > 0).any():
                highs[index] = -_raised(PhaseBounder(below, negated(rows)), index, nodes, stop)
            if not (values < 0).any() and highs[index] > 0:
                lows[index] = _raised(PhaseBounder(below, rows), index, nodes, stop)
        return lows, highs

    return tighten_by_layer(network, lower, upper, bounder, known, region)


def _samples(lower: np.ndarray, upper: np.ndarray, region: Region | None) -> np.ndarray:
    """Corners of a box and points inside, (S, *shape)."""
    rng = np.random.default_rng(0)
    share = rng.random((SAMPLES, *lower.shape))
    share[::2] = np.round(share[::2])
    points = lower + share * (upper - lower)
    if region is None:
        return np.asarray(points)
    flat = region.nearest(points.reshape(SAMPLES, -1), lower.reshape(-1), upper.reshape(-1))
    return np.asarray(flat, np.float64).reshape(points.shape)


def _up_to(bounds: Bounds, node: int) -> Bounds:
    """The part of a network that one of its nodes depends on, with that node as output."""
    part = Network(bounds.network.nodes[: node + 1], node)
    return Bounds(part, bounds.lower[: node + 1], bounds.upper[: node + 1], bounds.region)


def _raised(bounder: PhaseBounder, row: int, nodes: int, stop: Callable[[], bool]) -> float:
    """A proven lower bound of one row, above zero if that many nodes suffice for it."""
    done = 0

    def progress(count: int, left: int, bound: float) -> None:
        nonlocal done
        done = count

    outcome = search_phases(bounder, [root(row)], stop=lambda: done >= nodes or stop(), batch=16, progress=progress)
    return outcome.lower[row]
