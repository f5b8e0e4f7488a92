"""The bounder of phase splitting: optimized CROWN with split multipliers, batched over nodes of the tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from mipverify.presolve import Optimum, Search, optimize_rows
from mipverify.presolve.layered import Layered
from mipverify.solvers.branch_and_bound.branching.rule import CROWN, BranchingRule, rule
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.refinements import (
    LONG,
    LOOK,
    PATIENT,
    STUCK,
    Batch,
    Clipping,
    LongAscent,
    PatientAscent,
    Programs,
    Refinement,
    Remedy,
    Stuck,
)
from mipverify.solvers.branch_and_bound.relaxed import Relaxed
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.backward import Evidence, estimate_backward, estimate_minimum
from mipverify.proof.bounds import Bounds, assume, splits_by_layer
from mipverify.proof.cuts import LayerCuts
from mipverify.proof.rows import Rows

QUICK = Search(iterations=30, slope_step=0.1, decay=0.97)


class PhaseBounder:
    """Bounds subproblems of one input box: rows of output conditions under fixed ReLU phases [Wang et al. 2021].

    root: bounds of the box (batch 1). rows: one row a condition, without samples. cuts: rows that hold over the whole
    box, by ReLU node; they are dualized in every subproblem. search: of every node. What that leaves open is refined:
    patient: a longer search, where a split has brought little. clipping: of intermediate bounds to where rows are not
    above its ceiling, which is all that is asked for then. long: a search, and programs: linear programs, for nodes at
    which the other ascents are stuck, after so many splits. branching: the name of a rule.
    """

    def __init__(
        self,
        root: Bounds,
        rows: Rows,
        search: Search = QUICK,
        cuts: Mapping[int, LayerCuts] | None = None,
        patient: Search | None = PATIENT,
        clipping: DomainClipping | None = None,
        long: Search | None = LONG,
        programs: NodePrograms | None = None,
        stuck: int = STUCK,
        branching: str = "filtered",
    ):
        self.branching: BranchingRule[Relaxed, tuple[int, int] | None] = rule(branching, CROWN)
        self.root, self.rows, self.search, self.cuts = root, rows, search, dict(cuts or {})
        patience = None if patient is None else PatientAscent(patient)
        clipped = None if clipping is None else Clipping(clipping)
        remedies: list[Remedy] = [LongAscent(long)] if long is not None else []
        remedies += [] if programs is None else [Programs(programs)]
        given: tuple[Refinement | None, ...] = (patience, clipped, Stuck(remedies, stuck) if remedies else None)
        self.refinements = [refinement for refinement in given if refinement is not None]
        assert rows.claim is not None  # made of units
        self.claim = rows.claim
        self.network, layered = root.network, Layered.of(root.network)
        self.layered = layered if layered is None else layered.with_cuts(self.cuts)
        self.shapes = {node: self.network.nodes[node].shape for node in self.network.relus}

    def bounds(self, nodes: Sequence[Node]) -> Bounds:
        """The root's bounds, or a node's own, with the split units fixed to their phase; one batch entry a node."""
        return assume(self.root, [node.assumption for node in nodes], [node.entry for node in nodes])

    def signs(self, nodes: Sequence[Node]) -> dict[int, np.ndarray]:
        """By ReLU node (K, *shape): +1 where split active, -1 where inactive, 0 elsewhere."""
        found: dict[int, np.ndarray] = {}
        for relu, (places, units, signs) in splits_by_layer([node.assumption for node in nodes]).items():
            array = np.zeros((len(nodes), int(np.prod(self.shapes[relu]))), np.float32)
            array[places, units] = signs
            found[relu] = array.reshape(len(nodes), *self.shapes[relu])
        return found

    def _stack(self, arrays: Sequence[dict[int, np.ndarray]]) -> dict[int, np.ndarray]:
        keys = set().union(*(a.keys() for a in arrays)) if arrays else set()
        out: dict[int, np.ndarray] = {}
        for node in keys:
            zero = np.zeros(int(np.prod(self.shapes[node])), np.float32)
            out[node] = np.stack([a.get(node, zero) for a in arrays]).reshape(len(arrays), *self.shapes[node])
        return out

    def _cut_multipliers(self, nodes: Sequence[Node]) -> dict[int, np.ndarray]:
        zero = {node: np.zeros(len(layer), np.float32) for node, layer in self.cuts.items()}
        return {node: np.stack([n.cut_multipliers.get(node, zero[node]) for n in nodes]) for node in self.cuts}

    def raise_bounds(
        self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], np.ndarray]:
        """Nodes with better bounds, and the inputs (K, *input_shape) that minimize their relaxations."""
        solved, optimum, _ = self.solve(nodes, stop=stop)
        batch = Batch(self, nodes, solved, optimum.minimizer, stop)
        for refinement in self.refinements:
            refinement.raise_bounds(batch)
        return batch.nodes, batch.points

    def split(self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None) -> list[tuple[Node, Node] | None]:
        """The two children of each node, not bounded yet; None where no unit is unstable."""
        # The optimum once more, without iterations: scores need it, and keeping it would cost memory.
        _, optimum, bounds = self.solve(nodes, LOOK, stop)
        relaxed = Relaxed(nodes, optimum, bounds, self.estimate)
        chosen = self.branching.choose(relaxed)
        return [None if unit is None else relaxed.pair(k, unit) for k, unit in enumerate(chosen)]

    def solve(
        self, nodes: Sequence[Node], search: Search | None = None, stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], Optimum, Bounds]:
        """One ascent: nodes with better bounds, the optimum behind them (one row a node), and what it is within."""
        bounds = self.bounds(nodes)
        optimum = optimize_rows(
            bounds,
            self.rows.take(np.array([node.condition for node in nodes])),
            search or self.search,
            start=self._evidence(nodes, self.cuts),
            signs=self.signs(nodes),
            layered=self.layered,
            stop=stop,
        )
        solved, found = [], optimum.evidence
        for k, node in enumerate(nodes):
            own = replace(
                node,
                slopes={i: a[k].reshape(-1) for i, a in found.slopes.items()},
                multipliers={i: a[k].reshape(-1) for i, a in found.multipliers.items()},
                cut_multipliers={i: a[k] for i, a in found.cut_multipliers.items()},
            )
            solved.append(own.learned(optimum.bound, k))
        return solved, optimum, bounds

    def estimate(self, nodes: Sequence[Node]) -> np.ndarray:
        """Quick float32 bounds (K,) with the slopes and multipliers that the nodes carry: for choosing branches."""
        surrogate = self.bounds(nodes).surrogate()
        rows = self.rows.take(np.array([node.condition for node in nodes])).surrogate()
        cuts = {node: layer.dense(np.float32) for node, layer in self.cuts.items()}
        reached = estimate_backward(surrogate, rows, self._evidence(nodes, cuts))
        return np.asarray(estimate_minimum(surrogate, reached, None))

    def _evidence(self, nodes: Sequence[Node], cuts: Mapping[int, LayerCuts]) -> Evidence:
        """What the bounds of some nodes were found with."""
        slopes = self._stack([node.slopes for node in nodes])
        multipliers = self._stack([node.multipliers for node in nodes])
        return Evidence(slopes, multipliers, cuts, self._cut_multipliers(nodes))
