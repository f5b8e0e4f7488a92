"""Bounds of conjunctions over boxes, and the parts of boxes that they leave: no point that violates may be cut off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mipverify.presolve import Relaxed, crown
from mipverify.solvers.branch_and_bound.boxes import search_boxes
from mipverify.solvers.branch_and_bound.conjunction import bound_condition

from mipverify.formulation import condition_parts
from mipverify.formulation.margin import margin_network
from tests.presolve import nets
from tests.soundness.nets import dense, question, random_layers


@pytest.mark.parametrize("widths", [(3, 4), (2, 5, 4), (4, 6, 6, 4)], ids=["linear", "one layer", "two layers"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_bounds_and_cuts_of_a_conjunction(widths: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(count)
    cuts, tight = 0, []
    for _ in range(12):
        network = dense(random_layers(rng, widths))
        lower, upper = nets.boxes(rng, network, 4, radius=0.3)
        relaxed = Relaxed(crown(network, lower, upper))
        units = rng.permutation(4)[:count].tolist()
        values = relaxed.bounds.lower[network.output], relaxed.bounds.upper[network.output]
        # Margins of about zero: the bias is what makes a condition close to being met.
        shift = 0.8 * values[0].max(axis=1, keepdims=True) + 0.2 * values[1].max(axis=1, keepdims=True)
        boxes = np.array([0, 2, 3])
        for box in boxes:
            moved = random_shift(network, float(shift[box, 0]))
            relaxed = Relaxed(crown(moved, lower, upper))
            found = bound_condition(relaxed, moved.output, units, boxes)
            points = nets.points(rng, lower, upper, 500)
            margins = moved.forward(points.reshape(-1, widths[0])).reshape(500, 4, -1)[:, :, units].max(axis=2)
            assert (found.lower <= margins[:, boxes].min(axis=0) + 1e-12).all()
            tight.append((margins[:, boxes].min(axis=0) - found.lower).min())
            assert sorted({*found.open, *np.flatnonzero(found.lower > 0)}) == [0, 1, 2]
            for k, position in enumerate(found.open):
                here = points[:, boxes[position]]
                violating = here[margins[:, boxes[position]] <= 0]
                assert (violating >= found.box_lower[k]).all()
                assert (violating <= found.box_upper[k]).all()
                cuts += (found.box_lower[k] > lower[boxes[position]]).any() and len(violating) > 0
                assert (found.minimizer[k] >= lower[boxes[position]]).all()
                assert (found.minimizer[k] <= upper[boxes[position]]).all()
    assert min(tight) < 0.02
    assert cuts > 0


def after(polls: int) -> Callable[[], bool]:
    """True from that poll on."""
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def random_shift(network, shift: float):  # type: ignore[no-untyped-def]
    """The same network with all outputs lowered."""
    from mipverify.network import Affine, Network

    last = network.nodes[network.output]
    moved = Affine(last.shape, last.terms, (last.bias - np.float32(shift)).astype(np.float32))
    return Network((*network.nodes[:-1], moved), network.output)


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

        outcome = search_boxes(
            margins, case.box.lower, case.box.upper, [0, 1],
            parts=condition_parts(network, case.conditions), try_points=look, stop=after(30),
        )  # fmt: skip
        assert outcome.closed is not violated
        if violated:
            points = np.concatenate(seen)
            assert points[:, 0].min() <= -0.9
            assert points[:, 0].max() >= 0.9
            assert outcome.lower[0] <= -0.1 + 1e-9
            assert outcome.lower[1] <= -0.1 + 1e-9
