"""Branching with semidefinite bounds against exact enumeration and sampled points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.solvers.branch_and_bound.search import Outcome, PhaseSearch
from mipverify.solvers.branch_and_bound.semidefinite import SemidefiniteBounder, SemidefiniteNode

from mipverify.engine import verify
from mipverify.network import Network
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.facts import Assumption
from mipverify.proof.reduction import reduce
from mipverify.proof.semidefinite import SingleLayer
from tests.branch_and_bound.test_search import after, check, margins_of
from tests.presolve import nets
from tests.soundness.exact import Question, random_question
from tests.soundness.nets import dense, lowest_sampled, question, raised, random_layers


def shallow_question(rng: np.random.Generator) -> Question:
    """With one hidden layer, and conditions of one row."""
    while True:
        found = random_question(rng)
        found.conditions = [[rows[0]] for rows in found.conditions]
        if len(found.layers) == 2:
            return found


def by_signs(asked: Question, polls: int) -> Outcome | None:
    search = search_of(asked)
    return None if search is None else search.run(after(polls))


def search_of(asked: Question) -> PhaseSearch | None:
    single_layer = SingleLayer.of(reduce(crown(margins_of(asked))).bounds)
    if single_layer is None:  # nothing is unstable
        return None
    bounder = SemidefiniteBounder(single_layer, (2,))
    return PhaseSearch(bounder, [bounder.start(c) for c in range(len(asked.conditions))], batch=2)


def test_it_agrees_with_exact_enumeration() -> None:
    rng = np.random.default_rng(31)
    closed = holding = seen = 0
    for _ in range(40):
        asked = shallow_question(rng)
        outcome = by_signs(asked, 2000)
        if outcome is None:
            continue
        check(asked, outcome)
        seen += 1
        closed += outcome.closed
        holding += not asked.violated()
    assert seen > 20
    assert closed >= 0.6 * holding  # margins of zero and below 1e-3 are among them


def test_a_stopped_search_proves_nothing_that_is_wrong() -> None:
    rng = np.random.default_rng(32)
    for _ in range(10):
        asked = shallow_question(rng)
        for polls in (0, 1, 5, 30):
            outcome = by_signs(asked, polls)
            if outcome is not None:
                check(asked, outcome)


@pytest.mark.parametrize("seed", range(5))
def test_a_search_that_was_stopped_goes_on_to_the_same_end(seed: int) -> None:
    (whole, least), (stopped, _) = positive_search(seed), positive_search(seed)
    outcome = whole.run()
    assert outcome.closed
    assert whole.nodes > 1
    assert 0 < outcome.lower[0] <= least
    turns = 0
    while (outcome := stopped.run(after(2 if turns == 0 else 40))).reason == "time":
        turns += 1
        assert outcome.lower[0] <= 0
    assert outcome.closed
    assert 0 < outcome.lower[0] <= least
    assert turns > 1


def positive_search(seed: int) -> tuple[PhaseSearch, float]:
    """For a row that is positive, but not by much; the least value that sampling finds."""
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (8, 24, 1))
    lower, upper = np.full(8, -0.5), np.full(8, 0.5)
    row = lowest_sampled(network, lower, upper, [1.0])
    least = 0.01 * (1 + abs(row))
    single_layer = SingleLayer.of(within(raised(network, least - row), lower, upper))
    assert single_layer is not None
    bounder = SemidefiniteBounder(single_layer, (8,))
    return PhaseSearch(bounder, [bounder.start(0)], batch=2), least


def within(network: Network, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    """Bounds of the reduced network over a box."""
    return reduce(crown(interval(network, lower[None], upper[None]))).bounds


def least_inside(points: np.ndarray, values: np.ndarray, single_layer: SingleLayer, node: SemidefiniteNode) -> float:
    z = points @ single_layer.weights.T + single_layer.bias
    inside = np.ones(len(points), bool)
    for relu, unit, sign in node.splits:
        assert relu == single_layer.relu
        inside &= sign * z[:, single_layer.units.tolist().index(unit)] >= 0
    return float(values[inside, node.condition].min()) if inside.any() else np.inf


@pytest.mark.parametrize("seed", range(6))
def test_no_node_is_bounded_above_the_best_point_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (5, 16, 2))
    lower, upper = np.full(5, -0.7), np.full(5, 0.7)
    single_layer = SingleLayer.of(within(network, lower, upper))
    assert single_layer is not None
    points = nets.points(rng, lower[None], upper[None], 20000)[:, 0]
    values = network.forward(points)
    bounder = SemidefiniteBounder(single_layer, (5,))
    level: Sequence[SemidefiniteNode] = [bounder.start(0), bounder.start(1)]
    checked = 0
    for _ in range(5):
        level, minimizers = bounder.raise_bounds(level)
        assert minimizers.shape == (len(level), 5)
        for node in level:
            least = least_inside(points, values, single_layer, node)
            assert node.lower <= least
            checked += np.isfinite(least)
        level = [child for pair in bounder.split(level) if pair is not None for child in pair]
    assert checked > 20


def test_it_starts_where_nothing_is_assumed() -> None:
    network = nets.dense(np.random.default_rng(0), (5, 16, 2))
    bounds = within(network, np.full(5, -0.7), np.full(5, 0.7))
    relu = bounds.network.relus[0]
    with pytest.raises(ValueError, match="nothing is assumed"):
        SingleLayer.of(assume(bounds, [Assumption(((relu, 0, -1),))], [None]))


def test_a_question_is_decided_by_it_and_says_so() -> None:
    rng = np.random.default_rng(12)
    layers = random_layers(rng, (40, 60, 3))
    network = dense(layers)
    lower, upper = np.full(40, -0.2), np.full(40, 0.2)
    least = lowest_sampled(network, lower, upper, [1.0, -1.0, 0.0])
    offset = least - 0.3 * (1 + abs(least))
    verdict = verify(network, question(lower, upper, [[([1.0, -1.0, 0.0], offset)]]), timeout=60.0)
    assert (verdict.verdict, verdict.stage) == ("holds", "semidefinite")
    assert verdict.trusted == ()
    assert verdict.margin_lower_bound is not None
    assert 0 < verdict.margin_lower_bound <= least - offset + 1e-6
    close = verify(
        network, question(lower, upper, [[([1.0, -1.0, 0.0], least - 0.1 * (1 + abs(least)))]]), timeout=60.0
    )
    assert (close.verdict, close.stage) == ("holds", "semidefinite branching")
    assert close.statistics["nodes"] > 1
    crossed = verify(network, question(lower, upper, [[([1.0, -1.0, 0.0], least + 1e-3)]]), timeout=60.0)
    assert crossed.verdict == "violated"
