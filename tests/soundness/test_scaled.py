"""Claims of MILP solvers on networks whose layers are scaled apart: the same function, beyond absolute tolerances."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from mipverify.solvers.interface import Limits

from mipverify.engine.budget import Clock
from mipverify.engine.schedule import CROWN, INTERVAL, MILP_AS_ASKED
from mipverify.formulation.scaling import equilibrated
from tests.engine.calls import AcceptsNothing, course
from tests.solvers.programs import random_relu_program
from tests.soundness.exact import Question, random_question
from tests.soundness.nets import dense, exact_output, question


def scaled_apart(rng: np.random.Generator, exponent: int) -> Question:
    """A question of one condition whose smallest margin is -1/100, each unit scaled by its own power of two."""
    question = random_question(rng)
    for layer in question.layers:
        layer.skip = False
    for one, after in zip(question.layers, question.layers[1:], strict=False):
        factors = [Fraction(2) ** int(rng.integers(-exponent, exponent + 1)) for _ in one.bias]
        one.weight = [[w * f for w in row] for row, f in zip(one.weight, factors, strict=True)]
        one.bias = [b * f for b, f in zip(one.bias, factors, strict=True)]
        after.weight = [[w / f for w, f in zip(row, factors, strict=True)] for row in after.weight]
    row, offset = question.conditions[0][0]
    question.conditions = [[(row, offset)]]
    margin = question.smallest_margin()
    assert margin is not None
    question.conditions = [[(row, offset + margin + Fraction(1, 100))]]
    return question


@pytest.mark.parametrize("solver", ["highs", "cbc"])
@pytest.mark.parametrize("exponent", [0, 12, 24, 40])
def test_a_claim_never_lies_above_the_exact_minimum(solver: str, exponent: int) -> None:
    rng = np.random.default_rng([exponent, 3])
    for k in range(16):
        scaled = scaled_apart(rng, exponent)
        case, network = scaled.specification().cases[0], scaled.network()
        stages = (INTERVAL, CROWN)[: 2 - k % 2]
        asked = course(network, case, *stages, clock=Clock(5.0), solver=solver, judge=AcceptsNothing())
        if asked.state.decided():
            continue
        asked.run_stage(MILP_AS_ASKED)
        assert Fraction(float(asked.state.lower[0])) <= Fraction(-1, 100), scaled


@pytest.mark.parametrize("solver", ["highs", "cbc"])
@pytest.mark.parametrize("size", [1e4, 1e6, 1e8, 1e10, 1e12, 1e16, 1e20])
def test_no_claim_survives_cancellation(size: float, solver: str) -> None:
    # y = 3/8 - relu(relu(x0 + size) - size - x1) + more units of the kind, at least 1/8 at (3/4, 1/2).
    layers = [
        ([[1, 0], [0, 1], [-1, 0]], [size, 0, size]),
        ([[1, -1, 0], [-1, 1, 0], [0, 1, -1]], [-size, size, size]),
        ([[-1, -0.5, -0.25]], [0.375]),
    ]
    points = [[a / 64, b / 64] for a in range(16, 49, 4) for b in range(16, 49, 4)]
    lowest = min(exact_output(layers, point)[0] for point in points)
    network = dense(layers)
    for gap in (Fraction(1, 64), Fraction(1, 1000)):
        case = question([0.25, 0.25], [0.75, 0.75], [[([1.0], lowest + gap)]]).cases[0]
        stages = (INTERVAL, CROWN, MILP_AS_ASKED)
        asked = course(network, case, *stages, clock=Clock(5.0), solver=solver, judge=AcceptsNothing())
        assert not asked.state.lower[0] > -gap


def test_a_program_in_its_own_units_is_the_same_program() -> None:
    rng = np.random.default_rng(5)
    from mipverify.solvers import get_solver

    for _ in range(8):
        plain = random_relu_program(rng)
        sizes = 10.0 ** rng.uniform(-6, 6, size=plain.columns)
        sizes = np.where(plain.integer, 1.0, sizes)
        milp = type(plain)(
            plain.objective / sizes, plain.offset, plain.matrix / sizes[None], plain.row_lower, plain.row_upper,
            plain.lower * sizes, plain.upper * sizes, plain.integer,
        )  # fmt: skip
        scaled, factors = equilibrated(milp)
        assert (np.log2(factors) % 1 == 0).all()
        assert (np.maximum(abs(scaled.lower), abs(scaled.upper)) < 2).all()
        w = rng.uniform(scaled.lower, scaled.upper)
        assert scaled.objective @ w + scaled.offset == milp.objective @ (factors * w) + milp.offset
        a, b = get_solver("highs").solve(plain, limits=Limits(5)), get_solver("highs").solve(scaled, limits=Limits(5))
        assert a.objective == pytest.approx(b.objective, abs=1e-6)
