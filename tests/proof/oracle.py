"""Exact arithmetic as the judge of every rule: facts from arbitrary evidence, compared at rational points.

Each check raises AssertionError where a fact is wrong. They run as tests, and against altered kernels
(scripts/mutate_kernel.py): what a check does not notice there, it would not notice in a fault either.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from mipverify.presolve import interval

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.backward import (
    both,
    lower_sides,
    propagate_backward,
    row_minimum,
    unit_minimum,
)
from mipverify.proof.input_minimum import set_minimum
from mipverify.proof.interval import narrowed, tighten
from mipverify.proof.parallel import both_sides
from mipverify.proof.reduction import reduce
from mipverify.proof.restated import restated
from mipverify.proof.rows import functionals, unit_rows
from mipverify.proof.separable import separable_minimum
from mipverify.proof.signs import nonnegative
from mipverify.specification.norms import L1, L2
from mipverify.specification.sets import Ball, BallInBox, Box, Constrained, InputSet, Product, Proposal
from mipverify.specification.sets.ball import BallSplit
from mipverify.specification.sets.constrained import Multipliers
from mipverify.specification.sets.product import PartProposals
from tests.proof import transformed
from tests.proof.exact import (
    below,
    dense,
    dot,
    exact,
    points,
    random_box,
    random_evidence,
    require_bounds,
)
from tests.proof.float32 import check_deployed
from tests.proof.partial import check_borders, check_inexact_units, check_patches, check_sparse_rows
from tests.proof.splits import check_assumptions, check_boxes, check_cases, check_reduction, check_semidefinite
from tests.proof.two_networks import check_kept_units, check_subadditive, check_two_networks


def check_interval(rng: np.random.Generator) -> None:
    for spread in (0, 12, 40):
        for width in (0.0, 0.3):
            network = dense(rng, (3, 4, 3, 2), spread)
            require_bounds(interval(network, *random_box(rng, 3, width)), rng)
    # A sum of which next to nothing is left: what rounding lost is larger than the sum.
    weights, x = rng.normal(size=(4, 9)), rng.normal(size=(1, 9))
    weights[:, -1] = -(weights[:, :-1] @ x[0, :-1]) / x[0, -1]
    network = Network((Input((9,)), Affine((4,), (Term(0, Dense(weights)),), np.zeros(4))), 1)
    require_bounds(interval(network, x, x), rng)


def check_backward(rng: np.random.Generator) -> None:
    for spread in (0, 12, 40):
        for width in (0.0, 0.2, 0.8):
            network = dense(rng, (3, 4, 4, 3), spread)
            bounds = interval(network, *random_box(rng, 3, width))
            rows = unit_rows(network, network.output, np.arange(3), None, bounds.like).with_negated()
            for with_cuts in (False, True):
                found = row_minimum(bounds, rows, random_evidence(rng, bounds, 6, with_cuts)).lower
                plain = row_minimum(bounds, rows).lower
                for x in points(rng, bounds.lower[0], bounds.upper[0], 12):
                    output = exact(network, x)[network.output]
                    for value, *lower in zip([*output, *[-v for v in output]], found, plain, strict=True):
                        assert all(below(low, value) for low in lower)
            require_bounds(tighten(bounds, [unit_minimum(bounds, network.output, None, np.arange(3))]), rng)
            rounded = bounds.outward(np.float32)
            found = unit_rows(network, network.output, np.arange(3), None, rounded.like)
            require_bounds(tighten(bounds, [both_sides(rounded, found)]), rng)


def check_cancellation(rng: np.random.Generator) -> None:
    """Sums whose terms cancel to what rounding leaves of them: the last weight of each row is chosen so."""
    for dtype in (np.float64, np.float32):
        for _ in range(8):
            x = rng.normal(size=5) + 3
            nodes: list = [Input((5,))]
            values = x
            for width in (6, 4):
                weight, bias = rng.normal(size=(width, len(values))), rng.normal(size=width) + 4
                last = len(nodes) > 1
                if last:
                    weight[:, -1] = -((weight[:, :-1] @ values[:-1]) + bias) / values[-1]
                else:
                    weight = np.abs(weight)
                nodes.append(Affine((width,), (Term(len(nodes) - 1, Dense(weight)),), bias))
                values = weight @ values + bias
                if not last:
                    nodes.append(Relu((width,), len(nodes) - 1))
            network = Network(tuple(nodes), len(nodes) - 1)
            bounds = interval(network, x[None], x[None])
            require_bounds(bounds, rng, 1)
            inner = bounds if dtype is np.float64 else bounds.outward(dtype)
            rows = unit_rows(network, network.output, np.arange(4), None, inner.like)
            require_bounds(tighten(bounds, [unit_minimum(bounds, network.output, None, np.arange(4))]), rng, 1)
            require_bounds(tighten(bounds, [both_sides(inner, rows)]), rng, 1)
            require_bounds(tighten(bounds, [lower_sides(row_minimum(inner, rows.with_negated()))]), rng, 1)
            weights = rng.normal(size=(3, 4))
            output = exact(network, next(points(rng, x, x, 1)))[network.output]
            found = row_minimum(bounds, functionals({network.output: weights})).lower
            assert all(below(low, dot(row, output)) for row, low in zip(weights, found, strict=True))


def check_cancelling_coefficients(rng: np.random.Generator) -> None:
    """Rows whose coefficients cancel on the way back: what rounding loses there is larger than what is left."""
    for _ in range(8):
        p, q, x = (np.abs(rng.normal(size=size)) + 1 for size in (6, 5, 5))
        weight = rng.normal(size=(3, 6))
        weight[:, -1] = -(weight[:, :-1] @ p[:-1]) / p[-1]
        hidden = Affine((6,), (Term(0, Dense(np.outer(p, q))),), 3 * p)
        nodes = Input((5,)), hidden, Relu((6,), 1), Affine((3,), (Term(2, Dense(weight)),), np.zeros(3))
        network = Network(nodes, 3)
        bounds = interval(network, x[None], x[None])
        values = exact(network, next(points(rng, x, x, 1)))
        for node, rows in itertools.product((1, 2), (weight, -weight)):
            found = row_minimum(bounds, functionals({node: rows})).lower
            assert all(below(low, dot(row, values[node])) for row, low in zip(rows, found, strict=True))
        require_bounds(tighten(bounds, [unit_minimum(bounds, 3, None, np.arange(3))]), rng, 1)
        reduced = reduce(bounds)
        small = reduced.bounds
        require_bounds(
            tighten(bounds, [reduced.lifted_outputs(small.units(small.network.output, np.arange(3)))]), rng, 1
        )
        rows_of = unit_rows(small.network, small.network.output, np.arange(3), None, small.like)
        found_of = lower_sides(row_minimum(small, rows_of.with_negated()))
        require_bounds(tighten(bounds, [reduced.lifted_outputs(found_of)]), rng, 1)


def check_linear(rng: np.random.Generator) -> None:
    """A linear bound holds at every point, not only at its minimum."""
    for spread in (0, 20):
        network = dense(rng, (3, 5, 4, 2), spread)
        bounds = interval(network, *random_box(rng, 3, 0.5))
        rows = unit_rows(network, network.output, np.arange(2), None, bounds.like)
        linear = propagate_backward(bounds, rows, random_evidence(rng, bounds, 2, True))
        for x in points(rng, bounds.lower[0], bounds.upper[0], 16):
            output = exact(network, x)[network.output]
            for a, c, e, value in zip(linear.coefficients, linear.constant, linear.error, output, strict=True):
                plane = sum((Fraction(float(w)) * v for w, v in zip(a.reshape(-1), x, strict=True)), Fraction(float(c)))
                assert plane - Fraction(1.01) * Fraction(float(e)) <= value


def check_functionals(rng: np.random.Generator) -> None:
    for spread in (0, 30):
        network = dense(rng, (2, 3, 3), spread)
        bounds = interval(network, *random_box(rng, 2, 0.1))
        weights = rng.normal(size=(4, 3)) * 2.0 ** rng.integers(-spread, spread + 1, (4, 3))
        found = row_minimum(bounds, functionals({network.output: weights}, None, rng.normal(size=4) * 0)).lower
        for x in points(rng, bounds.lower[0], bounds.upper[0], 12):
            output = exact(network, x)[network.output]
            for row, low in zip(weights, found, strict=True):
                value = sum((Fraction(float(w)) * v for w, v in zip(row, output, strict=True)), Fraction(0))
                assert below(low, value)


def check_input_sets(rng: np.random.Generator) -> None:
    """Rows over balls and half-spaces, at points that are exactly inside."""
    n = 3
    for norm in (L1(), L2(), None):
        for size in (1.0, 2.0**-530, 2.0**-545, 2.0**300):
            center, radius = rng.integers(-8, 9, n) / 16, Fraction(1, 2)
            matrix, offset = rng.integers(-4, 5, (2, n)) / 4, rng.integers(0, 5, 2) / 4 + 0.5
            inputs: InputSet = Box.from_floats(center - 0.4, center + 0.4)
            if norm is not None:
                inputs = BallInBox(Ball.around(center, radius, norm), inputs.box)
            inputs = Constrained(inputs, matrix, offset)
            network = dense(rng, (n, 4))
            weight = network.nodes[1].terms[0].operator.weight * size  # type: ignore[union-attr]
            network = Network((network.nodes[0], Affine((4,), (Term(0, Dense(weight)),))), 1)
            box = center[None] - 0.4, center[None] + 0.4
            bounds = interval(network, *box, inputs)
            found = unit_minimum(bounds, 1, None, np.arange(4))
            for x in points(rng, *box, 200):
                step = [v - Fraction(float(c)) for v, c in zip(x, center, strict=True)]
                if norm is not None and not norm.at_most(map(abs, step), radius):
                    continue
                met = (dot(row, x) <= Fraction(float(limit)) for row, limit in zip(matrix, offset, strict=True))
                if not all(met):
                    continue
                for value, low, high in zip(exact(network, x)[1], found.lower, found.upper, strict=True):
                    assert below(low, value)
                    assert below(-high, -value)


def check_set_evidence(rng: np.random.Generator) -> None:
    """Rows over a cut ball beside a box, from evidence that no search has found."""
    n = 3
    center, radius = rng.integers(-8, 9, n) / 16, Fraction(1, 2)
    boxes = (-0.4, 0.4), (-1.5, 1.5), (0.05, 0.4)  # the ball reaches beyond it, lies within it, is missed in its center
    for norm, (low, high) in itertools.product((L1(), L2()), boxes):
        lower, upper = np.append(center + low, -0.4), np.append(center + high, 0.4)
        matrix, offset = rng.integers(-4, 5, (2, n)) / 4, rng.integers(0, 5, 2) / 4 + 0.5
        ball = BallInBox(Ball.around(center, radius, norm), Box.from_floats(center + low, center + high))
        inputs = Product((Constrained(ball, matrix, offset), Box.from_floats([-0.4], [0.4])))
        rows = rng.normal(size=(6, n + 1))
        share, mu = rng.normal(0, 1, (6, n)), rng.normal(0, 0.3, (6, 2))
        parts = Multipliers(rows[:, :n], mu, BallSplit(rows[:, :n], share)), Proposal(rows[:, n:])
        value, error = set_minimum(inputs, rows, lower[None], upper[None], PartProposals(rows, parts))
        near = np.maximum(lower, np.append(center - 0.5, -1)), np.minimum(upper, np.append(center + 0.5, 1))
        for x in points(rng, *near, 60):
            step = [abs(v - Fraction(float(c))) for v, c in zip(x[:n], center, strict=True)]
            met = (dot(row, x[:n]) <= Fraction(float(limit)) for row, limit in zip(matrix, offset, strict=True))
            if norm.at_most(step, radius) and all(met):
                for row, least in zip(rows, value - error, strict=True):
                    assert below(least, dot(row, x))


def check_short_rows(rng: np.random.Generator) -> None:
    """Rows in float32 over balls around their box, whose least values are exactly those in its corners."""
    n = 5
    center = rng.integers(-8, 9, n) / 16
    low, high = center - 0.375, center + 0.375
    rows = rng.normal(size=(40, n)).astype(np.float32)
    for norm in (L1(), L2()):
        inputs = BallInBox(Ball.around(center, 8, norm), Box.from_floats(low, high))
        value, error = set_minimum(inputs, rows, low[None], high[None])
        for row, found, off in zip(rows, value, error, strict=True):
            corner = [Fraction(float(a)) for a in np.where(row > 0, low, high)]
            assert Fraction(float(found)) - Fraction(float(off)) <= dot(row, corner)


def check_restriction(rng: np.random.Generator) -> None:
    """Facts about a set are taken over for sets inside of it alone: not for larger balls, nor fewer inequalities."""
    network = dense(rng, (2, 4, 2))
    center = rng.integers(-8, 9, 2) / 16
    box, row = Box.from_floats(center - 0.5, center + 0.5), rng.integers(1, 5, (1, 2)) / 4
    balls = [BallInBox(Ball.around(center, radius, L2()), box) for radius in ("0.1", "0.7")]
    cuts = [Constrained(box, row, row @ center + limit) for limit in (-0.3, 0.3)]
    for small, large in (balls, cuts, (cuts[0], box), [Product((each,)) for each in balls]):
        bounds = interval(network, box.lower[None], box.upper[None], small)
        around = tighten(bounds, [unit_minimum(bounds, 1, None, np.arange(4))])
        require_bounds(narrowed(network, large, around), rng)


def check_signs(rng: np.random.Generator) -> None:
    """Zero is a lower bound only of what is never negative."""
    for _ in range(24):
        nodes = (Input((3,)), Affine((3,), (Term(0, Dense(np.eye(3))),)), Relu((3,), 1))
        terms = [Term(source, Dense(rng.integers(-1, 2, (4, 3)).astype(float))) for source in (2, 1)]
        network = Network((*nodes, Affine((4,), tuple(terms), rng.integers(-1, 2, 4) * 0.5)), 3)
        bounds = interval(network, *random_box(rng, 3, 1.5))
        found = nonnegative(bounds, 3, np.arange(4))
        for x in points(rng, bounds.lower[0], bounds.upper[0], 30):
            for value, low in zip(exact(network, x)[3], found.lower, strict=True):
                assert below(low, value)


def check_separable(rng: np.random.Generator) -> None:
    """Minima of sums of piecewise-linear functions of one input each, at all ends and breaks; nearly reached there."""
    for _ in range(4):
        slopes, shifts = rng.normal(size=2), rng.normal(size=2)
        lower, upper = random_box(rng, 2, 1.5)
        out = [Term(2, Dense(rng.normal(size=(3, 2)))), Term(1, Dense(rng.normal(size=(3, 2))))]
        nodes = [Input((2,)), Affine((2,), (Term(0, Dense(np.diag(slopes))),), shifts), Relu((2,), 1)]
        nodes.append(Affine((3,), tuple(out), rng.normal(size=3)))
        further = [Relu((3,), 3), Affine((3,), (Term(4, Dense(np.eye(3))),), rng.normal(size=3))]
        choices = []
        for k in range(2):
            low, high = Fraction(lower[0, k]), Fraction(upper[0, k])
            zero = -Fraction(shifts[k]) / Fraction(slopes[k])
            choices.append([low, high, min(max(zero, low), high)])
        for network in (Network(tuple(nodes), 3), Network((*nodes, *further), 5)):
            found = separable_minimum(interval(network, lower, upper), network.output, np.arange(3)).lower
            values = [exact(network, list(x))[network.output] for x in itertools.product(*choices)]
            least = [min(value[k] for value in values) for k in range(3)]
            assert all(below(low, value) for low, value in zip(found, least, strict=True))
            if network.output == 3:
                assert all(low > float(value) - 1e-9 for low, value in zip(found, least, strict=True))


def check_narrowed(rng: np.random.Generator) -> None:
    """Facts of a larger set serve a smaller one, and not the other way round."""
    network = dense(rng, (2, 5, 3))
    lower, upper = random_box(rng, 2, 0.3)
    small = interval(network, lower, upper)
    small = tighten(small, [unit_minimum(small, network.output, None, np.arange(3))])
    require_bounds(narrowed(network, Box.from_floats(lower - 0.4, upper + 0.4), small), rng)
    require_bounds(narrowed(network, Box.from_floats(lower + 0.1, upper - 0.1), small), rng)
    other = dense(rng, (2, 5, 3))
    require_bounds(narrowed(other, Box.from_floats(lower, upper), small), rng)
    beside = interval(network, lower + 0.2, upper + 0.2)
    beside = tighten(beside, [unit_minimum(beside, network.output, None, np.arange(3))])
    require_bounds(narrowed(network, Box.from_floats(lower + 0.1, upper - 0.1), beside, small), rng)


def check_scales(rng: np.random.Generator) -> None:
    """Bounds of multiples of units, at the ends of the range of numbers."""
    network = dense(rng, (2, 3))
    bounds = interval(network, *random_box(rng, 2, 0.4))
    for exponent in (-1060, -900, 0, 900, 1010):
        rows = unit_rows(network, 1, np.arange(3), None, bounds.like)
        signs = rng.choice([-1.0, 1.0], 3)
        found = lower_sides(row_minimum(bounds, rows.scaled(signs * 2.0**exponent)))
        require_bounds(tighten(bounds, [found]), rng)
    rows = unit_rows(network, 1, np.arange(3), None, bounds.like)
    require_bounds(tighten(bounds, [both(row_minimum(bounds, rows), row_minimum(bounds, rows.negated()))]), rng)


def check_precisions(rng: np.random.Generator) -> None:
    """Facts in float64 about bounds in float32: what is known of a point lies between two of these."""
    network, point = dense(rng, (2, 4, 3)), rng.normal(size=(1, 2))
    bounds = interval(network, point, point)
    for node in network.preactivations:
        fact = unit_minimum(bounds, node, None, np.arange(len(bounds.lower[node].reshape(-1))))
        assert fact.lower.dtype == np.float64
        found = tighten(bounds.outward(np.float32), [fact])
        values = exact(network, [Fraction(v) for v in point[0].tolist()])[node]
        low, high = (side[node].reshape(-1).tolist() for side in (found.lower, found.upper))
        assert all(Fraction(a) <= v <= Fraction(b) for a, v, b in zip(low, values, high, strict=True))


def check_restated(rng: np.random.Generator) -> None:
    """Facts about rows of one network, said of the same rows, in another order, of one that may differ otherwise."""
    base, rows, offset = dense(rng, (2, 4, 3)), rng.normal(size=(5, 3)), 1000.0 * np.arange(5)
    center, order, places = rng.normal(size=(1, 2)), rng.permutation(5), np.arange(3)
    last = len(base.nodes)
    whole = Network((*base.nodes, Affine((5,), (Term(last - 1, Dense(rows)),), offset)), last)
    outer = interval(whole, center - 1, center + 1)
    for change in ("none", "box", "weight", "offset", "order", "deviation", "nodes"):
        own, shift = rows[order], offset[order]
        own = -own if change == "weight" else own
        shift = shift - 1 if change == "offset" else shift
        nodes = dense(rng, (2, 4, 3)).nodes if change == "nodes" else base.nodes
        deviation = np.ones(5) if change == "deviation" else None
        network = Network((*nodes, Affine((5,), (Term(last - 1, Dense(own)),), shift, deviation)), last)
        radius = 2.0 if change == "box" else 0.5
        bounds = interval(network, center - radius, center + radius)
        units = order[places[::-1] if change == "order" else places]
        try:
            fact = restated(outer, units, bounds, places)
        except ValueError:
            assert change != "none"
            continue
        assert change == "none"
        for x in points(rng, bounds.lower[0], bounds.upper[0], 12):
            values = exact(network, x)[network.output]
            for unit, low, high in zip(fact.units.tolist(), fact.lower.tolist(), fact.upper.tolist(), strict=True):
                assert Fraction(low) <= values[unit] <= Fraction(high)


_OF_OTHER_FILES = (  # found below like those of this file
    check_subadditive,
    check_two_networks,
    check_kept_units,
    check_reduction,
    check_assumptions,
    check_semidefinite,
    check_cases,
    check_boxes,
    check_deployed,
    check_patches,
    check_borders,
    check_sparse_rows,
    check_inexact_units,
)

CHECKS: dict[str, Callable[[np.random.Generator], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
} | transformed.CHECKS
