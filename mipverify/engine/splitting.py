"""Stages that split: branch and bound on the input box, or on the phases of unstable ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.leaves import leaf_solver
from mipverify.engine.policy import clipping_is_cheap, hidden_branching_pays, hidden_cuts_are_left, milp_may_finish
from mipverify.engine.question import Question
from mipverify.formulation import condition_parts
from mipverify.presolve import unit_rows
from mipverify.presolve.reduce import Reduced

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.root_cuts import RootCuts

BEFORE_CUTS = 0.5  # share of the time left that branch and bound takes before hidden bounds are cut after all
BEFORE_HIDDEN = 0.1  # share of the time left that branch and bound takes before it turns to hidden units
BEFORE_MILP = 0.1  # share of the time left that branch and bound takes where a MILP solver may finish
# Of the distance to zero: how far above it a search proves a margin. Above that, hidden bounds need not hold.
CEILING: float | None = 1e-3
WITHOUT_CUTS = 1.0  # seconds of branching before cuts are looked for


def split_boxes(question: Question) -> None:
    """Branch and bound on the input box."""
    from mipverify.solvers.branch_and_bound.boxes import search_boxes

    lower, upper = (side.reshape(-1) for side in question.box)
    question.note(f"{np.count_nonzero(upper > lower)} inputs are free")
    parts = condition_parts(question.network, question.case.conditions)
    outcome = search_boxes(
        question.margins,
        lower,
        upper,
        list(question.open()),
        parts=[parts[c] for c in question.open()],
        region=question.case.region,
        try_points=question.try_points,
        stop=question.clock.over,
        hands=question.hands,
        progress=_progress(question, "boxes", question.open()),
    )
    question.nodes += outcome.nodes
    question.reason = outcome.reason
    for condition, value in outcome.lower.items():
        question.learn(np.array([condition]), np.array([value]))


def split_phases(question: Question, seconds: float = WITHOUT_CUTS) -> None:
    """Branch and bound on ReLU phases, all open conditions in one tree, without cuts."""
    starts = {int(c): None for c in question.open()}
    ceiling = _ceiling(question, question.open()) if clipping_is_cheap(question) else None
    _branch(question, question.reduced, starts, question.clock.elapsed() + seconds, ceiling)


def split_phases_with_cuts(question: Question) -> None:
    """Branch and bound on ReLU phases, condition by condition with the cuts that matter to it, the easiest first."""
    from mipverify.solvers.branch_and_bound.root_cuts import root_cuts

    clock, reduced, open_ = question.clock, question.reduced, question.open()
    # A MILP solver finishes small programs that a tree of bounds only creeps up to.
    share = 1.0
    if milp_may_finish(question):
        share = BEFORE_MILP
    elif hidden_branching_pays(question):
        share = BEFORE_HIDDEN
    elif hidden_cuts_are_left(question):
        share = BEFORE_CUTS
    finish = clock.elapsed() + clock.left() * share
    question.report("cuts", f"{len(open_)} open, bound {question.lower.min():.4g}")
    found = root_cuts(reduced.bounds.network, reduced.bounds, open_, stop=clock.over)
    question.learn(open_, np.array([cuts.lower for cuts in found]))
    question.try_points(np.stack([cuts.minimizer for cuts in found]))
    for condition, cuts in sorted(zip(open_, found, strict=True), key=lambda pair: -pair[1].lower):
        if question.decided() or clock.elapsed() > finish:
            return
        if not cuts.lower > 0:
            _branch(question, reduced, {int(condition): cuts}, finish, _ceiling(question, np.array([condition])))


def _branch(
    question: Question,
    reduced: Reduced,
    starts: Mapping[int, RootCuts | None],
    end: float,
    ceiling: float | None,
) -> None:
    """One search, over the conditions of `starts` and with the cuts there, until the clock shows `end`."""
    from mipverify.solvers.branch_and_bound.phases import PhaseBounder
    from mipverify.solvers.branch_and_bound.search import search_phases
    from mipverify.solvers.branch_and_bound.splits import Proof, root

    bounds, network = reduced.bounds, reduced.bounds.network
    rows = unit_rows(network, network.output, np.arange(len(question.lower)), None, question.box[0])
    layers = {node: layer for cuts in starts.values() if cuts is not None for node, layer in cuts.layers.items()}
    bounder = PhaseBounder(bounds, rows, cuts=layers, ceiling=ceiling, keep=question.keep)
    proof = Proof(bounder)
    outcome = search_phases(
        bounder,
        [root(condition) if cuts is None else cuts.start(condition) for condition, cuts in starts.items()],
        try_points=question.try_points,
        solve_leaf=leaf_solver(question, reduced),
        stop=lambda: question.clock.over() or question.clock.elapsed() > end,
        hands=question.hands,
        progress=_progress(question, "branch", np.array(list(starts))),
        closed=proof.nodes.append if question.keep else None,
    )
    if question.keep:
        question.proofs.append(proof)
    question.nodes += outcome.nodes
    question.reason = outcome.reason
    for condition, value in outcome.lower.items():
        question.learn(np.array([condition]), np.array([value]))


def _ceiling(question: Question, conditions: np.ndarray) -> float | None:
    """How far above zero a search proves margins; None where nothing tells their scale."""
    below = -question.lower[conditions]
    below = below[np.isfinite(below) & (below > 0)]
    return None if CEILING is None or not len(below) else float(CEILING * below.min())


def _progress(question: Question, what: str, conditions: np.ndarray) -> Callable[[int, int, float], None]:
    """Keeps what a search has proven of its conditions so far, which an interrupt would lose, and reports it."""

    def progress(done: int, left: int, bound: float) -> None:
        question.learn(conditions, np.full(len(conditions), min(bound, 0.0)))  # closed nodes lie above zero
        question.report(what, f"{done} {'boxes' if what == 'boxes' else 'nodes'}, {left} open, bound {bound:.4g}")

    return progress
