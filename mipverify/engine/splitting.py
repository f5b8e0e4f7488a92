"""Stages that split: branch and bound on the input box, or on the phases of unstable ReLUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.policy import harder_tightening_pays, hidden_cuts_are_left, milp_may_finish, programs_pay
from mipverify.engine.question import Question
from mipverify.engine.searches import go_on, phase_search, tell
from mipverify.formulation import condition_parts
from mipverify.proof.bounds import Bounds
from mipverify.proof.boxes import BoxCases
from mipverify.proof.facts import Claim
from mipverify.proof.rows import unit_rows

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.root_cuts import RootCuts
    from mipverify.solvers.branch_and_bound.search import PhaseSearch

BEFORE_CUTS = 0.5  # share of the time left that branch and bound takes before hidden bounds are cut after all
BEFORE_HARDER = 0.05  # share of the time left that branch and bound takes before it turns to hidden units again
BEFORE_MILP = 0.1  # share of the time left that branch and bound takes where a MILP solver may finish
FURTHER = 0.5  # of the distance to zero of a bound with cuts: from there, a tree without them goes on instead
CEILING = 1e-3  # of the distance to zero: how far above it a search proves a margin, and hidden bounds have to hold
WITHOUT_CUTS = 1.0  # seconds of branching before cuts are looked for,
ON_ITS_WAY = 0.3  # and half as many again each time that the lowest bound came that share of the way to zero in them


@dataclass
class Trees:
    """Searches on phases that are under way, and the bounds they start from. cut: whether cuts were looked for."""

    bounds: Bounds | None
    searches: list[PhaseSearch] = field(default_factory=list)
    cut: bool = False


def split_boxes(question: Question) -> None:
    """Branch and bound on the input box."""
    from mipverify.solvers.branch_and_bound.boxes import search_boxes

    assert question.bounds is not None
    lower, upper = (side.reshape(-1) for side in question.box)
    question.note(f"{np.count_nonzero(upper > lower)} inputs are free")
    parts = condition_parts(question.network, question.case.conditions)
    open_ = question.open()
    claims = [Claim(parts[c][0], np.array([parts[c][1]]), np.ones(1)) for c in open_.tolist()]
    if question.record:  # where a conjunction is one output, whose maxima are ReLUs like others
        claims = [Claim(question.margins.output, np.array([[c]]), np.ones(1)) for c in open_.tolist()]
    outcome = search_boxes(
        question.bounds,
        claims,
        try_points=question.try_points,
        stop=question.clock.over,
        hands=question.hands,
        progress=partial(_tell_boxes, question),
    )
    question.nodes += outcome.boxes
    question.reason = outcome.reason
    for fact in outcome.bounds:
        question.learn(fact)


def _tell_boxes(question: Question, cases: BoxCases, done: int, left: int, bound: float) -> None:
    """Keep what is proven so far, which an interrupt would lose, and report it."""
    for fact in cases.proven():
        question.learn(fact)
    tell(question, "boxes", done, left, bound)


def split_phases(
    question: Question, seconds: float = WITHOUT_CUTS, ceiling: float | None = CEILING, programs: bool = True
) -> None:
    """Branch and bound on ReLU phases, all open conditions in one tree, without cuts.

    seconds: for it, and more while it makes its way. ceiling: without one, hidden bounds of nodes are not clipped.
    programs: whether nodes may get linear programs.
    """
    clock, rose = question.clock, True
    searches = _searches(question, [{int(c): None for c in question.open()}], ceiling, programs)
    end = clock.elapsed() + seconds
    while searches and (rose or clock.elapsed() < end):
        before = question.lower.min()
        searches = go_on(question, searches, clock.elapsed() + seconds / 2)
        rose = question.lower.min() > (1 - ON_ITS_WAY) * before  # not if there is no bound yet
    question.trees = Trees(question.bounds, searches)


def split_phases_with_cuts(question: Question, ceiling: float | None = CEILING, programs: bool = True) -> None:
    """Branch and bound on ReLU phases, condition by condition with the cuts that matter to it, the easiest first.

    Trees over the same bounds go on where they stopped. ceiling, programs: as in `split_phases`.
    """
    clock, trees = question.clock, question.trees
    # A MILP solver finishes small programs that a tree of bounds only creeps up to.
    share = 1.0
    if milp_may_finish(question):
        share = BEFORE_MILP
    elif harder_tightening_pays(question):
        share = BEFORE_HARDER
    elif hidden_cuts_are_left(question):
        share = BEFORE_CUTS
    finish = clock.elapsed() + clock.left() * share
    if trees is None or trees.bounds is not question.bounds:
        trees = Trees(question.bounds)
    proven = set(range(len(question.lower))).difference(question.open().tolist())
    for search in trees.searches:
        search.forget(proven)  # by another stage, since
    if not trees.cut and not question.record:  # cuts have no derivations
        trees.searches, trees.cut = _with_cuts(question, trees.searches, ceiling, programs), True
    while trees.searches and clock.elapsed() < finish:
        trees.searches = go_on(question, trees.searches, finish)
    question.trees = trees


def _with_cuts(
    question: Question, searches: list[PhaseSearch], ceiling: float | None, programs: bool
) -> list[PhaseSearch]:
    """Searches with cuts of their own for all open conditions but those that have come further without."""
    from mipverify.solvers.branch_and_bound.root_cuts import root_cuts

    open_, bounds = question.open(), question.reduced.bounds
    question.report("cuts", f"{len(open_)} open, bound {question.lower.min():.4g}")
    found = root_cuts(bounds, open_, stop=question.clock.over)
    for cuts in found:
        question.learn(cuts.fact)
    question.try_points(np.stack([cuts.minimizer for cuts in found]))
    reached = {condition: lower for search in searches for condition, lower in search.lowest().items()}
    order = sorted(zip(open_.tolist(), found, strict=True), key=lambda pair: -pair[1].lower)
    again = {c: cuts for c, cuts in order if not (c in reached and reached[c] >= FURTHER * cuts.lower)}
    for search in searches:
        search.forget(again)
    starts = [{condition: cuts} for condition, cuts in again.items() if not cuts.lower > 0]
    return [*(s for s in searches if s.lowest()), *_searches(question, starts, ceiling, programs)]


def _searches(
    question: Question,
    starts: Sequence[Mapping[int, RootCuts | None]],
    ceiling: float | None,
    with_programs: bool,
) -> list[PhaseSearch]:
    """A search for each of `starts`, over the conditions there and with their cuts."""
    from mipverify.solvers import lp_session
    from mipverify.solvers.branch_and_bound.corners import Corners
    from mipverify.solvers.branch_and_bound.phases import PhaseBounder
    from mipverify.solvers.branch_and_bound.programs import NodePrograms
    from mipverify.solvers.branch_and_bound.splits import root

    bounds = question.reduced.bounds
    network = bounds.network
    rows = unit_rows(network, network.output, np.arange(len(question.lower)), None, question.box[0])
    programs = NodePrograms.of(network, rows, lp_session) if with_programs and programs_pay(question) else None
    searches = []
    for conditions in starts:
        layers = {node: layer for cuts in conditions.values() if cuts for node, layer in cuts.layers.items()}
        below = -question.lower[list(conditions)]
        distance = below[np.isfinite(below) & (below > 0)]
        corners = None
        if ceiling is not None and len(distance) and not question.record:  # else nothing tells the scale of the margins
            corners = Corners(network, float(ceiling * distance.min()))
        bounder = PhaseBounder(bounds, rows, cuts=layers, corners=corners, programs=programs)
        roots = [root(condition) if cuts is None else cuts.start(condition) for condition, cuts in conditions.items()]
        searches.append(phase_search(question, bounder, roots, share=len(starts)))
    return searches
