"""Facts about one box of a batch are not taken for facts about another: refused, or put where they belong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mipverify.presolve import crown, interval

from mipverify.proof.backward import both, lower_sides, row_minimum, unit_minimum
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.clipping import by_contradiction
from mipverify.proof.facts import Assumption, Claim, RowBounds, UnitBounds
from mipverify.proof.interval import tighten
from mipverify.proof.parallel import both_sides
from mipverify.proof.rows import unit_rows
from mipverify.proof.signs import nonnegative
from tests.soundness.nets import dense

NETWORK = dense([([[1.0]], [0.0]), ([[1.0]], [0.0]), ([[1.0]], [0.0])])  # relu(x)
BOXES = np.array([[0.5], [-1.0], [-3.0]]), np.array([[1.0], [-0.5], [2.0]])
EVERY = np.arange(3)


def rows_of(bounds: Bounds, samples: np.ndarray | None, node: int = 3) -> RowBounds:
    return row_minimum(bounds, unit_rows(NETWORK, node, np.zeros(3, int), samples, bounds.like))


def sides_of(bounds: Bounds, samples: np.ndarray | None) -> UnitBounds:
    return both_sides(bounds, unit_rows(NETWORK, 3, np.zeros(3, int), samples, bounds.like))


FACTS: dict[str, Callable[[Bounds], UnitBounds]] = {
    "a row for each box": lambda bounds: lower_sides(rows_of(bounds, None)),
    "a row for each box, by name": lambda bounds: lower_sides(rows_of(bounds, EVERY)),
    "rows in another order": lambda bounds: lower_sides(rows_of(bounds, EVERY[::-1])),
    "rows of one box alone": lambda bounds: lower_sides(rows_of(bounds, np.ones(3, int))),
    "both sides of rows": lambda bounds: unit_minimum(bounds, 3, None, np.zeros(3, int)),
    "both sides of rows, by name": lambda bounds: unit_minimum(bounds, 3, EVERY, np.zeros(3, int)),
    "parallel lines": lambda bounds: sides_of(bounds, None),
    "parallel lines, by name": lambda bounds: sides_of(bounds, EVERY),
    "signs": lambda bounds: nonnegative(bounds, 1, np.zeros(1, int)),
    "signs of another box": lambda bounds: nonnegative(bounds.select(np.array([1, 0, 2])), 1, np.zeros(1, int)),
    "known bounds": lambda bounds: bounds.units(1, np.zeros(1, int)),
    "known bounds of another box": lambda bounds: bounds.select(np.array([1, 0, 2])).units(1, np.zeros(1, int)),
}


@pytest.mark.parametrize("about", FACTS)
def test_values_stay_inside_of_what_facts_about_boxes_leave(about: str) -> None:
    bounds = interval(NETWORK, *BOXES)
    points = BOXES[0] + np.linspace(0, 1, 33)[:, None, None] * (BOXES[1] - BOXES[0])
    try:
        tight = tighten(bounds, [FACTS[about](crown(bounds))])
    except ValueError:
        assert "by name" not in about
        return
    for node, values in enumerate(NETWORK.values(points.reshape(-1, 1))):
        seen = np.asarray(values).reshape(33, 3)
        assert (seen >= tight.lower[node].reshape(-1) - 1e-9).all()
        assert (seen <= tight.upper[node].reshape(-1) + 1e-9).all()


def test_a_case_that_is_empty_leaves_the_others_as_they_are() -> None:
    root = crown(interval(NETWORK, np.array([[0.5]]), np.array([[1.0]])))
    cases = assume(root, [Assumption(((2, 0, sign),)) for sign in (-1, 1, 1)], [None] * 3)
    fact = by_contradiction(cases, Claim(3, np.zeros(3, int), np.ones(3)))
    np.testing.assert_array_equal(fact.lower, [np.inf, -np.inf, -np.inf])
    with pytest.raises(ValueError, match="entries"):
        tighten(cases, [lower_sides(fact)])


def test_both_sides_are_of_the_same_boxes() -> None:
    bounds = crown(interval(NETWORK, *BOXES))
    rows = [unit_rows(NETWORK, 3, np.zeros(3, int), samples, bounds.like) for samples in (EVERY, EVERY[::-1])]
    fact = both(row_minimum(bounds, rows[0]), row_minimum(bounds, rows[0].negated()))
    assert (fact.lower <= fact.upper).all()
    with pytest.raises(ValueError, match="not of the same entries"):
        both(row_minimum(bounds, rows[0]), row_minimum(bounds, rows[1].negated()))
