"""Each search by itself against exact enumeration, and what may follow from a search that was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval
from mipverify.solvers import lp_session
from mipverify.solvers.branch_and_bound.boxes import search_boxes
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.program_bounder import ProgramBounder
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.search import Outcome, PhaseSearch
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.formulation import condition_parts
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Claim
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.presolve import nets
from tests.soundness.exact import Question, random_question
from tests.soundness.nets import raised

Stop = Callable[[], bool]
TryPoints = Callable[[np.ndarray], object | None]


@dataclass(frozen=True)
class Answer:
    """What a search on boxes comes to, in the words of an `Outcome`."""

    closed: bool
    lower: dict[int, float]
    nodes: int
    witness: object | None
    reason: str


def after(polls: int) -> Stop:
    """True from that poll on: the same work whatever the machine is doing."""
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def margins_of(question: Question) -> Bounds:
    """Interval bounds of the margins of a question."""
    case = question.specification().cases[0]
    return interval(margin_network(question.network(), case.conditions), case.box.lower[None], case.box.upper[None])


def phases_of(question: Question, ceiling: float | None = None, **options: Any) -> PhaseSearch:
    bounds = crown(margins_of(question))
    network, count = bounds.network, len(question.conditions)
    rows = unit_rows(network, network.output, np.arange(count), None, bounds.like)
    clipping = None if ceiling is None else DomainClipping(network, ceiling)
    bounder = PhaseBounder(bounds, rows, Search(iterations=30), clipping=clipping)
    return PhaseSearch(bounder, [root(c) for c in range(count)], **options)


def by_phases(
    question: Question, rounds: int, try_points: TryPoints = lambda points: None, ceiling: float | None = None
) -> Outcome:
    # The bounder asks whether to stop after every step of its ascent.
    return phases_of(question, ceiling, try_points=try_points).run(after(30 * rounds))


def by_clipped_phases(question: Question, rounds: int, try_points: TryPoints = lambda points: None) -> Outcome:
    return by_phases(question, 3 * rounds, try_points, ceiling=1e-3)


def by_programs(question: Question, rounds: int, try_points: TryPoints = lambda points: None) -> Outcome:
    """On the reduced network, with a linear program for every node that its ascent leaves open."""
    bounds, count = reduce(crown(margins_of(question))).bounds, len(question.conditions)
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(count), None, bounds.like)
    programs = NodePrograms.of(bounds.network, rows, lp_session)
    assert (programs is not None) == bool(bounds.network.relus)
    clipping = DomainClipping(bounds.network, 1e-3)
    bounder = PhaseBounder(
        bounds, rows, Search(iterations=2), patient=None, clipping=clipping, programs=programs, stuck=0
    )
    return PhaseSearch(bounder, [root(c) for c in range(count)], try_points=try_points).run(after(5 * rounds))


def by_exact_programs(question: Question, rounds: int, try_points: TryPoints = lambda points: None) -> Outcome:
    """On the reduced network, with linear programs alone."""
    bounds, count = reduce(crown(margins_of(question))).bounds, len(question.conditions)
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(count), None, bounds.like)
    programs = NodePrograms.of(bounds.network, rows, lp_session)
    if programs is None:
        return by_programs(question, rounds, try_points)
    bounder = ProgramBounder(bounds, programs)
    return PhaseSearch(bounder, [root(c) for c in range(count)], try_points=try_points).run(after(5 * rounds))


def by_boxes(question: Question, rounds: int, try_points: TryPoints = lambda points: None) -> Answer:
    parts = condition_parts(question.network(), question.specification().cases[0].conditions)
    return searched(question, parts, rounds, try_points)


def by_boxes_without_parts(question: Question, rounds: int, try_points: TryPoints = lambda points: None) -> Answer:
    output = margins_of(question).network.output
    return searched(question, [(output, [c]) for c in range(len(question.conditions))], rounds, try_points)


def searched(
    question: Question,
    parts: list[tuple[int, list[int]]],
    rounds: int,
    try_points: TryPoints = lambda points: None,
    **options: Any,
) -> Answer:
    """What the search on boxes says of conditions that are the largest of some units of a node each."""
    bounds = margins_of(question)
    claims = [Claim(node, np.array([units]), np.ones(1)) for node, units in parts]
    found = search_boxes(bounds, claims, try_points=try_points, stop=after(rounds), batch=32, **options)
    assert [fact.claim for fact in found.bounds] == claims
    assert all(fact.scope is bounds.scope for fact in found.bounds), "of the whole box"
    lower = {c: float(fact.lower[0]) for c, fact in enumerate(found.bounds)}
    return Answer(found.closed, lower, found.boxes, found.witness, found.reason)


SEARCHES = [by_phases, by_clipped_phases, by_programs, by_exact_programs, by_boxes, by_boxes_without_parts]


def smallest_margins(question: Question) -> list[Fraction | None]:
    """By condition, if it is a single row: the exact minimum."""
    singles = []
    for rows in question.conditions:
        alone = Question(question.layers, question.box, [rows])
        singles.append(alone.smallest_margin() if len(rows) == 1 else None)
    return singles


def check(question: Question, outcome: Outcome | Answer) -> None:
    """Nothing that an outcome claims may contradict the exact answer."""
    if outcome.closed:
        assert not question.violated(), question
        assert all(lower > 0 for lower in outcome.lower.values())
    else:
        assert outcome.reason
    for condition, margin in enumerate(smallest_margins(question)):
        if margin is not None and np.isfinite(outcome.lower[condition]):
            assert Fraction(outcome.lower[condition]) <= margin
        alone = Question(question.layers, question.box, [question.conditions[condition]])
        if outcome.lower[condition] > 0:
            assert not alone.violated(), question


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_alone_agrees_with_exact_enumeration(search: Callable[[Question, int], Outcome | Answer]) -> None:
    rng = np.random.default_rng(17)
    closed = holding = 0
    for _ in range(16):
        question = random_question(rng)
        outcome = search(question, 15)
        check(question, outcome)
        closed += outcome.closed
        holding += not question.violated()
    assert closed >= 0.7 * holding, "a search that closes nothing is of no use"


@pytest.mark.parametrize("search", SEARCHES)
def test_questions_whose_answer_hangs_on_one_corner(search: Callable[[Question, int], Outcome | Answer]) -> None:
    rng = np.random.default_rng(16)
    closed = 0
    for k in range(20):
        question = random_question(rng)
        question.conditions = [[question.conditions[0][0]]]
        ((row, offset),) = question.conditions[0]
        margin = question.smallest_margin()
        assert margin is not None
        # The smallest margin becomes -1/64 or 1/64, at one corner of one of the linear pieces, most often.
        question.conditions = [[(row, offset + margin - Fraction((-1) ** k, 64))]]
        assert question.violated() == (k % 2 == 1)
        outcome = search(question, 25)
        check(question, outcome)
        closed += outcome.closed
    assert closed >= 7


@pytest.mark.parametrize("search", SEARCHES)
def test_a_stopped_search_proves_nothing_that_is_wrong(search: Callable[[Question, int], Outcome | Answer]) -> None:
    rng = np.random.default_rng(18)
    for _ in range(8):
        question = random_question(rng)
        for polls in (0, 1, 3):
            outcome = search(question, polls)
            check(question, outcome)
            if polls == 0:
                assert not outcome.closed
                assert not any(lower > 0 for lower in outcome.lower.values())


@pytest.mark.parametrize("search", SEARCHES)
def test_an_accepted_point_ends_the_search(search: Callable[[Question, int, TryPoints], Outcome | Answer]) -> None:
    rng = np.random.default_rng(19)
    seen = 0
    for _ in range(40):
        question = random_question(rng)
        if not question.violated():
            continue
        shown: list[np.ndarray] = []

        def accept(points: np.ndarray, shown: list[np.ndarray] = shown) -> str | None:
            shown.append(points.reshape(len(points), 2))
            return "found" if len(points) else None

        outcome = search(question, 15, accept)
        assert (outcome.closed, outcome.witness) == (False, "found")
        low, high = (np.array([float(side[k]) for side in question.box]) for k in (0, 1))
        assert all(((points >= low) & (points <= high)).all() for points in shown)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize("search", SEARCHES)
def test_a_pinned_coordinate_and_a_point_are_boxes_too(search: Callable[[Question, int], Outcome | Answer]) -> None:
    rng = np.random.default_rng(20)
    closed = holding = 0
    for k in range(16):
        question = random_question(rng)
        (x0, x1), (y0, y1) = question.box
        question.box = [(x0, x0), (y0, y1)] if k % 3 == 0 else [(x0, x1), (y1, y1)] if k % 3 == 1 else [(x1, x1)] * 2
        if k % 3 == 2:
            question.box[1] = (y0, y0)
        outcome = search(question, 15)
        check(question, outcome)
        closed += outcome.closed
        holding += not question.violated()
    assert closed >= 0.8 * holding


def test_a_search_that_was_stopped_goes_on_to_the_same_end() -> None:
    rng = np.random.default_rng(23)
    resumed = 0
    for _ in range(20):
        question = random_question(rng)
        at_once = phases_of(question).run(after(3000))
        search, told = phases_of(question, batch=2), [-np.inf] * len(at_once.lower)
        for turn in range(500):
            outcome, turns = search.run(after(20)), turn
            check(question, outcome)
            assert all(outcome.lower[c] >= told[c] for c in outcome.lower)
            told = [outcome.lower[c] for c in sorted(outcome.lower)]
            if outcome.reason != "time":
                break
        assert (outcome.closed, outcome.reason) == (at_once.closed, at_once.reason)
        resumed += turns > 1
    assert resumed > 3


def test_nothing_is_told_of_conditions_that_a_search_forgot() -> None:
    rng = np.random.default_rng(25)
    network = nets.dense(rng, (5, 14, 14, 3))
    lower, upper = np.full(5, -0.6), np.full(5, 0.6)
    points = nets.points(rng, lower[None], upper[None], 4000)[:, 0]
    least = network.forward(points).reshape(4000, -1).min(axis=0)
    network = raised(network, np.array([-1.0, 0.3, 0.3]) - least)  # the first one is violated
    least = network.forward(points).reshape(4000, -1).min(axis=0)
    bounds = crown(interval(network, lower[None], upper[None]))
    rows = unit_rows(network, network.output, np.arange(3), None, lower)
    told: list[tuple[set[int], float, np.ndarray]] = []
    search = PhaseSearch(
        PhaseBounder(bounds, rows),
        [root(c) for c in range(3)],
        batch=4,
        progress=lambda search: told.append(
            (set(search.conditions), search.store.lowest(), search.cases.proven().lower)
        ),
    )
    search.run(after(60))
    assert told
    for conditions, bound, proven in told:
        assert conditions == {0, 1, 2}
        assert bound == proven.min() <= least.min()
        assert (proven <= least).all()
    told.clear()
    search.forget({0})
    assert set(search.lowest()) == {1, 2}
    outcome = search.run(after(20_000))
    assert told
    for conditions, bound, proven in told:
        assert conditions == {1, 2}
        assert proven[0] == -np.inf
        assert bound == proven[1:].min()
        assert (proven <= least).all()
    assert outcome.closed
    assert set(outcome.lower) == {1, 2}
    assert all(0 < outcome.lower[c] <= least[c] for c in (1, 2))
    assert outcome.bound.lower[0] == -np.inf


def test_a_search_by_phases_without_memory_goes_into_depth_and_comes_to_the_same_end() -> None:
    rng = np.random.default_rng(25)
    network = nets.dense(rng, (5, 14, 14, 3))
    lower, upper = np.full(5, -0.6), np.full(5, 0.6)
    points = nets.points(rng, lower[None], upper[None], 4000)[:, 0]
    network = raised(network, 0.3 - network.forward(points).reshape(4000, -1).min(axis=0))
    bounds = crown(interval(network, lower[None], upper[None]))
    rows = unit_rows(network, network.output, np.arange(3), None, lower)

    def most_open(most_bytes: int) -> int:
        sizes: list[int] = []
        roots = [root(c) for c in range(3)]
        search = PhaseSearch(PhaseBounder(bounds, rows), roots, batch=2, progress=lambda s: sizes.append(len(s.store)))
        outcome = search.run(most_bytes=most_bytes)
        assert outcome.closed
        assert outcome.nodes > 60
        assert all(0 < bound <= 0.3 + 1e-9 for bound in outcome.lower.values())
        return max(sizes)

    assert 2 * most_open(0) < most_open(2**30)


def test_boxes_without_inherited_bounds_come_to_the_same_end() -> None:
    rng = np.random.default_rng(22)
    questions = [random_question(rng) for _ in range(6)]
    with_bounds = [by_boxes(question, 25).closed for question in questions]
    for question, closed in zip(questions, with_bounds, strict=True):
        parts = condition_parts(question.network(), question.specification().cases[0].conditions)
        outcome = searched(question, parts, 25, most_inherited=-1)
        check(question, outcome)
        assert outcome.closed >= closed


@pytest.mark.parametrize("search", SEARCHES)
def test_conditions_that_are_asked_twice_are_answered_once_each(
    search: Callable[[Question, int], Outcome | Answer],
) -> None:
    rng = np.random.default_rng(23)
    for _ in range(5):
        question = random_question(rng)
        once = search(question, 15)
        question.conditions = [c for condition in question.conditions for c in (condition, condition)]
        twice = search(question, 25)
        check(question, twice)
        assert twice.closed == once.closed


@pytest.mark.parametrize("search", SEARCHES)
def test_a_network_without_a_relu_needs_no_search(search: Callable[[Question, int], Outcome | Answer]) -> None:
    rng = np.random.default_rng(24)
    for _ in range(15):
        question = random_question(rng)
        last = question.layers[-1]
        last.weight = [[*row, Fraction(0)][:2] for row in last.weight]
        question.layers = [last]
        question.conditions = [[rows[0]] for rows in question.conditions]
        outcome = search(question, 15)
        check(question, outcome)
        margins = [m for m in smallest_margins(question) if m is not None]
        if min(margins) > 0:
            assert outcome.closed
            assert outcome.nodes == len(margins) or search is not by_phases
        assert isinstance(question.network(), Network)
