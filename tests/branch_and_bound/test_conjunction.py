"""Bounds of conjunctions over boxes, and the parts of boxes that they leave: no point that violates may be cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.solvers.branch_and_bound.boxes import search_boxes
from mipverify.solvers.branch_and_bound.conjunction import settle_condition

from mipverify.formulation import condition_parts
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.proof.boxes import BoxCases, Settlement, part_bounds
from mipverify.proof.facts import Claim
from tests.branch_and_bound.parts import halved
from tests.presolve import nets
from tests.soundness.nets import dense, question, raised, random_layers


@pytest.mark.parametrize("widths", [(3, 4), (2, 5, 4), (4, 6, 6, 4)], ids=["linear", "one layer", "two layers"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_bounds_and_cuts_of_a_conjunction(widths: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(count)
    cuts, closed, tight = 0, 0, []
    for _ in range(12):
        network = dense(random_layers(rng, widths))
        ((lower, upper),) = zip(*nets.boxes(rng, network, 1, radius=0.6), strict=True)
        units, axes = rng.permutation(4)[:count], rng.permutation(widths[0])[:2]
        wide = interval(network, lower[None], upper[None])
        values = crown(part_bounds(wide, halved(BoxCases(wide, claimed(network, units)), wide, axes), None))
        low, high = (side[network.output][:, units].max(axis=1) for side in (values.lower, values.upper))
        some = np.array([0, 2, 3])
        for box in some:
            # Margins of about zero: the bias is what makes a condition close to being met.
            moved = raised(network, -(0.8 * low[box] + 0.2 * high[box]))
            root, claims = interval(moved, lower[None], upper[None]), claimed(moved, units)
            boxes = halved(BoxCases(root, claims), root, axes)
            bounds = crown(part_bounds(root, boxes, None))
            settlement = Settlement(boxes, bounds)
            found = settle_condition(settlement, 0, claims[0], bounds, some)
            points = nets.points(rng, boxes.lower, boxes.upper, 500)
            margins = moved.forward(points.reshape(-1, widths[0])).reshape(500, 4, -1)[:, :, units].max(axis=2)
            open_ = np.flatnonzero(settlement.open()[:, 0])
            assert set(found.at) | {1} == set(open_)
            done = settlement.close(open_, np.zeros(len(open_), int))
            assert done.rest is not None
            proven = done.rest.bound[: len(open_), 0]
            assert (proven <= margins[:, open_].min(axis=0) + 1e-12).all()
            tight.append((margins[:, open_].min(axis=0) - proven).min())
            shut = np.setdiff1d(some, open_)
            closed += len(shut)
            assert (margins[:, shut] > 0).all()
            assert done.reached[0] <= margins[:, shut].min(initial=np.inf)
            for k, at in enumerate(found.at.tolist()):
                (left_lower,), (left_upper,) = settlement.left(np.array([at]))
                violating = points[:, at][margins[:, at] <= 0]
                assert (violating >= left_lower).all()
                assert (violating <= left_upper).all()
                cuts += (left_lower > boxes.lower[at]).any() and len(violating) > 0
                assert (found.minimizer[k] >= boxes.lower[at]).all()
                assert (found.minimizer[k] <= boxes.upper[at]).all()
    assert min(tight) < 0.02
    assert cuts > 0
    assert closed > 0


def claimed(network: Network, units: Sequence[int]) -> list[Claim]:
    """That the largest of some outputs is meant."""
    return [Claim(network.output, np.array([units]), np.ones(1))]


def after(polls: int) -> Callable[[], bool]:
    """True from that poll on."""
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def test_what_one_condition_clears_stays_open_for_another() -> None:
    # x0 <= -0.9 and x0 >= 0.9 - tiny parts of a box at both its ends: each alone would cut the other off.
    network = dense([([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0])])
    low, high = [1.0, 0.0], [0.0, 1.0]
    for offset, violated, order in ((-0.9, True, (low, high)), (-0.9, True, (high, low)), (-1.1, False, (low, high))):
        case = question([-1.0, -1.0], [1.0, 1.0], [[(row, offset)] for row in order]).cases[0]
        margins = margin_network(network, case.conditions)
        seen: list[np.ndarray] = []

        def look(points: np.ndarray, seen: list[np.ndarray] = seen) -> None:
            seen.append(points)

        parts = condition_parts(network, case.conditions)
        outcome = search_boxes(
            interval(margins, case.box.lower[None], case.box.upper[None]),
            [Claim(node, np.array([units]), np.ones(1)) for node, units in parts],
            try_points=look,
            stop=after(30),
        )
        assert outcome.closed is not violated
        if violated:
            points = np.concatenate(seen)
            assert points[:, 0].min() <= -0.9
            assert points[:, 0].max() >= 0.9
            for fact in outcome.bounds:
                assert fact.lower[0] <= -0.1 + 1e-9
