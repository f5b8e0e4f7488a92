"""The ledger of case distinctions: whatever a search tells it, or keeps from it, what it hands out is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.proof.backward import NOTHING, Evidence, propagate_backward, row_minimum
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.cases import PhaseCases, Splits
from mipverify.proof.clipping import by_contradiction, confine
from mipverify.proof.facts import Assumption, RowBounds
from mipverify.proof.interval import interval_inside
from mipverify.proof.rows import unit_rows
from tests.branch_and_bound.test_node_bounds import node_of
from tests.branch_and_bound.test_search import after, margins_of
from tests.soundness.exact import Question, random_question
from tests.soundness.nets import dense

# Outputs: 2 relu(x) - relu(x + 2) + 3/2, which is |x| - 1/2 from -2 on, and its negative.
NETWORK = dense([([[1.0], [1.0]], [0.0, 2.0]), ([[2.0, -1.0], [-2.0, 1.0]], [1.5, -1.5])])
RELU, OUTPUT = 2, 3
ON, OFF = ((RELU, 0, 1),), ((RELU, 0, -1),)


def bounds_of(low: float = -1.0, high: float = 1.0) -> Bounds:
    return crown(interval(NETWORK, np.array([[low]]), np.array([[high]])))


def fact_of(
    bounds: Bounds, units: Sequence[int] = (0,), factor: float = 1.0, evidence: Evidence = NOTHING
) -> RowBounds:
    """Lower bounds of some outputs times a factor, one for each entry, or all of the only one."""
    rows = unit_rows(NETWORK, OUTPUT, np.array(units), None, bounds.like)
    return row_minimum(bounds, rows.scaled(np.full(len(units), factor)), evidence)


def halves_of(bounds: Bounds) -> RowBounds:
    """The first output where its unit is active, and where it is not: at least -1/2, by the multipliers of that."""
    return fact_of(under(bounds, ON, OFF), (0, 0), evidence=Evidence({}, {RELU: np.array([[1.0, 0.0], [-1.0, 0.0]])}))


def cases_of(bounds: Bounds) -> PhaseCases:
    return PhaseCases(bounds, fact_of(bounds, (0, 1)).claim)


def under(bounds: Bounds, *splits: Splits) -> Bounds:
    return assume(bounds, [Assumption(own) for own in splits], [None] * len(splits))


def test_a_goal_that_is_not_closed_keeps_its_bound() -> None:
    bounds = bounds_of()
    cases = cases_of(bounds)
    assert (cases.proven().lower == -np.inf).all()
    whole = fact_of(bounds, (0, 1))
    for row in (0, 1):
        cases.learn(whole, row, row)
    np.testing.assert_array_equal(cases.proven().lower, whole.lower)
    cases.split(0, (), RELU, 0)
    halves = halves_of(bounds)
    assert (halves.lower > whole.lower[0]).all()
    assert (halves.lower <= -0.5).all()
    cases.learn(halves, 0, 0)
    cases.close(0, ON)
    # The other half has what its parent had.
    assert cases.lower(0, OFF) == cases.proven().lower[0] == whole.lower[0]
    cases.learn(halves, 1, 0)
    np.testing.assert_array_equal(cases.proven().lower, [halves.lower.min(), whole.lower[1]])
    cases.close(0, OFF)
    np.testing.assert_array_equal(cases.proven().lower, [halves.lower.min(), whole.lower[1]])


def test_a_case_that_is_closed_without_a_fact_proves_nothing() -> None:
    bounds = bounds_of()
    cases = cases_of(bounds)
    cases.split(0, (), RELU, 0)
    cases.learn(halves_of(bounds), 0, 0)
    cases.close(0, ON)
    cases.close(0, OFF)
    assert cases.proven().lower[0] == -np.inf


def test_a_later_fact_that_says_less_is_no_loss() -> None:
    bounds = bounds_of()
    cases = cases_of(bounds)
    cases.learn(fact_of(bounds), 0, 0)
    before = cases.proven().lower[0]
    assert np.isfinite(before)
    with np.errstate(over="ignore", invalid="ignore"):
        for size in (1e3, np.inf, np.nan):
            weak = fact_of(bounds, evidence=Evidence({}, {RELU: np.full((1, 2), size)}))
            assert weak.lower[0] < before
            cases.learn(weak, 0, 0)
            assert cases.proven().lower[0] == before


REFUSED: dict[str, Callable[[Bounds], RowBounds]] = {
    "another row": lambda bounds: fact_of(bounds, (1,)),
    "a multiple of the row": lambda bounds: fact_of(bounds, factor=2.0),
    "the negative row": lambda bounds: fact_of(bounds, factor=-1.0),
    "another node": lambda bounds: row_minimum(bounds, unit_rows(NETWORK, RELU, np.zeros(1, int), None, bounds.like)),
    "another input set": lambda _: fact_of(bounds_of()),
    "a smaller input set": lambda _: fact_of(bounds_of(0.75, 1.0)),
    "a part of the input set": lambda bounds: fact_of(crown(part_of(bounds))),
    "a case of a part of the input set": lambda bounds: fact_of(under(part_of(bounds), ())),
    "a clipped part of the input set": lambda bounds: confined(part_of(bounds), 0, 1.0),
    "inputs at which another row is low": lambda bounds: confined(bounds, 1, -0.25),
}


def part_of(bounds: Bounds) -> Bounds:
    return interval_inside(bounds, np.array([[0.75]]), np.array([[1.0]]))


def confined(bounds: Bounds, unit: int, level: float) -> RowBounds:
    """That nothing is known of the first output where some output is at most a level, but that it is an output."""
    rows = unit_rows(NETWORK, OUTPUT, np.array([unit]), None, bounds.like)
    inner, _ = confine(bounds, propagate_backward(bounds, rows), level, [])
    return fact_of(inner)


@pytest.mark.parametrize("about", REFUSED)
def test_a_fact_about_something_else_is_refused(about: str) -> None:
    bounds = bounds_of()
    cases, fact = cases_of(bounds), REFUSED[about](bounds)
    with pytest.raises(ValueError, match="the fact is about"):
        cases.learn(fact, 0, 0)
    assert (cases.proven().lower == -np.inf).all()


def test_a_fact_under_other_assumptions_is_refused() -> None:
    bounds = bounds_of()
    cases = cases_of(bounds)
    for splits in (ON, (*ON, (RELU, 1, -1)), ((RELU, 1, 1),)):
        with pytest.raises(KeyError):
            cases.learn(fact_of(under(bounds, splits)), 0, 0)
    cases.split(0, (), RELU, 0)
    for fact in (fact_of(bounds), fact_of(under(bounds, (*ON, (RELU, 1, -1)))), fact_of(under(bounds, ()))):
        with pytest.raises(KeyError):
            cases.learn(fact, 0, 0)
    # What is known of one case is not known of the other.
    cases.learn(halves_of(bounds), 1, 0)
    assert cases.lower(0, ON) == -np.inf
    assert cases.proven().lower[0] == -np.inf


def test_what_is_known_of_one_entry_of_a_batch_is_not_known_of_another() -> None:
    bounds = bounds_of()
    cases, inner = cases_of(bounds), under(bounds, ON, ())
    rows = unit_rows(NETWORK, OUTPUT, np.zeros(2, int), np.zeros(2, int), bounds.like)
    fact = row_minimum(inner, rows)  # both are about the first entry
    for place in (0, 1):
        with pytest.raises((KeyError, ValueError)):
            cases.learn(fact, place, 0)
    assert cases.proven().lower[0] == -np.inf


def test_goals_that_are_not_open_are_refused() -> None:
    bounds = bounds_of()
    cases = cases_of(bounds)
    cases.split(0, (), RELU, 0)
    cases.close(0, ON)
    for work in (
        lambda: cases.split(0, (), RELU, 0),
        lambda: cases.split(0, ON, RELU, 1),
        lambda: cases.close(0, ()),
        lambda: cases.close(0, ON),
        lambda: cases.close(2, ()),
        lambda: cases.learn(fact_of(under(bounds, ON)), 0, 0),
        lambda: cases.lower(0, ON),
    ):
        with pytest.raises(LookupError):
            work()
    assert cases.lower(0, OFF) == -np.inf


def test_above_its_ceiling_nothing_is_known_of_a_row() -> None:
    bounds = bounds_of()
    for level in (-0.75, -0.25):
        cases = cases_of(bounds)
        cases.learn(confined(bounds, 0, level), 0, 0)
        assert cases.proven().lower[0] == min(level, fact_of(bounds).lower[0])
    # Where bounds exclude each other, no input is left at which the row is so low: it is above that, and no more.
    cases, level = cases_of(bounds), -0.625
    rows = unit_rows(NETWORK, OUTPUT, np.zeros(1, int), None, bounds.like)
    bounder = PhaseBounder(bounds, rows)
    clipped = root(0)
    for _ in range(3):
        (clipped,) = DomainClipping(NETWORK, level).clip(*bounder.solve([clipped]))
    empty = by_contradiction(assume(bounds, [clipped.assumption], [clipped.entry]), rows.claim)
    assert empty.lower[0] == np.inf
    cases.learn(empty, 0, 0)
    assert cases.proven().lower[0] == level


def test_nothing_is_claimed_of_rows_that_were_forgotten() -> None:
    bounds = bounds_of()
    cases, whole = cases_of(bounds), fact_of(bounds, (0, 1))
    for row in (0, 1):
        cases.learn(whole, row, row)
    cases.split(0, (), RELU, 0)
    cases.close(0, ON)
    cases.forget({0})
    np.testing.assert_array_equal(cases.proven().lower, [-np.inf, whole.lower[1]])
    with pytest.raises(KeyError):
        cases.close(0, OFF)


def test_cases_are_told_apart_within_one_input_set_alone() -> None:
    bounds = bounds_of()
    claim = fact_of(bounds).claim
    two = interval(NETWORK, np.array([[-1.0], [0.0]]), np.array([[0.0], [1.0]]))
    for other in (two, under(bounds, ON), under(bounds, ())):
        with pytest.raises(ValueError, match="one input set"):
            PhaseCases(other, claim)


def single_rows(rng: np.random.Generator) -> tuple[Question, Fraction]:
    """A question of one row, and its exact least margin."""
    while True:
        question = random_question(rng)
        question.conditions = [[question.conditions[0][0]]]
        margin = question.smallest_margin()
        assert margin is not None
        if margins_of(question).network.relus and crown(margins_of(question)).unstable_counts().sum():
            return question, margin


def test_the_proven_bound_is_the_least_of_all_leaves_and_holds() -> None:
    rng = np.random.default_rng(51)
    raised = 0
    for _ in range(90):
        question, margin = single_rows(rng)
        bounds = crown(margins_of(question))
        network = bounds.network
        rows = unit_rows(network, network.output, np.zeros(1, int), None, bounds.like)
        units = [(r, u) for r in network.relus for u in range(int(np.prod(network.nodes[r].shape)))]
        cases = PhaseCases(bounds, rows.claim)
        bounder = PhaseBounder(bounds, rows, Search(iterations=10))
        cases.learn(bounder.solve([root(0)])[1].bound, 0, 0)
        first = float(cases.proven().lower[0])
        leaves = {(): first}
        for _ in range(int(rng.integers(1, 12))):
            splits = list(leaves)[int(rng.integers(len(leaves)))]
            relu, unit = units[int(rng.integers(len(units)))]
            cases.split(0, splits, relu, unit)
            known = leaves.pop(splits)
            children = [(*splits, (relu, unit, sign)) for sign in (1, -1)]
            fact = bounder.solve([node_of(0, own) for own in children])[1].bound
            for place, own in enumerate(children):
                told = rng.random() < 0.8
                if told:
                    cases.learn(fact, place, 0)
                leaves[own] = max(known, float(fact.lower[place])) if told else known
                assert cases.lower(0, own) == leaves[own]
        for splits in leaves:
            if rng.random() < 0.5:
                cases.close(0, splits)
        assert cases.proven().lower[0] == min(leaves.values())
        assert Fraction(float(cases.proven().lower[0])) <= margin
        raised += min(leaves.values()) > first
    assert raised > 10, "cases that raise no bound would show no fault"


class Liar(PhaseBounder):
    """Bounds nodes as it should, and says something else."""

    lie = ""

    def raise_bounds(
        self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], np.ndarray]:
        solved, points = super().raise_bounds(nodes, stop)
        if self.lie == "all are closed":
            solved = [replace(node, lower=1.0) for node in solved]
        if self.lie == "all are closed without a fact":
            solved = [replace(node, lower=1.0, fact=None) for node in solved]
        if self.lie == "facts of others":
            facts = [(node.fact, node.place) for node in solved[::-1]]
            solved = [replace(n, fact=f, place=p, lower=1.0) for n, (f, p) in zip(solved, facts, strict=True)]
        return solved, points

    def split(self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None) -> list[tuple[Node, Node] | None]:
        pairs = super().split(nodes, stop)
        if self.lie == "one case twice":
            return [None if pair is None else (pair[0], pair[0]) for pair in pairs]
        if self.lie == "a case of another unit":
            relu = self.network.relus[0]
            other = [None if p is None else (*p[1].splits[:-1], (relu, 0, -p[1].splits[-1][2])) for p in pairs]
            return [
                None if p is None else (p[0], replace(p[1], assumption=Assumption(own)))
                for p, own in zip(pairs, other, strict=True)
            ]
        return pairs


@pytest.mark.parametrize(
    "lie",
    [
        "",
        "all are closed",
        "all are closed without a fact",
        "facts of others",
        "one case twice",
        "a case of another unit",
    ],
)
def test_a_search_that_lies_proves_nothing_that_is_wrong(lie: str) -> None:
    rng = np.random.default_rng(52)
    ended, tight = 0, 0
    for _ in range(25):
        question, margin = single_rows(rng)
        bounds = crown(margins_of(question))
        rows = unit_rows(bounds.network, bounds.network.output, np.zeros(1, int), None, bounds.like)
        bounder = Liar(bounds, rows, Search(iterations=10))
        bounder.lie = lie
        search = PhaseSearch(bounder, [root(0)], batch=8)
        try:
            search.run(after(300))
            ended += 1
        except (KeyError, ValueError):
            assert lie
        proven = float(search.cases.proven().lower[0])
        assert proven == -np.inf or Fraction(proven) <= margin
        tight += proven > float(margin) - 0.1 * (1 + abs(float(margin)))
    assert tight > 10 or "fact" in lie
    assert ended == 25 or lie
