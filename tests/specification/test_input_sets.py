"""Every kind of input set keeps the promises of the interface, against exact arithmetic and against linear programs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, milp

from mipverify.engine import verify
from mipverify.proof.input_minimum import lies_in, set_minimum
from mipverify.specification import Case, Condition, Specification
from mipverify.specification.conditions import Row
from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.norms import L2
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.sets import Ball, BallInBox, Box, Image, InputSet, Product, Proposal
from tests.soundness.nets import dense
from tests.specification.input_sets import (
    EVERY,
    KINDS,
    SEEDS,
    around,
    box,
    exact,
    members,
    samples,
)


@EVERY
def test_membership_is_decided_exactly_as_stated(kind: str) -> None:
    outcomes = set()
    for sample, rng in samples(kind):
        tried = around(sample.inputs, rng)
        for x in np.concatenate([tried, sample.inputs.nearest_float32(tried)]):
            outcomes.add(sample.belongs(exact(x)))
            assert sample.inputs.contains(x) == sample.belongs(exact(x))
    assert outcomes == {True, False}


@EVERY
def test_the_nearest_points_are_inside_and_members_stay(kind: str) -> None:
    for sample, rng in samples(kind):
        moved = sample.inputs.nearest_float32(around(sample.inputs, rng).astype(np.float64))
        assert moved.dtype == np.float32
        for x in moved:
            assert sample.belongs(exact(x))
        assert len(np.unique(moved, axis=0)) > 5
        kept = np.array([x for x in around(sample.inputs, rng) if sample.belongs(exact(x))])
        if len(kept):
            far = np.abs(sample.inputs.nearest_float32(kept) - kept).max(axis=1)
            assert (far <= 1e-6).all()  # one that lies at a ball's surface may be moved by a rounding
            assert (far == 0).mean() > 0.5


@EVERY
def test_the_box_encloses_and_the_center_is_inside(kind: str) -> None:
    for sample, rng in samples(kind):
        lower, upper = sample.inputs.box.enclosure
        for x in members(sample, rng):
            assert all(
                Fraction(float(a)) <= v <= Fraction(float(b)) for a, v, b in zip(lower, exact(x), upper, strict=True)
            )
        assert sample.belongs(exact(sample.inputs.nearest_float32(sample.inputs.center[None])[0]))
        assert sample.inputs.size == len(lower)
        assert str(sample.inputs)


@EVERY
def test_minima_of_rows_are_below_every_member_whatever_the_evidence(kind: str) -> None:
    for sample, rng in samples(kind):
        inputs, x = sample.inputs, members(sample, rng)
        lower, upper = (side[None] for side in inputs.box.enclosure)
        rows = rng.normal(size=(6, inputs.size)) * 10.0 ** rng.integers(-3, 4, (6, 1))
        for evidence in (None, disturbed(inputs.propose(rows, lower, upper), rng), Proposal(np.zeros_like(rows))):
            value, error = set_minimum(inputs, rows, lower, upper, evidence)
            for row, low in zip(rows, value - error, strict=True):
                least = min(sum(Fraction(float(c)) * v for c, v in zip(row, exact(p), strict=True)) for p in x)
                assert not low > float(least) or Fraction(float(low)) <= least


def disturbed(evidence: Proposal, rng: np.random.Generator) -> Proposal:
    """The same with numbers that no search has found."""
    fields = {}
    for name, value in evidence.__dict__.items():
        if isinstance(value, Proposal):
            fields[name] = disturbed(value, rng)
        elif isinstance(value, tuple):
            fields[name] = tuple(disturbed(part, rng) for part in value)
        else:
            fields[name] = value * rng.uniform(0, 2, value.shape) + rng.normal(size=value.shape)
    return type(evidence)(**fields)


@EVERY
def test_minima_of_rows_are_reached(kind: str) -> None:
    for sample, rng in samples(kind):
        inputs = sample.inputs
        lower, upper = (side[None] for side in inputs.box.enclosure)
        rows = rng.normal(size=(2, inputs.size))
        value, error = set_minimum(inputs, rows, lower, upper)
        over_box, _ = set_minimum(inputs.box, rows, lower, upper)
        assert (value >= over_box - 1e-9).all()
        assert (error < 1e-9).all()
        best = np.array([least(inputs, row) for row in rows])
        assert (value <= best + 1e-5).all()
        if sample.tight:
            np.testing.assert_allclose(value, best, atol=1e-5)


def least(inputs: InputSet, row: np.ndarray) -> float:
    """The least value of a row by linear programs, with tangents until the point lies within all surfaces."""
    low, high = inputs.box.enclosure
    system = inputs.linear_system(low, high)
    parts = [LinearConstraint(system.matrix, system.lower, system.upper)] if len(system.lower) else []
    ends = np.concatenate([low, system.further_lower]), np.concatenate([high, system.further_upper])
    costs = np.append(row, np.zeros(system.columns - inputs.size))
    before = -np.inf
    for _ in range(200):
        solved = milp(costs, constraints=parts, bounds=np.column_stack(ends).T.tolist())
        assert solved.status == 0, solved.message
        tangents = system.tangents(solved.x)
        if tangents is None or solved.fun < before + 1e-7:
            break
        before = solved.fun
        parts.append(LinearConstraint(tangents[0], tangents[1], np.inf))
    return float(solved.fun)


@EVERY
def test_rows_for_solvers_admit_exactly_the_members(kind: str) -> None:
    admitted = set()
    for sample, rng in samples(kind):
        inputs = sample.inputs
        for x in around(inputs, rng, 16):
            if not inputs.box.contains(x):
                continue
            belongs = sample.belongs(exact(x))
            found = admits(inputs, x.astype(np.float64))
            if belongs:
                assert found
            elif found:  # no further outside than rounding takes a point
                inner = inputs.nearest_float32(x[None])[0]
                assert np.abs(inner - x).max() < 1e-5
            admitted.add(found)
    assert admitted == {True, False} or kind in ("box", "boxes")


def admits(inputs: InputSet, x: np.ndarray) -> bool:
    """Whether some further columns meet the system at a point: by the least sum of what its rows are exceeded by."""
    system = inputs.linear_system(*inputs.box.enclosure)
    if not len(system.lower):
        return True
    more = system.columns - inputs.size
    fixed = np.concatenate([x, system.further_lower]), np.concatenate([x, system.further_upper])
    rows = [LinearConstraint(system.matrix, system.lower - 1e-9, system.upper + 1e-9)]
    point = np.append(x, np.zeros(more))
    for _ in range(200):
        solved = milp(np.zeros(system.columns), constraints=rows, bounds=np.column_stack(fixed).T.tolist())
        if solved.status != 0:
            return False
        point = solved.x
        tangents = system.tangents(point)
        if tangents is None:
            return True
        rows.append(LinearConstraint(tangents[0], tangents[1] - 1e-9, np.inf))
    return True


@EVERY
def test_halves_cover_the_set_and_are_parts_of_it(kind: str) -> None:
    for sample, rng in samples(kind):
        inputs, x = sample.inputs, members(sample, rng)
        for i in range(inputs.size):
            if inputs.box.float32_lower[i] == inputs.box.float32_upper[i]:
                with pytest.raises(ValueError, match="no float32"):
                    inputs.halves(i)
                continue
            low, high = inputs.halves(i)
            held = [(low.contains(p), high.contains(p)) for p in x]
            assert all(one or two for one, two in held)
            assert low.box.upper[i] == high.box.lower[i]
            assert lies_in(low, inputs)
            assert lies_in(high, inputs)
            for half in (low, high):
                assert not any(half.contains(p) for p in around(inputs, rng, 20) if not inputs.contains(p))


@EVERY
def test_sets_that_are_seen_to_lie_in_another_do(kind: str) -> None:
    seen = 0
    for sample, rng in samples(kind):
        x = members(sample, rng)
        for other in [
            sample.inputs,
            *(make(np.random.default_rng(seed)).inputs for make in KINDS.values() for seed in SEEDS),
        ]:
            if other.size != sample.inputs.size or not lies_in(sample.inputs, other):
                continue
            inside = (sample.inputs.box.lower >= other.box.lower).all() and (
                sample.inputs.box.upper <= other.box.upper
            ).all()
            if inside:
                seen += 1
                assert all(other.contains(p) for p in x)
    assert seen >= len(SEEDS)


def test_a_smaller_radius_is_seen_to_lie_in_a_larger_one() -> None:
    row = (np.ones(3), 2)
    for norm, rows in itertools.product(("linf", "l1", "l2"), ((), (row,))):
        around = Perturbation.around(np.full(3, 0.5), norm=norm, constraints=rows)
        small, large = around.within("0.1"), around.within("0.2")
        assert lies_in(small, large)
        assert lies_in(large, small) == (norm == "linf")  # the boxes are not compared
        assert lies_in(Product((small, large)), Product((large, large)))
        assert norm == "linf" or not lies_in(Product((large, small)), Product((small, large)))
    plain, cut = (Perturbation.around(np.full(3, 0.5), constraints=rows).within("0.1") for rows in ((), (row,)))
    assert lies_in(cut, plain)
    assert not lies_in(plain, cut)


def test_a_set_of_an_unknown_kind_is_taken_for_its_box() -> None:
    class Dots(Box):
        """A kind that the rules know nothing of, with evidence that belongs to another."""

    inner = BallInBox(Ball.around(np.zeros(2), "0.5", L2()), Box.from_floats([-1, -1], [1, 1]))
    rows, ends = np.array([[1.0, 2.0]]), (np.full((1, 2), -1.0), np.ones((1, 2)))
    value, error = set_minimum(Dots.from_floats([-1, -1], [1, 1]), rows, *ends, inner.propose(rows, *ends))
    assert value[0] - error[0] <= -3
    assert not lies_in(Dots.from_floats([-1, -1], [1, 1]), inner)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_a_network_over_an_image_is_the_network_of_its_parameters(clip: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(2)
    network = dense([(rng.normal(size=(4, 5)), rng.normal(size=4)), (rng.normal(size=(2, 4)), rng.normal(size=2))])
    parameters = box(rng).inputs
    matrix, offset = rng.normal(size=(5, 3)), rng.uniform(0, 1, 5)
    mapped, inputs = Image(parameters, sp.csr_array(matrix), offset, clip).over(network)
    assert inputs is parameters
    p = parameters.nearest_float32(rng.uniform(-1, 1, (50, 3))).astype(np.float64)
    x = p @ matrix.T + offset
    np.testing.assert_allclose(mapped.forward(p), network.forward(x if clip is None else np.clip(x, *clip)), atol=1e-9)
    assert parameters.over(network) == (network, parameters)


@dataclass(frozen=True, eq=False)
class Triangle(InputSet):
    """x + y <= 1 in the unit square, as somebody would add it: one class, and no rule of the kernel."""

    square: Box

    @property
    def box(self) -> Box:
        return self.square

    def contains(self, x: np.ndarray) -> bool:
        return self.square.contains(x) and sum(exact(np.asarray(x).reshape(-1)), Fraction(0)) <= 1

    def nearest_float32(self, points: np.ndarray) -> np.ndarray:
        x = self.square.nearest_float32(points)
        over = np.maximum(x.sum(axis=1, keepdims=True) - np.float32(1), 0)
        return self.square.nearest_float32(x - over / 2 - (over > 0) * np.float32(1e-6))

    def propose(self, rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Proposal:
        return self.square.propose(rows, lower, upper)

    def linear_system(self, low: np.ndarray, high: np.ndarray) -> LinearSystem:
        return LinearSystem(sp.csr_array(np.ones((1, 2))), np.array([-np.inf]), np.array([1.0]))

    def part(self, box: Box) -> Triangle:
        return Triangle(box)

    def __str__(self) -> str:
        return "triangle"


@pytest.mark.parametrize(("least", "reachable"), [("0.9", True), ("1.25", False)])
def test_a_new_kind_of_set_goes_through_a_whole_question(least: str, reachable: bool) -> None:
    network = dense([(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), (np.array([[1.0, 0.0]]), np.zeros(1))])
    violated = Condition.from_rows([Row({0: Fraction(-1)}, {}, -Fraction(least))], 2, 1)  # x + y >= least
    inputs = Triangle(Box.from_floats([0, 0], [1, 1]))
    found = verify(network, Specification((Case(inputs, (violated,)),), "vnnlib"), timeout=20)
    # Over the square alone 1.25 is reached: a point of it outside of the triangle is no counterexample.
    assert (found.verdict == "violated") == reachable
    assert found.witness is None or inputs.contains(found.witness.input)
