"""The ledger of parts of a box: no part is lost, no violation is cut off, and facts are about what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from mipverify.presolve import crown, interval

from mipverify.formulation import condition_parts
from mipverify.proof.backward import Evidence, minimum, propagate_backward, row_minimum
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.boxes import (
    BoxCases,
    Boxes,
    BoxParts,
    Settlement,
    combined,
    largest,
    part_bounds,
    shrink,
)
from mipverify.proof.clipping import confine
from mipverify.proof.facts import Assumption, Claim, RowBounds
from mipverify.proof.interval import interval_inside
from mipverify.proof.rows import LinearBounds, unit_rows
from tests.branch_and_bound.parts import halved
from tests.branch_and_bound.test_search import margins_of
from tests.soundness.exact import Question, random_question
from tests.soundness.nets import dense

# Outputs: relu(x) - 1/4, which is 0 on half of the box, and -relu(x) + 3/4.
NETWORK = dense([([[1.0, 0.0]], [0.0]), ([[1.0], [-1.0]], [-0.25, 0.75])])
RELU, OUTPUT = 2, 3
BOTH = [Claim(OUTPUT, np.array([[0]]), np.ones(1)), Claim(OUTPUT, np.array([[1]]), np.ones(1))]


def bounds_of(size: float = 1.0) -> Bounds:
    return interval(NETWORK, np.full((1, 2), -size), np.full((1, 2), size))


def linear_of(
    bounds: Bounds, boxes: np.ndarray, units: Sequence[int] = (0,), node: int = OUTPUT, evidence: Evidence | None = None
) -> LinearBounds:
    """Linear bounds of some units of a node over some boxes, all of the first unit first."""
    every = np.repeat(units, len(boxes)), np.tile(boxes, len(units))
    rows = unit_rows(bounds.network, node, *every, bounds.like)
    return propagate_backward(bounds, rows, evidence or Evidence())


def quarters(root: Bounds, claims: Sequence[Claim] = BOTH) -> tuple[BoxCases, Boxes, Bounds]:
    """Four parts of a box, and bounds of these."""
    cases = BoxCases(root, claims)
    boxes = halved(cases, root, (0, 1))
    return cases, boxes, crown(part_bounds(root, boxes, None))


def proven(cases: BoxCases) -> list[float]:
    return [float(fact.lower[0]) for fact in cases.proven()]


def test_what_is_open_keeps_its_bound() -> None:
    root = bounds_of()
    cases, boxes, bounds = quarters(root)
    assert proven(cases) == [-np.inf, -np.inf]
    settlement = Settlement(boxes, bounds)
    found = minimum(linear_of(bounds, np.arange(3)))
    settlement.learn(0, found)
    cases.settle(settlement.close(np.arange(4), np.zeros(4, int)))
    assert proven(cases) == [-np.inf, -np.inf], "nothing is known of one of the four"
    cases, boxes, bounds = quarters(root)
    settlement, found = Settlement(boxes, bounds), minimum(linear_of(bounds, np.arange(4)))
    settlement.learn(0, found)
    cases.settle(settlement.close(np.arange(4), np.zeros(4, int)))
    assert proven(cases) == [found.lower.min(), -np.inf]
    for fact, claim in zip(cases.proven(), BOTH, strict=True):
        assert fact.claim is claim
        assert fact.scope is root.scope


def test_a_part_that_would_be_lost_is_refused() -> None:
    cases, boxes, _ = quarters(bounds_of())
    losing: list[list[np.ndarray]] = [
        [np.array([0, 1, 2])],
        [np.array([0, 1]), np.array([3])],
        [np.array([0, 1]), np.array([1, 2])],
        [np.array([0, 1, 2, 2])],
        [np.array([0, 1]), np.array([2, -1])],
        [np.array([0, 1, 2, 3, 4])],
        [np.array([], int)],
    ]
    for parts in losing:
        with pytest.raises(ValueError, match="each box belongs to one part"):
            cases.deal(boxes, parts)
    dealt = cases.deal(boxes, [np.array([3, 0]), np.array([], int), np.array([2, 1])])
    np.testing.assert_array_equal(dealt[0].lower, boxes.lower[[3, 0]])
    with pytest.raises(KeyError):  # they are dealt already
        cases.deal(boxes, [np.arange(4)])
    together = cases.join([dealt[2], dealt[0], dealt[1]])
    np.testing.assert_array_equal(together.lower, boxes.lower[[2, 1, 3, 0]])


@pytest.mark.parametrize("parts", [[[True, False]], [[False], [True]], [[0.0, 1.0]]])
def test_parts_that_are_no_indices_lose_no_box(parts: list[list[float]]) -> None:
    root = bounds_of()
    cases = BoxCases(root, BOTH)
    boxes = halved(cases, root, (0,))
    try:
        dealt = cases.deal(boxes, [np.array(part) for part in parts])
    except (ValueError, IndexError, TypeError):
        assert proven(cases) == [-np.inf, -np.inf]
    else:
        assert sum(map(len, dealt)) == 2


def test_what_is_joined_is_open_and_not_the_same_twice() -> None:
    root = bounds_of()
    cases, boxes, _ = quarters(root)
    one, two = cases.deal(boxes, [np.arange(2), np.arange(2, 4)])
    others = quarters(root)[1]
    for several in ([one, one], [one, boxes], [two, others], [one, two, one]):
        with pytest.raises((KeyError, ValueError)):
            cases.join(several)
        assert proven(cases) == [-np.inf, -np.inf], "what was refused has lost nothing"
    assert len(cases.join([one, two])) == 4


def test_boxes_are_settled_once_and_by_their_own_ledger() -> None:
    root = bounds_of()
    cases, boxes, bounds = quarters(root)
    done = Settlement(boxes, bounds).close(np.arange(4), np.zeros(4, int))
    with pytest.raises(KeyError):
        quarters(root)[0].settle(done)
    again = Settlement(boxes, bounds).close(np.arange(4), np.ones(4, int))
    cases.settle(done)
    for late in (done, again):
        with pytest.raises(KeyError):
            cases.settle(late)
    assert done.rest is not None
    for axis, ends in ((0, done.rest), (1, again.rest)):
        assert ends is not None
        np.testing.assert_array_equal(ends.upper[:4, axis], ends.lower[4:, axis])
        np.testing.assert_array_equal(ends.lower[:4], boxes.lower)
        np.testing.assert_array_equal(ends.upper[4:], boxes.upper)


def test_a_box_that_is_open_is_halved() -> None:
    _, boxes, bounds = quarters(bounds_of())
    for left in (np.arange(3), np.array([0, 1, 2, 2]), np.array([3, 2, 1, 0]), np.zeros(0, int), np.arange(5)):
        with pytest.raises(ValueError, match="all boxes that are open are halved"):
            Settlement(boxes, bounds).close(left, np.zeros(len(left), int))


def test_bounds_of_other_boxes_are_refused() -> None:
    root, other = bounds_of(), bounds_of()
    cases, boxes, bounds = quarters(root)
    _, its_boxes, its_bounds = quarters(other)
    first, last = cases.deal(boxes, [np.arange(2), np.arange(2, 4)])
    of_first, of_last = (part_bounds(root, own, None) for own in (first, last))
    for own, wrong in ((first, of_last), (last, of_first), (first, bounds), (its_boxes, bounds)):
        with pytest.raises(ValueError, match="bounds"):
            Settlement(own, wrong)
    Settlement(first, of_first)
    with pytest.raises(ValueError, match="another input set"):
        part_bounds(root, its_boxes, None)
    settlement = Settlement(its_boxes, its_bounds)
    inherited = settlement.inherited(other.scope, np.arange(4))
    its_rest = settlement.close(np.arange(4), np.zeros(4, int)).rest
    rest = Settlement(boxes, bounds).close(np.arange(4), np.zeros(4, int)).rest
    assert rest is not None
    assert its_rest is not None
    part_bounds(other, its_rest, inherited)
    with pytest.raises(ValueError, match="outside of the one that its bounds are of"):
        part_bounds(root, rest, inherited)
    with pytest.raises(ValueError, match="outside of the one that its bounds are of"):
        part_bounds(other, its_rest, inherited.take(np.arange(8)[::-1]))


def test_bounds_under_an_assumption_are_not_those_of_a_box() -> None:
    root = bounds_of()
    cases = BoxCases(root, BOTH)
    whole = part_bounds(root, cases.root, None)
    active = assume(whole, [Assumption(((RELU, 0, 1),))], [None])
    low, _ = confine(whole, linear_of(whole, np.zeros(1, int)), -9.0, [])
    for inner in (active, low):
        with pytest.raises(ValueError, match="bounds"):
            Settlement(cases.root, inner)


def test_bounds_of_a_part_are_not_those_of_the_whole() -> None:
    root = bounds_of()
    part = crown(interval_inside(root, np.full((1, 2), 0.5), np.full((1, 2), 1.0)))
    with pytest.raises(ValueError, match="do not hold"):
        assume(root, [Assumption()], [part.entry(0)])
    for low, high in ((-2.0, 0.0), (0.0, 2.0)):
        with pytest.raises(ValueError, match="outside of the input set"):
            interval_inside(root, np.full((1, 2), low), np.full((1, 2), high))


def test_a_fact_about_something_else_is_refused() -> None:
    root = bounds_of()
    _, boxes, bounds = quarters(root)
    every = np.arange(4)
    same = crown(part_bounds(root, boxes, None))

    def multiple(factor: float) -> RowBounds:
        rows = unit_rows(NETWORK, OUTPUT, np.zeros(4, int), every, bounds.like)
        return row_minimum(bounds, rows.scaled(np.full(4, factor)))

    for fact in (
        minimum(linear_of(bounds, every, (1,))),
        minimum(linear_of(bounds, every, node=RELU)),
        minimum(linear_of(same, every)),
        minimum(linear_of(crown(root), np.zeros(1, int))),
        largest(minimum(linear_of(bounds, every, (0, 1))), 2),
        multiple(2.0),
        multiple(-1.0),
        *quarters(root)[0].proven(),
    ):
        settlement = Settlement(boxes, bounds)
        with pytest.raises(ValueError, match="the fact is about"):
            settlement.learn(0, fact)
        assert (settlement.close(every, np.zeros(4, int)).reached == np.inf).all()
        assert settlement.open().all()


def parts_of(bounds: Bounds, boxes: np.ndarray, units: Sequence[int] = (0,)) -> BoxParts:
    linear = linear_of(bounds, boxes, units)
    return shrink(linear, minimum(linear), np.array(units))


def test_parts_of_something_else_are_refused() -> None:
    root = bounds_of()
    _, boxes, bounds = quarters(root)
    every, same = np.arange(4), crown(part_bounds(root, boxes, None))
    for parts in (parts_of(bounds, every, (1,)), parts_of(same, every), parts_of(bounds, every, (0, 1))):
        settlement = Settlement(boxes, bounds)
        with pytest.raises(ValueError, match="the parts are those of something else"):
            settlement.leave(0, parts)
        lower, upper = settlement.left(every)
        np.testing.assert_array_equal(lower, boxes.lower)
        np.testing.assert_array_equal(upper, boxes.upper)
    own = parts_of(bounds, every)
    for other in (parts_of(bounds, every[:2]), parts_of(bounds, every, (1,)), parts_of(same, every)):
        with pytest.raises(ValueError, match="parts of different boxes"):
            own.and_outside(other)


def test_boxes_are_cut_by_the_minima_of_the_same_rows() -> None:
    # relu(x) is at least 0, and at least x: neither says that it is at least x + 1.
    bounds = crown(bounds_of())
    zero = np.zeros(1, int)
    flat, steep = (linear_of(bounds, zero, evidence=Evidence({RELU: np.full((1, 1), s)})) for s in (0.0, 1.0))
    assert minimum(steep).lower[0] < minimum(flat).lower[0] == pytest.approx(-0.25)
    rows = unit_rows(NETWORK, OUTPUT, zero, zero, bounds.like)
    shared = [propagate_backward(bounds, rows, Evidence({RELU: np.full((1, 1), s)})) for s in (0.0, 1.0)]
    for linear, found in (
        (steep, minimum(flat)),
        (flat, minimum(linear_of(bounds, zero, (1,)))),
        (shared[1], minimum(shared[0])),
    ):
        with pytest.raises(ValueError, match="the minima are not those of the rows"):
            shrink(linear, found, zero)
    with pytest.raises(ValueError, match="the rows stand for other units"):
        shrink(flat, minimum(flat), np.ones(1, int))


def test_rows_are_needed_for_each_box_alike() -> None:
    _, _, bounds = quarters(bounds_of())
    rows = unit_rows(NETWORK, OUTPUT, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), bounds.like)
    linear = propagate_backward(bounds, rows)
    for work in (
        lambda: largest(minimum(linear), 2),
        lambda: combined(linear, np.ones((2, 2))),
        lambda: shrink(linear, minimum(linear), np.arange(2)),
        lambda: largest(row_minimum(bounds, rows.negated()), 2),
    ):
        with pytest.raises(ValueError, match="as many rows are needed"):
            work()


def test_any_weights_combine_rows_into_one_below_the_largest() -> None:
    rng = np.random.default_rng(61)
    _, boxes, bounds = quarters(bounds_of())
    linear = linear_of(bounds, np.arange(4), (0, 1))
    x = rng.uniform(boxes.lower, boxes.upper, (500, 4, 2))
    highest = NETWORK.forward(x.reshape(-1, 2)).reshape(500, 4, 2).max(axis=2).min(axis=0)
    for weights in (*rng.normal(size=(20, 2, 4)), np.full((2, 4), np.nan), np.full((2, 4), -1.0), np.zeros((2, 4))):
        row = combined(linear, weights)
        assert (minimum(row).lower <= highest + 1e-12).all()


def asked(rng: np.random.Generator) -> tuple[Question, Bounds, list[Claim]]:
    """A question, bounds of its margins, and its conditions as the largest of their rows."""
    question = random_question(rng)
    parts = condition_parts(question.network(), question.specification().cases[0].conditions)
    return question, margins_of(question), [Claim(node, np.array([units]), np.ones(1)) for node, units in parts]


def test_the_proven_bound_is_the_least_of_all_parts_and_holds() -> None:
    rng = np.random.default_rng(62)
    raised = 0
    for _ in range(40):
        question, root, claims = asked(rng)
        cases = BoxCases(root, claims)
        waiting, least = [cases.root], np.full(len(claims), np.inf)
        known = {cases.root.key: np.full((1, len(claims)), -np.inf)}
        first = None
        for _ in range(8):
            if not waiting:
                break
            boxes = waiting.pop(int(rng.integers(len(waiting))))
            bounds = crown(part_bounds(root, boxes, None))
            settlement, lower = Settlement(boxes, bounds), known.pop(boxes.key)
            for c, claim in enumerate(claims):
                units = claim.units[0]
                at = np.flatnonzero(rng.random(len(boxes)) < 0.8)
                if len(at):
                    fact = largest(minimum(linear_of(bounds, at, units, claim.node)), len(units))
                    settlement.learn(c, fact)
                    lower[at, c] = np.maximum(lower[at, c], fact.lower)
            shut = boxes.open & (lower > 0)
            least = np.minimum(least, np.where(shut, lower, np.inf).min(axis=0))
            np.testing.assert_array_equal(settlement.open(), boxes.open & ~shut)
            going = np.flatnonzero((boxes.open & ~shut).any(axis=1))
            done = settlement.close(going, rng.integers(0, 2, len(going)))
            cases.settle(done)
            if done.rest is not None:
                known[done.rest.key] = np.where(done.rest.open, lower[np.tile(going, 2)], np.inf)
                cut = int(rng.integers(len(done.rest) + 1))
                order = rng.permutation(len(done.rest))
                for part, own in zip(
                    cases.deal(done.rest, [order[:cut], order[cut:]]), (order[:cut], order[cut:]), strict=True
                ):
                    known[part.key] = known[done.rest.key][own]
                    if len(part):
                        waiting.append(part)
                del known[done.rest.key]
            expected = np.min([least, *(v.min(axis=0, initial=np.inf) for v in known.values())], axis=0)
            np.testing.assert_array_equal(proven(cases), expected)
            first = expected if first is None else first
        for c, claim in enumerate(claims):
            alone = Question(question.layers, question.box, [question.conditions[c]])
            if len(claim.units[0]) == 1:
                assert proven(cases)[c] <= float(alone.smallest_margin())
            assert not (proven(cases)[c] > 0 and alone.violated())
        raised += (np.array(proven(cases)) > first).any()
    assert raised > 10, "parts that raise no bound would show no fault"


def test_no_point_that_violates_is_lost() -> None:
    rng = np.random.default_rng(63)
    violating, cut, closed = 0, 0, 0
    for _ in range(25):
        _, root, claims = asked(rng)
        low, high = (side[0][0] for side in (root.lower, root.upper))
        points = low + rng.random((4000, 2)) * (high - low)
        values = root.network.values(points)
        margins = np.stack([values[claim.node][:, claim.units[0]].max(axis=1) for claim in claims], axis=1)
        cases = BoxCases(root, claims)
        boxes: Boxes | None = cases.root
        for _ in range(6):
            if boxes is None:
                break
            bounds = crown(part_bounds(root, boxes, None))
            settlement = Settlement(boxes, bounds)
            for c, claim in enumerate(claims):
                units, at = claim.units[0], np.flatnonzero(boxes.open[:, c])
                if not len(at):
                    continue
                linear = linear_of(bounds, at, units, claim.node)
                found = minimum(linear)
                settlement.learn(c, largest(found, len(units)))
                if rng.random() < 0.8:
                    parts = shrink(linear, found, units)
                    mean = combined(linear, rng.exponential(size=(len(units), len(at))))
                    settlement.leave(c, parts.and_outside(shrink(mean, minimum(mean), units)))
            going = np.flatnonzero(settlement.open().any(axis=1))
            lower, _ = settlement.left(going)
            cut += int((lower > boxes.lower[going]).any(axis=1).sum())
            done = settlement.close(going, rng.integers(0, 2, len(going)))
            cases.settle(done)
            boxes = done.rest
            for c in range(len(claims)):
                bad = points[margins[:, c] <= 0]
                violating += len(bad)
                if boxes is None:
                    assert not len(bad)
                    continue
                own = boxes.open[:, c]
                inside = (bad[:, None] >= boxes.lower[own]).all(axis=2) & (bad[:, None] <= boxes.upper[own]).all(axis=2)
                assert inside.any(axis=1).all()
            assert (np.array(proven(cases)) <= margins.min(axis=0)).all()
        closed += boxes is None
    assert violating > 1000
    assert cut > 20
    assert closed > 3
