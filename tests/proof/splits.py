"""Checks of what holds under assumptions and of splits, as in `tests.proof.oracle`."""

from __future__ import annotations

import itertools
from fractions import Fraction
from unittest.mock import patch

import numpy as np
from mipverify.presolve import interval
from mipverify.presolve.clipping import clip

from mipverify.proof.backward import (
    by_empty_program,
    lower_sides,
    minimum,
    propagate_backward,
    row_minimum,
)
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.boxes import CLEARANCE, BoxCases, Boxes, Settlement, combined, largest, part_bounds, shrink
from mipverify.proof.cases import PhaseCases
from mipverify.proof.facts import Assumption, Claim
from mipverify.proof.interval import tighten
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.proof.semidefinite import SemidefiniteRelaxation, SingleLayer
from tests.proof.exact import (
    Point,
    below,
    dense,
    exact,
    inside,
    points,
    random_box,
    random_evidence,
    require_bounds,
)


def check_reduction(rng: np.random.Generator) -> None:
    for spread in (0, 20):
        network = dense(rng, (3, 6, 5, 2), spread)
        bounds = interval(network, *random_box(rng, 3, 0.3))
        reduced = reduce(bounds)
        small = reduced.bounds
        require_bounds(tighten(bounds, reduced.lifted(small)), rng)
        rows = unit_rows(small.network, small.network.output, np.arange(2), None, small.like).with_negated()
        found = reduced.lifted_outputs(lower_sides(row_minimum(small, rows)))
        require_bounds(tighten(bounds, [found]), rng)


def _assumptions(rng: np.random.Generator, bounds: Bounds, count: int) -> list[Assumption]:
    network, found = bounds.network, []
    units = [(r, int(u)) for r in network.relus for u in np.flatnonzero(np.asarray(bounds.unstable(r)).reshape(-1))]
    for _ in range(count):
        chosen = rng.permutation(len(units))[: rng.integers(0, 3)]
        found.append(Assumption(tuple((*units[k], int(rng.choice([-1, 1]))) for k in chosen)))
    return found


def check_assumptions(rng: np.random.Generator) -> None:
    """Rows under phases and below ceilings, clipped: at points that are there."""
    for _ in range(3):
        network = dense(rng, (2, 5, 4, 1))
        bounds = interval(network, *random_box(rng, 2, 0.8))
        cases = _assumptions(rng, bounds, 5)
        inner = assume(bounds, cases, [None] * 5)
        rows = unit_rows(network, network.output, np.zeros(5, int), None, bounds.like)
        evidence = random_evidence(rng, bounds, 5)
        low, empty = row_minimum(inner, rows, evidence), by_empty_program(inner, rows, evidence)
        linear = propagate_backward(inner, rows)
        level = float(np.median(minimum(linear).lower)) + 0.5
        split = []
        for relu in network.relus:
            own = [(k, u, s) for k, a in enumerate(cases) for r, u, s in a.splits if r == relu]
            if own:
                entries, units, signs = (np.array(v) for v in zip(*own, strict=True))
                some = unit_rows(network, network.relu_source(relu), units, entries, bounds.like)
                split.append(propagate_backward(inner, some.scaled(-signs.astype(float))))
        clipped = clip(inner, linear, level, split)
        for x in points(rng, bounds.lower[0], bounds.upper[0], 60):
            values = exact(network, x)
            for k, case in enumerate(cases):
                if not inside(network, values, case.splits):
                    continue
                output = values[network.output][0]
                assert below(low.lower[k], output)
                assert empty.lower[k] == -np.inf
                if output > Fraction(level):
                    continue
                for node in network.preactivations:
                    sides = (side[node] for side in (clipped.lower, clipped.upper))
                    bottom, top = (side[k if len(side) > 1 else 0].reshape(-1) for side in sides)
                    for value, a, b in zip(values[node], bottom, top, strict=True):
                        assert Fraction(float(a)) <= value <= Fraction(float(b))


def check_semidefinite(rng: np.random.Generator) -> None:
    for spread in (0, 10):
        network = dense(rng, (3, 6, 2), spread)
        bounds = interval(network, *random_box(rng, 3, 0.6))
        single_layer = SingleLayer.of(bounds)
        if single_layer is None:
            continue
        units, cases = len(single_layer.units), _assumptions(rng, bounds, 4)
        rows = rng.integers(0, 2, 4)
        drawn = [rng.normal(0.5, 0.5, (4, units)), 1 + np.abs(rng.normal(0, 2, (4, units))), -rng.random((4, units))]
        best = np.full(4, -np.inf)
        for lines, exponent, lying in itertools.product(drawn, range(-5, 5), (False, True)):
            alpha, beta = (2.0**exponent * (1 + rng.random((4, size))) for size in (3, units + 1))
            with patch("numpy.linalg.eigvalsh", (lambda a: -np.ones(len(a))) if lying else np.linalg.eigvalsh):
                best = np.maximum(
                    best, SemidefiniteRelaxation(single_layer).prove(rows, cases, lines, alpha, beta).lower
                )
        assert np.isfinite(best).any()
        for x in points(rng, bounds.lower[0], bounds.upper[0], 60):
            values = exact(network, x)
            for k, case in enumerate(cases):
                if inside(network, values, case.splits):
                    assert below(best[k], values[network.output][rows[k]])


