"""Stages that bound: each tightens what is known of hidden units or of the open conditions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mipverify.engine.question import Question
from mipverify.presolve import (
    Bounds,
    Relaxed,
    Rows,
    Search,
    crown,
    interval,
    minimizer,
    minimum_over_box,
    optimize_rows,
    optimized_crown,
    pass_back,
    unit_rows,
)

CUTTING = 0.2  # share of the time left that cuts for hidden units may take
BRANCHING = 0.6  # share that branching on them may take
# Nodes for a hidden unit, after which its sign is left open, and the share of its width by which that may be in doubt.
EFFORTS = ((24, 0.25), (96, 1.0))
SETTLED = 0.01  # share of the unstable units of which a pass must prove the sign, or the next effort is due


def interval_bounds(question: Question) -> None:
    """Interval arithmetic."""
    question.bounds = interval(question.margins, *question.box, region=question.case.region)
    lower = question.bounds.lower[question.margins.output].reshape(-1)
    question.learn(np.arange(len(lower)), np.where(question.bounds.finite()[0], lower, -np.inf))


def crown_bounds(question: Question) -> None:
    """CROWN for the unstable units and the open conditions."""
    question.bounds = crown(question.margins, *question.box, question.known, question.case.region)
    bound_conditions(question)


def bound_conditions(question: Question) -> None:
    """One CROWN row for each open condition; its minimizer becomes a hint for the attack."""
    assert question.bounds is not None
    open_ = question.open()
    relaxed, rows = Relaxed(question.bounds), open_rows(question)
    reached = pass_back(relaxed, rows)
    question.learn(open_, minimum_over_box(relaxed, reached, None))
    question.hints = minimizer(relaxed, reached.coefficients, None).reshape(len(open_), -1)


def open_rows(question: Question) -> Rows:
    """The rows of the open conditions."""
    return unit_rows(question.margins, question.margins.output, question.open(), None, question.box[0])


def optimize_conditions(search: Search) -> Callable[[Question], None]:
    """Slopes optimized for each open condition by itself."""

    def run(question: Question) -> None:
        assert question.bounds is not None
        open_ = question.open()
        optimum = optimize_rows(Relaxed(question.bounds), open_rows(question), search, stop=question.clock.over)
        question.learn(open_, optimum.lower)
        question.hints = optimum.minimizer.reshape(len(open_), -1)
        question.try_points(question.hints)

    return run


def tighten_units(search: Search) -> Callable[[Question], None]:
    """Slopes optimized for each unstable unit by itself, then for the open conditions."""

    def run(question: Question) -> None:
        assert question.bounds is not None
        known = question.bounds.known()
        question.bounds = optimized_crown(
            question.margins, *question.box, known, search, question.clock.over, question.case.region
        )
        optimize_conditions(Search(iterations=30))(question)

    return run


def tighten_by_lp(question: Question) -> None:
    """Linear programs for the unstable units, in at most a third of the time: a MILP lives on its big-M bounds."""
    from mipverify.presolve.linear import lp_tighten
    from mipverify.solvers import certified_program

    assert question.bounds is not None
    if not question.bounds.finite()[0]:
        return
    clock = question.clock
    end = clock.elapsed() + clock.left() / 3
    known = question.bounds.known()
    question.bounds = lp_tighten(
        question.margins,
        *question.box,
        certified_program,
        known,
        stop=clock.stop_at(end),
        region=question.case.region,
    )
    optimize_conditions(Search(iterations=30))(question)


def tighten_by_cuts(question: Question) -> None:
    """Cuts of the ideal formulation for every unstable unit, on the reduced network; then the open conditions."""
    from mipverify.presolve.cutting import cut_tighten

    _tighten_reduced(question, question.clock.elapsed() + CUTTING * question.clock.left(), cut_tighten)
    question.hidden_cut = True


def tighten_by_branching(question: Question) -> None:
    """A tree of a few nodes for the sign of every unstable unit in doubt, then the open conditions; in passes.

    What one pass proves makes the network smaller and its bounds tighter than they were for the layers before.
    """
    from mipverify.solvers.branch_and_bound import branch_tighten

    assert question.bounds is not None
    question.note("dense layers build on each other")
    clock, question.hidden_branched = question.clock, True
    end = clock.elapsed() + BRANCHING * clock.left()
    unstable = question.bounds.unstable_counts().sum()
    for nodes, doubt in EFFORTS:
        more = True
        while more and clock.elapsed() < end and not question.decided():
            _tighten_reduced(question, end, branch_tighten, nodes=nodes, within=doubt)
            before, unstable = unstable, question.bounds.unstable_counts().sum()
            question.report("hidden", f"{unstable} of {before} units unstable, bound {question.lower.min():.4g}")
            more = unstable < (1 - SETTLED) * before


def _tighten_reduced(question: Question, end: float, tighten: Callable[..., Bounds], **options: float) -> None:
    """Tighten bounds of the reduced network until the clock shows `end`, and take over what they mean."""
    assert question.bounds is not None
    reduced = question.reduced
    small = reduced.bounds
    tight = tighten(
        small.network,
        small.lower[0],
        small.upper[0],
        small.known(),
        stop=question.clock.stop_at(end),
        region=small.region,
        hands=question.hands,
        **options,
    )
    known = {**question.bounds.known(), **reduced.known(tight, question.bounds)}
    question.bounds = interval(question.margins, *question.box, known, question.case.region)
    optimize_conditions(Search(iterations=30))(question)
