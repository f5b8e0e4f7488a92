"""What every branching rule must do, whoever wrote it: choose what is open, and lead to the exact answer."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import Search, crown
from mipverify.solvers.branch_and_bound.boxes import search_boxes
from mipverify.solvers.branch_and_bound.branching.rule import BOX, CROWN, RULES, SEMIDEFINITE, rule
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import Bounder, Outcome, PhaseSearch
from mipverify.solvers.branch_and_bound.semidefinite import SemidefiniteBounder
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.formulation import condition_parts
from mipverify.proof.bounds import assume
from mipverify.proof.facts import Claim
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.proof.semidefinite import SingleLayer
from tests.branch_and_bound.test_search import Answer, after, check, margins_of
from tests.branch_and_bound.test_semidefinite import shallow_question
from tests.soundness.exact import Question, random_question


def phase_start(question: Question, name: str) -> tuple[Bounder[Node], list[Node]]:
    bounds, count = crown(margins_of(question)), len(question.conditions)
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(count), None, bounds.like)
    return PhaseBounder(bounds, rows, Search(iterations=30), branching=name), [root(c) for c in range(count)]


def by_rule(question: Question, name: str) -> Outcome | Answer | None:
    """What a search with a rule comes to; None where its bounder has nothing to do."""
    if RULES[name].bounder == CROWN:
        return PhaseSearch(*phase_start(question, name)).run(after(600))
    if RULES[name].bounder == SEMIDEFINITE:
        single_layer = SingleLayer.of(reduce(crown(margins_of(question))).bounds)
        if single_layer is None:
            return None
        bounder = SemidefiniteBounder(single_layer, (2,), name)
        return PhaseSearch(bounder, [bounder.start(c) for c in range(len(question.conditions))]).run(after(2000))
    assert RULES[name].bounder == BOX
    bounds, case = margins_of(question), question.specification().cases[0]
    parts = condition_parts(question.network(), case.conditions)
    claims = [Claim(node, np.array([units]), np.ones(1)) for node, units in parts]
    found = search_boxes(bounds, claims, stop=after(25), batch=32, branching=name)
    lower = {c: float(fact.lower[0]) for c, fact in enumerate(found.bounds)}
    return Answer(found.closed, lower, found.boxes, found.witness, found.reason)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_leads_to_the_exact_answer(name: str) -> None:
    rng = np.random.default_rng(41)
    closed = holding = split = 0
    for _ in range(30):
        question = shallow_question(rng) if RULES[name].bounder == SEMIDEFINITE else random_question(rng)
        outcome = by_rule(question, name)
        if outcome is None:
            continue
        check(question, outcome)
        closed += outcome.closed
        holding += not question.violated()
        split += outcome.nodes > len(question.conditions)
    assert split >= 3
    assert closed >= 0.6 * holding, "a rule that leads nowhere is of no use"


@pytest.mark.parametrize("name", [name for name, known in RULES.items() if known.bounder == CROWN])
def test_a_rule_chooses_units_that_are_unstable_in_their_node(name: str) -> None:
    rng = np.random.default_rng(42)
    chosen = 0
    for _ in range(12):
        bounder, level = phase_start(random_question(rng), name)
        for _ in range(4):
            level, _ = bounder.raise_bounds(level)
            pairs = bounder.split(level)
            for node, pair in zip(level, pairs, strict=True):
                inner = assume(bounder.root, [node.assumption], [node.entry])
                unstable = {relu: np.asarray(inner.unstable(relu)).reshape(-1) for relu in inner.network.relus}
                if pair is None:
                    assert not any(own.any() for own in unstable.values())
                    continue
                (relu, unit, active), inactive = pair[0].splits[-1], pair[1].splits[-1]
                assert (active, inactive) == (1, (relu, unit, -1))
                assert pair[0].splits[:-1] == pair[1].splits[:-1] == node.splits
                assert unstable[relu][unit]
                chosen += 1
            level = [child for pair in pairs if pair is not None for child in pair]
            if not level:
                break
    assert chosen > 20


def test_a_rule_is_asked_for_by_a_name_that_its_bounder_knows() -> None:
    with pytest.raises(ValueError, match=r"no branching rule for the bounder 'crown', which has: .*filtered"):
        rule("influence", CROWN)
    with pytest.raises(ValueError, match="tallest"):
        rule("tallest", BOX)
