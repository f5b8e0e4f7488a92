"""The stages of the cascade: each works only on the conditions that the ones before left open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.attack.pgd import Attack, pgd
from mipverify.engine.programs import by_milp, solve_milp
from mipverify.engine.question import Question
from mipverify.formulation import condition_parts
from mipverify.presolve import (
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
    reduce,
    unit_rows,
)

FEW_BINARIES = 100  # up to here a MILP solver gets a share of the time
BEFORE_MILP = 0.4  # share of the time left that branch and bound takes from it
WITHOUT_CUTS = 1.0  # seconds of branching before cuts are looked for
FEW_INPUTS = 12  # up to here halving the input box beats splitting ReLUs


@dataclass(frozen=True)
class Stage:
    """A named step; `when` says for which questions it is worth its time."""

    name: str
    run: Callable[[Question], None]
    when: Callable[[Question], bool] = lambda question: True


def few_inputs(question: Question) -> bool:
    """Whether the box has so few free coordinates that halving it is the better way.

    Halved boxes creep up to a curved ball: where few ReLUs are unstable, their phases are the better way then.
    """
    lower, upper = question.box
    few = int(np.count_nonzero(upper > lower)) <= FEW_INPUTS
    return few and not (question.case.region is not None and small(question))


def small(question: Question) -> bool:
    """Whether so few ReLUs are unstable that a MILP solver may finish."""
    return question.bounds is not None and int(question.bounds.unstable_counts().sum()) <= FEW_BINARIES


def evaluate(question: Question) -> None:
    """The middle of the box and two random points."""
    low, high = question.float_box
    random = question.rng.random((3, len(low)), dtype=np.float32)
    random[0] = 0.5
    question.try_points(low + random * (high - low))


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


def attack(settings: Attack) -> Callable[[Question], None]:
    """Projected gradient descent with the given settings."""

    def run(question: Question) -> None:
        pgd(
            question.margins,
            *question.float_box,
            question.open(),
            settings,
            question.rng,
            question.try_points,
            hints=question.hints[:4],
            stop=question.clock.over,
            project=question.project,
        )

    return run


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


def split_boxes(question: Question) -> None:
    """Branch and bound on the input box."""
    from mipverify.solvers.branch_and_bound.boxes import search_boxes

    lower, upper = (side.reshape(-1) for side in question.box)
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
        progress=_progress(question, "boxes", question.open()),
    )
    question.nodes += outcome.nodes
    question.reason = outcome.reason
    for condition, value in outcome.lower.items():
        question.learn(np.array([condition]), np.array([value]))


def split_phases(question: Question) -> None:
    """Branch and bound on ReLU phases: a while without cuts, then condition by condition with those that matter."""
    from mipverify.solvers.branch_and_bound.phases import PhaseBounder
    from mipverify.solvers.branch_and_bound.root_cuts import root_cuts
    from mipverify.solvers.branch_and_bound.search import Outcome, search_phases
    from mipverify.solvers.branch_and_bound.splits import Node, root

    assert question.bounds is not None
    bounds, clock, search = reduce(question.bounds), question.clock, Search(iterations=12, decay=0.9)
    network = bounds.network
    rows = unit_rows(network, network.output, np.arange(len(question.lower)), None, question.box[0])

    def branch(bounder: PhaseBounder, roots: list[Node], seconds: float) -> None:
        end = clock.elapsed() + seconds
        outcome: Outcome = search_phases(
            bounder,
            roots,
            try_points=question.try_points,
            stop=lambda: clock.over() or clock.elapsed() > end,
            progress=_progress(question, "branch", np.array(sorted({node.condition for node in roots}))),
        )
        question.nodes += outcome.nodes
        question.reason = outcome.reason
        for condition, value in outcome.lower.items():
            question.learn(np.array([condition]), np.array([value]))

    # A MILP solver finishes small programs that a tree of bounds only creeps up to.
    rest = clock.left() * (BEFORE_MILP if small(question) and question.solver == "auto" else 1.0)
    finish = clock.elapsed() + rest
    branch(PhaseBounder(bounds, rows, search), [root(int(c)) for c in question.open()], WITHOUT_CUTS)
    for condition in sorted(map(int, question.open()), key=lambda c: -question.lower[c]):
        if question.decided() or clock.elapsed() > finish:
            return
        question.report("cuts", f"condition {condition}, bound {question.lower[condition]:.4g}")
        cuts = root_cuts(network, bounds, condition, stop=clock.over)
        question.learn(np.array([condition]), np.array([cuts.lower]))
        if cuts.lower > 0 or question.try_points(cuts.minimizer[None]):
            continue
        factors = {node: values.astype(np.float32) for node, values in cuts.multipliers.items()}
        start = Node(condition, (), cuts.lower, cuts.slopes, {}, factors)
        branch(PhaseBounder(bounds, rows, search, cuts.layers), [start], finish - clock.elapsed())


def _progress(question: Question, what: str, conditions: np.ndarray) -> Callable[[int, int, float], None]:
    """Keeps what a search has proven of its conditions so far, which an interrupt would lose, and reports it."""

    def progress(done: int, left: int, bound: float) -> None:
        question.learn(conditions, np.full(len(conditions), min(bound, 0.0)))  # closed nodes lie above zero
        question.report(what, f"{done} {'boxes' if what == 'boxes' else 'nodes'}, {left} open, bound {bound:.4g}")

    return progress


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
        stop=lambda: clock.elapsed() > end,
        region=question.case.region,
    )
    optimize_conditions(Search(iterations=30))(question)


LONG_ATTACK = Stage("long attack", attack(Attack(restarts=16, steps=60)))

# The order and the budgets, at a glance. A stage runs while the question is open and time is left.
CASCADE: tuple[Stage, ...] = (
    Stage("evaluation", evaluate),
    Stage("interval", interval_bounds),
    Stage("crown", crown_bounds),
    Stage("attack", attack(Attack(restarts=4, steps=12))),
    Stage("optimized crown", optimize_conditions(Search(iterations=20)), when=lambda q: not few_inputs(q)),
    Stage("input splitting", split_boxes, when=lambda q: few_inputs(q) and not by_milp(q)),
    Stage("tightening", tighten_units(Search(iterations=20)), when=lambda q: not few_inputs(q) or by_milp(q)),
    LONG_ATTACK,
    Stage("branch and bound", split_phases, when=lambda q: not by_milp(q)),
    Stage("lp tightening", tighten_by_lp, when=lambda q: by_milp(q) or (q.solver == "auto" and small(q))),
    Stage("milp", solve_milp, when=lambda q: by_milp(q) or (q.solver == "auto" and small(q))),
)
