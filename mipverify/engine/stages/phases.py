"""Branch and bound on the phases of unstable ReLUs: without cuts, then with those that matter to each condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.features import by_milp, reducible, too_many_units, unstable, unstable_layers
from mipverify.engine.problem import Problem
from mipverify.engine.searches import go_on, phase_search
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Trees, Update
from mipverify.proof.rows import unit_rows
from mipverify.specification.sets import Constrained

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.root_cuts import RootCuts
    from mipverify.solvers.branch_and_bound.search import PhaseSearch


@dataclass(frozen=True, kw_only=True)
class PhaseStage(Stage):
    """What both have in common: searches on the phases of the reduced network.

    ceiling: how far above zero a search proves a margin, and intermediate bounds of nodes have to hold, in shares of
    the distance from the lowest bound to zero; None: nodes keep the intermediate bounds of the root. most_entries: of
    linear programs of nodes, unstable units times variables, up to which they take no longer than ascents; 0: nodes get
    none.
    """

    ceiling: float | None = 1e-3
    most_entries: int = 2**18

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where the network reduced to its unstable units fits into memory."""
        if by_milp(problem) or not reducible(state):
            return None
        return f"{unstable(state)} units are unstable"

    def obstacle(self, problem: Problem, state: State) -> str:
        """Too many units."""
        return "" if by_milp(problem) else too_many_units(state)

    def _searches(self, work: Work, starts: Sequence[Mapping[int, RootCuts | None]]) -> tuple[PhaseSearch, ...]:
        """A search for each of `starts`, over the conditions there and with their cuts."""
        from mipverify.solvers import lp_session
        from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
        from mipverify.solvers.branch_and_bound.phases import PhaseBounder
        from mipverify.solvers.branch_and_bound.programs import NodePrograms
        from mipverify.solvers.branch_and_bound.splits import root

        state, bounds = work.state, work.state.reduced(work.deadline.whole.over).bounds
        network = bounds.network
        rows = unit_rows(network, network.output, np.arange(len(state.lower)), None, work.problem.box[0])
        programs = NodePrograms.of(network, rows, lp_session) if self._programs_pay(work.problem, state) else None
        searches = []
        for conditions in starts:
            layers = {node: layer for cuts in conditions.values() if cuts for node, layer in cuts.layers.items()}
            below = -state.lower[list(conditions)]
            distance = below[np.isfinite(below) & (below > 0)]
            clipping = None
            recorded = not work.problem.record or not isinstance(work.problem.inputs, Constrained)  # see `Confined`
            if self.ceiling is not None and len(distance) and recorded:  # else nothing tells the scale of the margins
                clipping = DomainClipping(network, float(self.ceiling * distance.min()))
            bounder = PhaseBounder(bounds, rows, cuts=layers, clipping=clipping, programs=programs)
            roots = [root(c) if cuts is None else cuts.start(c) for c, cuts in conditions.items()]
            searches.append(phase_search(work.outlasting(), bounder, roots))
        return tuple(searches)

    def _programs_pay(self, problem: Problem, state: State) -> bool:
        """Whether linear programs are solved as fast as ascents: in small reduced networks of several layers."""
        if not problem.inputs.is_box or unstable_layers(state) < 2:
            return False
        units = unstable(state)
        return units * (units + problem.network.input_size) <= self.most_entries


@dataclass(frozen=True, kw_only=True)
class FirstBranching(PhaseStage):
    """All open conditions in one tree, without cuts: for what is decided sooner than cuts are found.

    most_work: coefficients of the reduced network times nodes, about 2^25 a second; each node counts `per_node` more
    for what it costs besides. Extended by half for each half in which the lowest bound came `on_its_way` of the way to
    zero.
    """

    most_work: float = 2.0**25
    per_node: int = 2**17
    on_its_way: float = 0.3

    def run(self, work: Work) -> None:
        """Branch, and keep the tree."""
        from mipverify.proof.reduction import entries

        state, rose, halves = work.state, True, 0
        half = max(1.0, self.most_work / (2 * (entries(state.proven) + self.per_node)))  # nodes
        searches = self._searches(work, [{int(c): None for c in state.open()}])
        while searches and (rose or halves < 2):
            before = state.lower.min()
            searches = go_on(work, searches, half)
            halves += 1
            rose = state.lower.min() > (1 - self.on_its_way) * before  # not if there is no bound yet
        work.tell(Update(trees=Trees(state.proven, searches)))


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(PhaseStage):
    """Condition by condition with the cuts that matter to it, the easiest first; trees that are far ahead go on.

    further: a tree over the intermediate bounds of before goes on where its bound is above this share of the one that
    cuts come to with the bounds of by now: these may have gained next to nothing.
    resumed: only where branching stopped before its time, for a MILP solver or to tighten intermediate bounds.
    """

    further: float = 0.5
    resumed: bool = False

    def applies(self, problem: Problem, state: State) -> str | None:
        """As for all branching on phases; a resumed one only where there is something to resume."""
        why = super().applies(problem, state)
        if why is None or not self.resumed:
            return why
        stopped = state.programmed or state.passes
        return "branching had stopped for other stages" if stopped else None

    def run(self, work: Work) -> None:
        """Look for cuts once, and branch."""
        state = work.state
        trees = state.trees or Trees(state.proven)
        searches, proven = trees.searches, set(range(len(state.lower))).difference(state.open().tolist())
        for search in searches:
            search.forget(proven)  # by another stage, since
        if not trees.cut or trees.bounds is not state.proven:
            searches = self._with_cuts(work, searches)
        bounds = state.proven
        while searches and not work.deadline.over():
            searches = go_on(work, searches)
        work.tell(Update(trees=Trees(bounds, searches, cut=True)))

    def _with_cuts(self, work: Work, searches: Sequence[PhaseSearch]) -> tuple[PhaseSearch, ...]:
        """Searches with cuts of their own for all open conditions but those whose trees are far ahead."""
        from mipverify.solvers.branch_and_bound.root_cuts import root_cuts

        state, whole = work.state, work.deadline.whole
        open_, bounds = state.open(), state.reduced(whole.over).bounds
        work.report("cuts", f"{len(open_)} open, bound {state.lower.min():.4g}")
        found = root_cuts(bounds, open_, stop=whole.over)
        for cuts in found:
            work.learn(cuts.fact)
        work.try_points(np.stack([cuts.minimizer for cuts in found]))
        reached = {condition: lower for search in searches for condition, lower in search.lowest().items()}
        order = sorted(zip(open_.tolist(), found, strict=True), key=lambda pair: -pair[1].lower)
        again = {c: cuts for c, cuts in order if not (c in reached and reached[c] >= self.further * cuts.lower)}
        for search in searches:
            search.forget(again)
        starts = [{condition: cuts} for condition, cuts in again.items() if not cuts.lower > 0]
        return (*(s for s in searches if s.lowest()), *self._searches(work, starts))
