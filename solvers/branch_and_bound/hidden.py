"""Hidden bounds by branch and bound: what MILP tightening is for, with proven bounds instead of a solver's.

A unit whose sign is in doubt by a little is often settled by a handful of nodes, and what comes after it is bounded the
better for it: in deep networks the gain of one layer multiplies in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mipverify.presolve import Bounds, Relaxed, Search, unit_rows
from mipverify.presolve.crown import scaled
from mipverify.presolve.layers import Known, tighten_by_layer
from mipverify.solvers.branch_and_bound.corners import Corners
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import expand
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.network import Network
from mipverify.parallel import ALONE, Hands, dealt
from mipverify.specification.regions import Region

NODES = 200
SAMPLES = 256
CEILING = 1e-3  # of the distance to zero: how far above it a sign is proven
PATIENCE = 8  # nodes of a unit from which each level of its tree has to gain
GAIN = 0.03  # this share of the distance to zero at the root
BATCH = 128
TOGETHER = 32  # units
SHORT = Search(iterations=12, slope_step=0.1, decay=0.94)  # of each node


def branch_tighten(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    nodes: int = NODES,
    stop: Callable[[], bool] = lambda: False,
    region: Region | None = None,
    hands: Hands = ALONE,
    within: float = 1.0,
) -> Bounds:
    """Bounds by branching on the phases of the units below, for one box (1, *input_shape) [Tjeng et al. 2019, 4.2].

    Same shape of answer as `crown`. Unstable units are worked on until their sign is proven, which is all that a
    formulation needs to do without their binaries, or for that many nodes, or as long as it gets on; always on the side
    that is nearer to zero, or on the other one where sampled points rule that out. Units that take both signs at
    sampled points are left as they are. Once `stop` returns true, the others are as well.
    within: the share of its width that a unit's sign may be in doubt by, to be worked on. Those in least doubt come
    first; once none of some more is settled, the layer is left as it is.
    """
    seen = network.values(_samples(lower[0], upper[0], region))

    def signs(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        below = _up_to(relaxed.bounds, node)
        corners = Corners(below.network, CEILING)
        lows, highs = (side[node].reshape(-1)[units].copy() for side in (below.lower, below.upper))
        values = seen[node].reshape(len(seen[node]), -1)[:, units]
        negative, positive = (values < 0).any(axis=0), (values > 0).any(axis=0)
        sides = np.stack([np.where(negative, np.inf, -lows), np.where(positive, np.inf, highs)])
        distance, sign = sides.min(axis=0), np.where(sides.argmin(axis=0) == 0, 1.0, -1.0)
        share = np.where((lows < 0) & (highs > 0), distance, np.inf) / np.maximum(highs - lows, np.finfo(float).tiny)
        order = np.argsort(share)
        order = order[share[order] <= within]
        for begin in range(0, len(order), TOGETHER):
            tried = order[begin : begin + TOGETHER]
            if stop():
                break
            # Powers of two, so that scaling rounds nothing: all trees have about the same way to go.
            factor = sign[tried] * 2.0 ** -np.clip(np.round(np.log2(distance[tried])), -1000, 1000)
            rows = scaled(unit_rows(network, node, units[tried], None, relaxed.bounds.lower[0]), factor)
            bounder = PhaseBounder(below, rows, SHORT, corners=corners)
            found = _raise(bounder, len(tried), nodes, stop, hands) / np.abs(factor)
            lows[tried] = np.where(factor > 0, np.fmax(lows[tried], found), lows[tried])
            highs[tried] = np.where(factor < 0, np.fmin(highs[tried], -found), highs[tried])
            if not (found > 0).any():
                break
        return lows, highs

    return tighten_by_layer(network, lower, upper, signs, known, region)


def _raise(bounder: PhaseBounder, rows: int, most: int, stop: Callable[[], bool], hands: Hands) -> np.ndarray:
    """Proven lower bounds (rows,) of all rows of a bounder: a tree for each, level by level, of `most` nodes or so."""
    proven, closed = np.full(rows, -np.inf), np.full(rows, np.inf)
    on, spent = np.ones(rows, bool), np.zeros(rows, int)
    level = _each(_raise_roots, bounder, [root(row) for row in range(rows)], stop, hands)
    enough: np.ndarray | None = None
    while level is not None:
        bound = closed.copy()  # of a whole tree: the nodes closed before, and this level
        np.minimum.at(bound, [node.condition for node in level], [node.lower for node in level])
        if enough is None:
            enough = GAIN * np.abs(bound)
        gained = bound - proven >= enough
        # A tree that was given up has nodes outside this level: nothing is known of it but what was proven by then.
        proven = np.where(on, np.maximum(proven, bound), proven)
        on &= (proven <= 0) & (spent < most) & (gained | (spent < PATIENCE))
        for node in level:
            if node.lower > 0:
                closed[node.condition] = min(closed[node.condition], node.lower)
        parents = [node for node in level if on[node.condition] and not node.lower > 0]
        if not parents:
            break
        level = _each(_split, bounder, parents, stop, hands)
        np.add.at(spent, [node.condition for node in level or []], 1)
    return proven


def _each(
    work: Callable, context: object, nodes: Sequence[Node], stop: Callable[[], bool], hands: Hands
) -> list[Node] | None:
    """What becomes of nodes, in batches that are dealt out; None once `stop` cut it short."""
    found: list[Node] = []
    for begin in range(0, len(nodes), BATCH):
        for part in hands.map(work, context, dealt(nodes[begin : begin + BATCH], hands), stop):
            if part is None or stop():
                return None
            found.extend(part)
    return found


def _raise_roots(bounder: PhaseBounder, nodes: Sequence[Node], stop: Callable[[], bool]) -> list[Node]:
    return bounder.raise_bounds(nodes, stop)[0]


def _split(bounder: PhaseBounder, parents: Sequence[Node], stop: Callable[[], bool]) -> list[Node]:
    """The children of nodes; a node without unstable units stands for itself."""
    done = expand(bounder, parents, stop)
    return [*done.children, *done.leaves]


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