def check_cases(rng: np.random.Generator) -> None:
    """A ledger proves the least of its goals; what was not bounded counts as unbounded."""
    network = dense(rng, (2, 4, 3, 1))
    bounds = interval(network, *random_box(rng, 2, 0.8))
    claim = Claim(network.output, np.array([0]), np.ones(1))
    ledger, open_ = PhaseCases(bounds, claim), [()]
    units = [(r, int(u)) for r in network.relus for u in np.flatnonzero(np.asarray(bounds.unstable(r)).reshape(-1))]
    for relu, unit in units[:3]:
        splits = open_.pop(rng.integers(len(open_)))
        ledger.split(0, splits, relu, unit)
        open_ += [(*splits, (relu, unit, 1)), (*splits, (relu, unit, -1))]
    facts = []
    for splits in open_:
        inner = assume(bounds, [Assumption(splits)], [None])
        facts.append(row_minimum(inner, unit_rows(network, network.output, np.array([0]), None, bounds.like)))
    for splits, fact in list(zip(open_, facts, strict=True))[:-1]:
        ledger.learn(fact, 0, 0)
        ledger.close(0, splits)
    assert ledger.proven().lower[0] == -np.inf  # one goal is open, and nothing is known of it
    ledger.learn(facts[-1], 0, 0)
    lower = ledger.proven().lower[0]
    assert lower == min(float(fact.lower[0]) for fact in facts)
    for x in points(rng, bounds.lower[0], bounds.upper[0], 60):
        assert below(lower, exact(network, x)[network.output][0])


def _within(boxes: Boxes, x: Point) -> bool:
    ends = zip(boxes.lower.tolist(), boxes.upper.tolist(), strict=True)
    return any(all(a <= v <= b for a, v, b in zip(low, x, high, strict=True)) for low, high in ends)


def check_boxes(rng: np.random.Generator) -> None:
    """What boxes leave of themselves, and what is proven of the largest of two rows once some were halved."""
    network = dense(rng, (2, 5, 2))
    root = interval(network, *random_box(rng, 2, 0.7))
    claims = [Claim(network.output, np.array([[0, 1]]), np.ones(1))]
    ledger = BoxCases(root, claims)
    boxes, closed = ledger.root, False
    for _ in range(4):
        bounds = part_bounds(root, boxes, None)
        count = len(boxes)
        rows = unit_rows(network, network.output, np.repeat([0, 1], count), np.tile(np.arange(count), 2), root.like)
        linear = propagate_backward(bounds, rows)
        found = minimum(linear)
        settlement = Settlement(boxes, bounds)
        settlement.learn(0, largest(found, 2))
        row = minimum(combined(linear, rng.random((2, count)) * 3))
        settlement.learn(0, row)
        parts = shrink(linear, found, np.array([0, 1]))
        settlement.leave(0, parts)
        for x in points(rng, root.lower[0], root.upper[0], 80):
            value = max(exact(network, x)[network.output])
            for k in range(count):
                low, high = (side[k] for side in (boxes.lower, boxes.upper))
                if all(Fraction(float(a)) <= v <= Fraction(float(b)) for v, a, b in zip(x, low, high, strict=True)):
                    left = zip(x, parts.lower[k], parts.upper[k], strict=True)
                    left_over = all(Fraction(float(a)) <= v <= Fraction(float(b)) for v, a, b in left)
                    assert left_over or value > Fraction(CLEARANCE)
                    assert below(row.lower[k], value)
        going = np.flatnonzero(settlement.open().any(axis=1))
        settled = settlement.close(going, rng.integers(0, 2, len(going)))
        for x in points(rng, root.lower[0], root.upper[0], 80):
            if _within(boxes, x) and max(exact(network, x)[network.output]) <= 0:
                assert settled.rest is not None
                assert _within(settled.rest, x)
        ledger.settle(settled)
        if settled.rest is None:
            closed = True
            break
        boxes = settled.rest
    (fact,) = ledger.proven()
    assert closed or fact.lower[0] <= 0
    for x in points(rng, root.lower[0], root.upper[0], 80):
        assert below(fact.lower[0], max(exact(network, x)[network.output]))
