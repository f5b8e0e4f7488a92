"""Leaves of the search tree: the exact least margin of a piece, or a proof that no input lies in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.engine.budget import Deadline
from mipverify.engine.driver import Course
from mipverify.engine.leaves import leaf_solver
from mipverify.engine.schedule import CROWN, INTERVAL
from mipverify.engine.stage import Work
from mipverify.parallel import SERIAL
from mipverify.proof.facts import Assumption
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.specification import Case
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from tests.distortion.nets import KINDS, image_of
from tests.engine.calls import course
from tests.soundness.nets import dense
from tests.soundness.nets import question as box_question


def at_work(found: Course) -> Work:
    deadline, rng = Deadline(found.clock), np.random.default_rng(0)
    return Work(found.problem, found.state, deadline, SERIAL, rng, found.take, found.report)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_leaves_bound_the_margins_of_their_inputs(norm: str, tmp_path: Path) -> None:
    network = KINDS["dense"](0, tmp_path)
    image, label = image_of(network, 0)
    perturbation = Perturbation.around(image, norm=norm, domain=None)
    # A class must win by so much that nothing violates: leaves are bounded, and no witness ends the question.
    case = Case(perturbation.within(Fraction(1)), misclassified(label, 3, 3, margin=100))
    found = course(network, case, INTERVAL, CROWN)
    bounds = reduce(found.state.proven).bounds
    solve, small = leaf_solver(at_work(found), bounds), bounds.network
    rng = np.random.default_rng(1)
    x = image.reshape(-1) + rng.uniform(-1, 1, (4000, 3))
    inside = perturbation_distance(x - image.reshape(-1), norm) <= 1
    x = x[inside]
    margins = found.problem.margins.forward(x)
    values = small.values(x)
    signs = np.concatenate([values[small.relu_source(node)] > 0 for node in small.relus], axis=1)
    places = [(node, unit) for node in small.relus for unit in range(int(np.prod(small.nodes[node].shape)))]
    assert len(places) >= 3
    patterns, which = np.unique(signs, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns[:6]):
        bound = solve(leaf(places, pattern)).lower
        least = margins[which.reshape(-1) == index, 0].min()
        assert np.isfinite(bound)
        assert bound <= least + 1e-9
    never = [p for p in np.ndindex(*(2,) * len(places)) if not (patterns == np.array(p, bool)).all(axis=1).any()]
    empty = [solve(leaf(places, p)).lower for p in never[:20]]
    assert np.isposinf(empty).any() or not empty


def leaf(places: Sequence[tuple[int, int]], active: Sequence[int] | np.ndarray) -> Node:
    """A node with a phase for each unit."""
    splits = tuple((node, unit, 1 if on else -1) for (node, unit), on in zip(places, active, strict=True))
    return replace(root(0), assumption=Assumption(splits))


def perturbation_distance(step: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(step, ord={"linf": np.inf, "l1": 1, "l2": 2}[norm], axis=1)


class Helpless(PhaseBounder):
    """Proves nothing."""

    def raise_bounds(
        self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], np.ndarray]:
        _, optimum, _ = self.solve(nodes, stop=stop)
        return [replace(node, lower=-1.0) for node in nodes], optimum.minimizer


@pytest.mark.parametrize("level", [1e-3, 0.125, 0.5, 1.0])
def test_a_leaf_with_bounds_of_its_own_claims_no_more_than_they_hold_for(level: float) -> None:
    # f = relu(x + y) - relu(x - y) + 2.2 is least at 0.2. Bounds of hidden units that hold where f is at most a level.
    network = dense([(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), (np.array([[1.0, -1.0]]), np.array([2.2]))])
    asked = box_question([-1, -1], [1, 1], [[([1.0], Fraction(0))]]).cases[0]
    work = at_work(course(network, asked, INTERVAL))
    bounds = work.state.reduced(work.deadline.over).bounds
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(1), None, work.problem.box[0])
    bounder, node = Helpless(bounds, rows), root(0)
    for _ in range(4):
        (node,) = DomainClipping(bounds.network, level).clip(*bounder.solve([node]))
    assert node.entry is not None
    assert node.entry.empty == (level < 0.2)
    node = replace(node, lower=-1.0, fact=None)
    outcome = PhaseSearch(bounder, [node], solve_leaf=leaf_solver(work, bounds)).run()
    assert outcome.closed
    assert 0 < outcome.lower[0] <= min(level, 0.2 + 1e-6)


def test_a_leaf_whose_bounds_exclude_each_other_is_empty() -> None:
    network = dense([(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), (np.array([[1.0, -1.0]]), np.array([2.2]))])
    asked = box_question([-1, -1], [1, 1], [[([1.0], Fraction(0))]]).cases[0]
    work = at_work(course(network, asked, INTERVAL))
    bounds = work.state.reduced(work.deadline.over).bounds
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(1), None, work.problem.box[0])
    bounder, node = PhaseBounder(bounds, rows), root(0)
    for _ in range(4):
        (node,) = DomainClipping(bounds.network, 0.125).clip(*bounder.solve([node]))
    assert node.entry is not None
    assert node.entry.empty
    assert leaf_solver(work, bounds)(replace(node, lower=-1.0, fact=None)).lower == 0.125
