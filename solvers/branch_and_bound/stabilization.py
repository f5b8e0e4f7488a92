"""Neuron stabilization by branch and bound: what MILP tightening is for, with proven bounds instead of a solver's.

The sign of a unit that is almost stable is often proven by a handful of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Search
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import expand
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.parallel import SERIAL, Executor, partition
from mipverify.proof.backward import lower_sides
from mipverify.proof.bounds import Bounds
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import RowBounds, UnitBounds
from mipverify.proof.parts import never
from mipverify.proof.rows import unit_rows
from mipverify.specification.sets import Constrained

CEILING = 1e-3  # of the distance to zero: how far above it a sign is proven
# Distances to zero of a tree's open nodes, in those of the farthest one, for each node that it may have: a tree whose
# open nodes add up to more is given up.
TOTAL_GAP = 0.024
BATCH = 128  # nodes that are bounded together
TOGETHER = 48  # units whose trees are grown at a time; once none of them is stabilized, the others are left as they are
SHORT = Search(iterations=12, slope_step=0.1, decay=0.94)  # of each node
LONG = Search(iterations=300, slope_step=0.1, decay=0.99)  # of those in which no unit is left to split


@dataclass(frozen=True)
class Effort:
    """How hard to try for the signs of units. nodes: for each. ratio: the largest min(-l, u) / (u - l) of a unit with
    bounds l and u that is attempted. clips: whether intermediate bounds are clipped in the nodes."""

    nodes: int = 2000
    ratio: float = 0.3
    clips: bool = True


def stabilize(
    below: Bounds,
    units: np.ndarray,
    known: tuple[np.ndarray, np.ndarray],
    signs_seen: tuple[np.ndarray, np.ndarray],
    effort: Effort,
    stop: Callable[[], bool] = never,
    pool: Executor = SERIAL,
) -> list[UnitBounds]:
    """What branching on the phases below shows of some units (U,) of a network's output [Tjeng et al. 2019, 4.2].

    below: of one box. known: their bounds so far (U,), (U,). signs_seen: which are known not to be positive somewhere,
    and not to be negative, (U,) each.
    Unstable units are worked on until their sign is proven, which is all that a formulation needs to do without their
    binaries, or for that many nodes, or until the gaps of their open nodes add up to too much; on the side that is
    nearer to zero, or on the other one where that is known to be in vain. Units that take both signs are left as they
    are. Those in least ratio come first; once none of some more is stabilized, the others are left as they are, too.
    """
    lows, highs = known
    recordable = below.derivation is None or not isinstance(below.inputs, Constrained)  # see `Confined`
    clipping = DomainClipping(below.network, CEILING) if effort.clips and recordable else None
    trees, facts = _Trees(below, clipping, effort.nodes), []
    sides = np.stack([np.where(signs_seen[0], np.inf, -lows), np.where(signs_seen[1], np.inf, highs)])
    distance, sign = sides.min(axis=0), np.where(sides.argmin(axis=0) == 0, 1.0, -1.0)
    share = np.where((lows < 0) & (highs > 0), distance, np.inf) / np.maximum(highs - lows, np.finfo(float).tiny)
    order = np.argsort(share)
    order = order[share[order] <= effort.ratio]
    for begin in range(0, len(order), TOGETHER):
        tried = order[begin : begin + TOGETHER]
        if stop():
            break
        # Powers of two, so that scaling rounds nothing: all trees have about the same way to go.
        factor = sign[tried] * 2.0 ** -np.clip(np.round(np.log2(distance[tried])), -1000, 1000)
        parts, any_settled = partition(np.arange(len(tried)), pool), False
        for fact in pool.map(_raise, trees, [(units[tried[part]], factor[part]) for part in parts], stop):
            if fact is not None:
                facts.append(lower_sides(fact))
                any_settled = any_settled or bool((fact.lower > 0).any())
        if not any_settled:
            break
    return facts


@dataclass(frozen=True, eq=False)
class _Trees:
    """What all trees for the units of a layer have in common; `most` nodes or so each."""

    below: Bounds
    clipping: DomainClipping | None
    most: int


def _raise(trees: _Trees, work: tuple[np.ndarray, np.ndarray], stop: Callable[[], bool]) -> RowBounds:
    """What is proven of some units times some factors (U,): a tree for each, all of them level by level."""
    units, factor = work
    network, count = trees.below.network, len(units)
    rows = unit_rows(network, network.output, units, None, trees.below.like).scaled(factor)
    bounder = PhaseBounder(trees.below, rows, SHORT, clipping=trees.clipping, long=None)
    cases = PhaseCases(trees.below, bounder.claim)
    proven = cases.proven()
    on, spent = np.ones(count, bool), np.zeros(count, int)
    level = _each(_raise_roots, bounder, [root(row) for row in range(count)], stop)
    depth = 0
    while level is not None:
        for node in level:
            if node.fact is not None:
                cases.learn(node.fact, node.place, node.condition)
        proven = cases.proven()
        left = np.bincount([node.condition for node in level], [max(-node.lower, 0.0) for node in level], count)
        over = left > TOTAL_GAP * trees.most * np.maximum(-proven.lower, 0.0)
        on &= (proven.lower <= 0) & (spent < trees.most) & ~over
        for node in level:
            if node.lower > 0:
                cases.close(node.condition, node.splits)
            elif len(node.splits) < depth:  # nothing was left to split: its tree cannot be closed
                on[node.condition] = False
        parents = [node for node in level if on[node.condition] and not node.lower > 0]
        if not parents:
            break
        level = _each(_split, bounder, parents, stop)
        for node in level or []:
            if node.splits and len(node.splits) > depth and node.splits[-1][2] > 0:
                relu, unit, _ = node.splits[-1]
                cases.split(node.condition, node.splits[:-1], relu, unit)
        np.add.at(spent, [node.condition for node in level or []], 1)
        depth += 1
    return proven if trees.below.derivation is None else cases.settled()


def _each(
    work: Callable[[PhaseBounder, Sequence[Node], Callable[[], bool]], list[Node]],
    bounder: PhaseBounder,
    nodes: Sequence[Node],
    stop: Callable[[], bool],
) -> list[Node] | None:
    """What becomes of nodes, in batches; None once `stop` cut it short."""
    found: list[Node] = []
    for begin in range(0, len(nodes), BATCH):
        found.extend(work(bounder, nodes[begin : begin + BATCH], stop))
        if stop():
            return None
    return found


def _raise_roots(bounder: PhaseBounder, nodes: Sequence[Node], stop: Callable[[], bool]) -> list[Node]:
    return bounder.raise_bounds(nodes, stop)[0]


def _split(bounder: PhaseBounder, parents: Sequence[Node], stop: Callable[[], bool]) -> list[Node]:
    """The children of nodes; a node without unstable units stands for itself, with the best bound it can get."""
    done = expand(bounder, parents, stop)
    return [*done.children, *(bounder.solve(done.leaves, LONG, stop)[0] if done.leaves else [])]
