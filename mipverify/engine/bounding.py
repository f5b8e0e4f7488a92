"""Stages that bound: each tightens what is known of hidden units or of the open conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mipverify.attack.signs import signs_met
from mipverify.engine.question import Question
from mipverify.formulation.margin import condition_parts
from mipverify.network import Network
from mipverify.presolve import Search, crown, optimize_rows, optimized_crown
from mipverify.proof.backward import minimizer, minimum, propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval_over, narrowed, tighten
from mipverify.proof.parts import row_chunks
from mipverify.proof.rows import Rows, unit_rows
from mipverify.proof.separable import separable_minimum
from mipverify.proof.signs import nonnegative
from mipverify.specification.sets import InputSet

CUTTING = 0.2  # share of the time left that cuts for hidden units may take,
PROGRESSIVE = 0.75  # that cuts and trees for them may take, and more of that later
DOUBTS = 0.3, 1.0  # share of its width by which a hidden unit's sign may be in doubt to be worked on
WHY = "dense layers build on each other"
MOST_EXACT = 64  # strict rows whose minimum is looked for in exact numbers
SETTLED = 0.02  # share of the unstable units whose sign a pass must settle, or more doubt is due


def interval_bounds(question: Question) -> None:
    """Interval arithmetic."""
    network = question.margins
    question.bounds = _start(network, question.case.inputs, question.around, question.record)
    if question.bounds.finite()[0]:
        question.learn_units(question.bounds.units(network.output, np.arange(network.output_size)))
    _exclude_strict_rows(question)


def unstable_units(network: Network, inputs: InputSet, around: Bounds | None) -> dict[int, np.ndarray]:
    """By pre-activation node, the flat units that CROWN leaves unstable over an input set.

    around: what is known over a set around it.
    """
    bounds = crown(_start(network, inputs, around))
    return {network.relu_source(node): np.flatnonzero(bounds.unstable(node)) for node in network.relus}


def _start(network: Network, inputs: InputSet, around: Bounds | None, record: bool = False) -> Bounds:
    """Interval bounds over an input set, with what is known over one around it.

    record: whether they are to have derivations, and then without that.
    """
    if around is None or record:
        return interval_over(network, inputs, record=record)
    return narrowed(around, network, inputs)


def _exclude_strict_rows(question: Question) -> None:
    """Strict rows that are met nowhere, because what they ask to be negative never is, though it may be zero."""
    assert question.bounds is not None
    conditions, node = question.case.conditions, len(question.network.nodes)
    open_ = [int(c) for c in question.open() if conditions[c].strict.any()]
    if not open_:
        return
    parts = condition_parts(question.network, conditions)
    rows = np.array([unit for c in open_ for unit, s in zip(parts[c][1], conditions[c].strict, strict=True) if s], int)
    shown = nonnegative(question.bounds, node, rows)
    question.learn_strict(shown)
    some = rows[~(shown.lower >= 0)][:MOST_EXACT]
    question.learn_strict(separable_minimum(question.bounds, node, some))


def crown_bounds(question: Question) -> None:
    """CROWN for the unstable units and the open conditions."""
    assert question.bounds is not None
    question.bounds = crown(question.bounds, question.clock.over)
    bound_conditions(question)


def bound_conditions(question: Question) -> None:
    """One CROWN row for each open condition; the minimizers of the first ones become hints for the attack."""
    assert question.bounds is not None
    hints: list[np.ndarray] = []
    for rows in open_rows(question):
        reached = propagate_backward(question.bounds, rows)
        question.learn(minimum(reached))
        if not hints:
            hints.append(minimizer(question.bounds, reached.coefficients, None).reshape(len(rows), -1))
    question.hints = np.concatenate(hints) if hints else question.hints


def open_rows(question: Question) -> Iterator[Rows]:
    """The rows of the open conditions, in parts that are passed back together: one, and more until time is up."""
    open_, network = question.open(), question.margins
    for part in row_chunks(network, network.output, len(open_)):
        if part.start and question.clock.over():
            return
        yield unit_rows(network, network.output, open_[part], None, question.box[0])


def optimize_conditions(search: Search) -> Callable[[Question], None]:
    """Slopes optimized for each open condition by itself."""

    def run(question: Question) -> None:
        assert question.bounds is not None
        surrogate = question.bounds.surrogate()
        for rows in open_rows(question):
            optimum = optimize_rows(question.bounds, rows, search, surrogate=surrogate, stop=question.clock.over)
            question.learn(optimum.bound)
            question.hints = optimum.minimizer.reshape(len(rows), -1)
            if question.try_points(question.hints) is not None:
                return

    return run


def tighten_units(search: Search) -> Callable[[Question], None]:
    """Slopes optimized for each unstable unit by itself, then for the open conditions."""

    def run(question: Question) -> None:
        assert question.bounds is not None
        question.bounds = optimized_crown(question.bounds, search, question.clock.over)
        optimize_conditions(Search(iterations=30))(question)

    return run


def tighten_by_lp(question: Question) -> None:
    """Linear programs for the unstable units, in at most a third of the time: a MILP lives on its big-M bounds."""
    from mipverify.presolve.linear import lp_tighten
    from mipverify.solvers import lp_session

    assert question.bounds is not None
    if not question.bounds.finite()[0]:
        return
    clock = question.clock
    end = clock.elapsed() + clock.left() / 3
    session = partial(lp_session, lambda: end - clock.elapsed())
    question.bounds = lp_tighten(question.bounds, session, clock.stop_at(end))
    optimize_conditions(Search(iterations=30))(question)


def tighten_by_cuts(question: Question) -> None:
    """Cuts of the ideal formulation for every unstable unit, on the reduced network; then the open conditions."""
    from mipverify.presolve.cutting import cut_tighten

    assert question.bounds is not None
    clock, reduced = question.clock, question.reduced
    small, stop = reduced.bounds, clock.stop_at(clock.elapsed() + CUTTING * clock.left())
    tight = cut_tighten(small, stop=stop, hands=question.hands)
    question.bounds = tighten(question.bounds, reduced.lifted(tight))
    question.hidden_cut = True
    optimize_conditions(Search(iterations=30))(question)


def tighten_progressively(question: Question) -> None:
    """Cuts and trees for unstable units, layer by layer; then the open conditions."""
    clock = question.clock
    question.note(WHY)
    _tighten_layers(question, clock.elapsed() + PROGRESSIVE * clock.left(), DOUBTS[0])
    question.hidden_cut = True


def tighten_harder(question: Question) -> None:
    """The same again and then for all units, as long as that settles signs."""
    clock, question.tightened_harder = question.clock, True
    question.note(WHY)
    end = clock.elapsed() + PROGRESSIVE * clock.left()
    for doubt in DOUBTS:
        settled = 1.0
        while settled >= SETTLED and clock.elapsed() < end and not question.decided():
            settled = _tighten_layers(question, end, doubt)


def _tighten_layers(question: Question, end: float, doubt: float) -> float:
    """One pass over all layers until the clock shows `end`; the share of the unstable units that it has settled."""
    from mipverify.solvers.branch_and_bound import Effort, progressive_tighten

    assert question.bounds is not None
    before = int(question.bounds.unstable_counts().sum())
    stop, (low, high) = question.clock.stop_at(end), question.float_box

    def met(network: Network, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return signs_met(network, low, high, units, stop, question.project)

    tight = progressive_tighten(question.bounds, Effort(doubt=doubt), met, stop, question.hands)
    # Where time was up, layers that were not reached gain by what is known of those before.
    question.bounds = crown(tight, question.clock.over)
    optimize_conditions(Search(iterations=30))(question)
    after = int(question.bounds.unstable_counts().sum())
    question.report("hidden", f"{after} of {before} units are unstable still, bound {question.lower.min():.4g}")
    return 1 - after / max(1, before)
