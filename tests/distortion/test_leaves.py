"""Leaves of the search tree: the exact least margin of a piece, or a proof that no input lies in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mipverify.presolve import reduce, unit_rows
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.engine.bounding import crown_bounds, interval_bounds
from mipverify.engine.budget import Clock
from mipverify.engine.leaves import leaf_solver
from mipverify.engine.question import Question
from mipverify.network.replay import replay_of
from mipverify.specification import Case
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from tests.distortion.nets import KINDS, image_of
from tests.soundness.nets import dense
from tests.soundness.nets import question as box_question


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_leaves_bound_the_margins_of_their_inputs(norm: str, tmp_path: Path) -> None:
    network = KINDS["dense"](0, tmp_path)
    image, label = image_of(network, 0)
    perturbation = Perturbation.around(image, norm=norm, domain=None)
    box, region = perturbation.within(Fraction(1))
    # A class must win by so much that nothing violates: leaves are bounded, and no witness ends the question.
    case = Case(box, misclassified(label, 3, 3, margin=100), region)
    question = Question(network, case, replay_of(network), Clock(60), np.random.default_rng(0))
    crown_bounds(question)
    reduced = reduce(question.bounds)
    solve, small = leaf_solver(question, reduced), reduced.bounds.network
    rng = np.random.default_rng(1)
    x = image.reshape(-1) + rng.uniform(-1, 1, (4000, 3))
    inside = perturbation_distance(x - image.reshape(-1), norm) <= 1
    x = x[inside]
    margins = question.margins.forward(x)
    values = small.values(x)
    signs = np.concatenate([values[small.relu_source(node)] > 0 for node in small.relus], axis=1)
    places = [(node, unit) for node in small.relus for unit in range(int(np.prod(small.nodes[node].shape)))]
    assert len(places) >= 3
    patterns, which = np.unique(signs, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns[:6]):
        splits = tuple((node, unit, 1 if on else -1) for (node, unit), on in zip(places, pattern, strict=True))
        bound = solve(Node(0, splits, -np.inf, {}, {}))
        least = margins[which.reshape(-1) == index, 0].min()
        assert np.isfinite(bound)
        assert bound <= least + 1e-9
    never = [p for p in np.ndindex(*(2,) * len(places)) if not (patterns == np.array(p, bool)).all(axis=1).any()]
    found = [
        solve(Node(0, tuple((n, u, 1 if on else -1) for (n, u), on in zip(places, p, strict=True)), -np.inf, {}, {}))
        for p in never[:20]
    ]
    assert np.isposinf(found).any() or not found


def perturbation_distance(step: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(step, ord={"linf": np.inf, "l1": 1, "l2": 2}[norm], axis=1)


def test_a_leaf_with_bounds_of_its_own_claims_no_more_than_they_hold_for() -> None:
    # f = relu(x + y) - relu(x - y) + 2.2 is least at 0.2; bounds that hold wherever f <= 0.001, which is nowhere.
    network = dense([(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), (np.array([[1.0, -1.0]]), np.array([2.2]))])
    asked = box_question([-1, -1], [1, 1], [[([1.0], Fraction(0))]]).cases[0]
    question = Question(network, asked, replay_of(network), Clock(60), np.random.default_rng(0))
    interval_bounds(question)
    reduced = question.reduced
    small = reduced.bounds.network

    class Helpless(PhaseBounder):
        def raise_bounds(
            self, nodes: Sequence[Node], stop: Callable[[], bool] | None = None
        ) -> tuple[list[Node], np.ndarray]:
            solved, optimum, _ = self.solve(nodes, stop=stop)
            return [replace(node, lower=-1.0) for node in solved], optimum.minimizer

    rows = unit_rows(small, small.output, np.arange(1), None, question.box[0])
    own = {reduced.layers[0][0]: (np.array([0.0, 0.0]), np.array([2.0, 0.5]))}
    search = PhaseSearch(
        Helpless(reduced.bounds, rows),
        [replace(root(0), bounds=own, ceiling=1e-3)],
        solve_leaf=leaf_solver(question, reduced),
    )
    outcome = search.run()
    assert outcome.closed
    assert 0 < outcome.lower[0] <= 1e-3
    crossed = replace(root(0), bounds={reduced.layers[0][0]: (np.array([0.5, 0.0]), np.array([0.1, 0.5]))})
    assert leaf_solver(question, reduced)(crossed) == np.inf
