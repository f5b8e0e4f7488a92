"""Cuts and small trees for the unstable units themselves: whether they pay, and passes over the layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.attack.signs import find_signs
from mipverify.engine.features import (
    FEW_DENSE_BINARIES,
    by_milp,
    cut_gain,
    dense,
    reducible,
    too_many_units,
    unstable,
    unstable_layers,
)
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.stages.optimized_crown import FOLLOW_UP, optimize_conditions
from mipverify.engine.state import State, Update
from mipverify.network import Network
from mipverify.presolve import crown
from mipverify.proof.interval import tighten

DENSE_LAYERS = "dense layers build on each other"
FEW_NODES = 2000  # of the tree of a hidden unit: most signs that can be settled take fewer


@dataclass(frozen=True, kw_only=True)
class CutSample(Stage):
    """Measures on a few units how much of the width of intermediate bounds cuts take away."""

    def applies(self, problem: Problem, state: State) -> str | None:
        """Once, where networks are branched on."""
        if by_milp(problem) or state.cut_gain is not None or not reducible(state):
            return None
        return "later stages depend on what cuts gain"

    def run(self, work: Work) -> None:
        """Cut a few units."""
        from mipverify.presolve.cutting import share_cut_off

        gain = share_cut_off(work.state.reduced(work.deadline.over).bounds)
        work.tell(Update(cut_gain=gain, note=f"cuts take {gain:.1%} off the width of intermediate bounds"))


@dataclass(frozen=True, kw_only=True)
class CutTightening(Stage):
    """Cuts of the ideal formulation [Anderson et al. 2020] for layers where they gain; then the open conditions.

    worth: the share of its width that a unit must lose on average. In convolutional networks it is less than a
    hundredth in the first layers, which have most units, and five in the last, on which all conditions hang.
    """

    worth: float = 0.02

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where cuts gain anything and no stronger stage has tried them."""
        if by_milp(problem) or state.hidden_cut or not reducible(state) or cut_gain(state) <= 0:
            return None
        return "cuts gain more in later layers"

    def run(self, work: Work) -> None:
        """Cut, and bound the open conditions."""
        from mipverify.presolve.cutting import cut_tighten

        state = work.state
        reduced = state.reduced(work.deadline.whole.over)
        tight = cut_tighten(reduced.bounds, self.worth, work.deadline.over, work.pool)
        bounds = tighten(state.proven, reduced.lifted(tight))
        work.tell(Update(facts=(bounds,), hidden_cut=True))
        optimize_conditions(work.outlasting(), FOLLOW_UP)


@dataclass(frozen=True, kw_only=True)
class ProgressiveTightening(Stage):
    """Cuts and trees for unstable units, layer by layer; then the open conditions.

    ratio: the share of its width by which a unit's sign may be in ratio to be worked on.
    """

    ratio: float = 0.3

    def applies(self, problem: Problem, state: State) -> str | None:
        """Once, where cuts gain much."""
        if by_milp(problem) or state.hidden_cut or not reducible(state) or not dense(state):
            return None
        return DENSE_LAYERS

    def obstacle(self, problem: Problem, state: State) -> str:
        """Too many units."""
        return "" if by_milp(problem) else too_many_units(state)

    def run(self, work: Work) -> None:
        """One pass, which proofs hold no clipped bounds of: they would be ten times as large, and as slow to check."""
        tighten_layers(work, self.ratio, clips=not work.problem.record)
        work.tell(Update(hidden_cut=True))


@dataclass(frozen=True, kw_only=True)
class FurtherPasses(Stage):
    """The same again, and then for units in any ratio, as long as that settles signs.

    ratios: of one kind of passes after the other. nodes: of the tree of a unit. settled: the share of the unstable
    units whose sign a pass must settle, or the next kind is due. more_than: unstable units, below which trees and
    programs are the better way. after: further passes of how many kinds there must have been.
    """

    ratios: tuple[float, ...] = (0.3, 1.0)
    nodes: int = FEW_NODES
    settled: float = 0.02
    more_than: int = FEW_DENSE_BINARIES
    after: int = 0

    def applies(self, problem: Problem, state: State) -> str | None:
        """Once, in large networks of several unstable layers where cuts gain much."""
        if by_milp(problem) or state.passes != self.after or state.bounds is None:
            return None
        several = unstable_layers(state) > 1 and unstable(state) > self.more_than
        return DENSE_LAYERS if several and reducible(state) and dense(state) else None

    def obstacle(self, problem: Problem, state: State) -> str:
        """Too many units."""
        return "" if by_milp(problem) else too_many_units(state)

    def run(self, work: Work) -> None:
        """Passes until none settles enough, or time is up."""
        work.tell(Update(passes=self.after + 1))
        for ratio in self.ratios:
            settled = 1.0
            while settled >= self.settled and not work.deadline.over() and not work.state.decided():
                settled = tighten_layers(work, ratio, self.nodes)


def tighten_layers(work: Work, ratio: float, nodes: int = FEW_NODES, *, clips: bool = True) -> float:
    """One pass over all layers until the deadline; the share of the unstable units that it has settled.

    nodes: of the tree of a unit. clips: whether trees clip bounds.
    """
    from mipverify.solvers.branch_and_bound import Effort, progressive_tighten

    problem, before, whole = work.problem, unstable(work.state), work.deadline.whole
    low, high = problem.float_box

    def signs(network: Network, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return find_signs(network, low, high, units, work.deadline.over, problem.project)

    effort = Effort(nodes, ratio, clips)
    tight = progressive_tighten(work.state.proven, effort, signs, work.deadline.over, work.pool)
    # Where time was up, layers that were not reached gain by what is known of those before.
    work.learn(crown(tight, whole.over))
    optimize_conditions(work.outlasting(), FOLLOW_UP)
    after = unstable(work.state)
    work.report("hidden", f"{after} of {before} units are unstable still, bound {work.state.lower.min():.4g}")
    return 1 - after / max(1, before)
