"""The bounder of phase splitting: optimized CROWN with split multipliers, batched over nodes of the tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve import Optimum, Search, optimize_rows
from mipverify.presolve.layered import Layered
from mipverify.solvers.branch_and_bound.branching.rule import CROWN, BranchingRule, rule
from mipverify.solvers.branch_and_bound.corners import Corners
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.relaxed import Relaxed
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.backward import Evidence, estimate_backward, estimate_minimum
from mipverify.proof.bounds import Bounds, assume, splits_by_layer
from mipverify.proof.cuts import LayerCuts
from mipverify.proof.rows import Rows

QUICK = Search(iterations=30, slope_step=0.1, decay=0.97)
PATIENT = Search(iterations=60, slope_step=0.1, decay=0.98)
LOOK = Search(iterations=0)
STALLED = 0.02  # of the distance to zero: a split that gains less was not understood by a quick ascent
CLIPS = 4  # times that hidden bounds of a node are tightened in turn with its own
WORTH = 0.05  # of the distance to zero that the last time must have gained
FORGET = 0.3  # of what was known of gains, with each batch
TRY_AGAIN = 8  # batches, after which it is looked whether clipping pays by now, or linear programs
STUCK = 3  # splits in a row that gained as little, after which a node gets a linear program,
PROGRAMS = 0.05  # if the last ones gained this much of the distance to zero


class PhaseBounder:
    """Bounds subproblems of one input box: rows of output conditions under fixed ReLU phases [Wang et al. 2021].

    root: bounds of the box (batch 1). rows: one row a condition, without samples. cuts: rows that hold over the whole
    box, by ReLU node; they are dualized in every subproblem. search: of every node; those that it hardly raises above
    their parent get a patient one: without it, they are split again and again, and all below them stays as low.
    corners: clips the hidden bounds of nodes that stay open to where rows are not above its ceiling, which is all that
    is asked for then. programs: linear programs, for nodes at which ascents are stuck. branching: the name of a rule.
    """

    def __init__(
        self,
        root: Bounds,
        rows: Rows,
        search: Search = QUICK,
        cuts: Mapping[int, LayerCuts] | None = None,
        patient: Search | None = PATIENT,
        corners: Corners | None = None,
        programs: NodePrograms | None = None,
        branching: str = "filtered",
    ):
        self.branching: BranchingRule[Relaxed, tuple[int, int] | None] = rule(branching, CROWN)
        self.root, self.rows, self.search, self.patient = root, rows, search, patient
        self.cuts, self.corners, self.programs = dict(cuts or {}), corners, programs
        assert rows.claim is not None  # made of units
        self.claim = rows.claim
        self.split_gain, self.clip_gain, self.program_gain, self.turn = _Gain(0.0), _Gain(1.0), _Gain(1.0), 0
        self.network, self.layered = root.network, Layered.of(root.network)
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

    def condition_rows(self, conditions: np.ndarray) -> Rows:
        """The rows of the given conditions (K,)."""
        return self.rows.take(conditions)

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
        self.turn += 1
        solved, optimum, _ = self.solve(nodes, stop=stop)
        points = optimum.minimizer

        def again(some: Sequence[int], search: Search | None = None) -> None:
            found, optimum, _ = self.solve([solved[k] for k in some], search, stop)
            points[some] = optimum.minimizer
            for k, node in zip(some, found, strict=True):
                solved[k] = node

        stalled = [
            k
            for k, (old, new) in enumerate(zip(nodes, solved, strict=True))
            if not new.lower > 0 and new.lower - old.lower < STALLED * -old.lower < np.inf
        ]
        if stalled and self.patient is not None:
            again(stalled, self.patient)
        open_ = [k for k, node in enumerate(solved) if not node.lower > 0]
        if self.corners is not None and open_:
            self.split_gain.add(_share_of_way([nodes[k] for k in open_], [solved[k] for k in open_]))
            for turn in range(CLIPS if self._clipping_pays() else 0):
                if not open_ or (stop is not None and stop()):
                    break
                tried, before = open_, [solved[k] for k in open_]
                open_ = self._clip(solved, open_)
                if open_:
                    again(open_)
                gained = _share_of_way(before, [solved[k] for k in tried])
                if turn == 0:
                    self.clip_gain.add(gained)
                open_ = [k for k, share in zip(tried, gained, strict=True) if share > WORTH and not solved[k].lower > 0]
        if self.programs is not None:
            self._solve_programs(nodes, solved, points, stop or (lambda: False))
        return solved, points

    def _solve_programs(
        self, before: Sequence[Node], nodes: list[Node], points: np.ndarray, stop: Callable[[], bool]
    ) -> None:
        """Linear programs of nodes that are open still and hardly above where they were `before`; in place."""
        assert self.programs is not None
        gained = _share_of_way(before, nodes)
        for k, node in enumerate(nodes):
            nodes[k] = replace(node, stalled=0 if gained[k] >= STALLED else node.stalled + 1)
        open_ = [k for k, node in enumerate(nodes) if not node.lower > 0 and node.stalled >= STUCK]
        if not open_ or not (self.program_gain.mean >= PROGRAMS or self.turn % TRY_AGAIN == 0):
            return
        own = [nodes[k] for k in open_]
        minimizers = points[open_]
        raised = self.programs.raise_bounds(own, self.bounds(own), minimizers, stop)
        self.program_gain.add(_share_of_way(own, raised))
        points[open_] = minimizers
        for k, node in zip(open_, raised, strict=True):
            nodes[k] = node

    def _clipping_pays(self) -> bool:
        """Whether it has brought nodes closer to zero than splitting does, which costs about as much."""
        return self.clip_gain.mean >= self.split_gain.mean or self.turn % TRY_AGAIN == 0

    def _clip(self, nodes: list[Node], some: Sequence[int]) -> list[int]:
        """Clip the hidden bounds of some nodes in place; those that are open still."""
        assert self.corners is not None
        clipped = self.corners.clip(*self.solve([nodes[k] for k in some], LOOK))
        for k, node in zip(some, clipped, strict=True):
            nodes[k] = node
        return [k for k in some if not nodes[k].lower > 0]

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
            self.condition_rows(np.array([node.condition for node in nodes])),
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
        rows = self.condition_rows(np.array([node.condition for node in nodes])).surrogate()
        cuts = {node: layer.dense(np.float32) for node, layer in self.cuts.items()}
        reached = estimate_backward(surrogate, rows, self._evidence(nodes, cuts))
        return np.asarray(estimate_minimum(surrogate, reached, None))

    def _evidence(self, nodes: Sequence[Node], cuts: Mapping[int, LayerCuts]) -> Evidence:
        """What the bounds of some nodes were found with."""
        slopes = self._stack([node.slopes for node in nodes])
        multipliers = self._stack([node.multipliers for node in nodes])
        return Evidence(slopes, multipliers, cuts, self._cut_multipliers(nodes))


@dataclass
class _Gain:
    """A mean that forgets."""

    mean: float

    def add(self, values: np.ndarray) -> None:
        if len(values):
            self.mean += FORGET * (float(values.mean()) - self.mean)


def _share_of_way(before: Sequence[Node], after: Sequence[Node]) -> np.ndarray:
    """By how much of their distance to zero nodes (K,) were raised; 0 for those that had no bound."""
    low, high = (np.array([node.lower for node in nodes]) for nodes in (before, after))
    known = np.isfinite(low) & (low < 0)
    distance = np.where(known, -low, 1.0)
    return np.where(known, np.clip((high - np.where(known, low, 0.0)) / distance, 0.0, 1.0), 0.0)
