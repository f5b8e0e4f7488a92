"""The MILP of a network has the network's exact minimum, and points of its own that the network agrees with."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from mipverify.presolve import crown, interval, optimized_crown
from mipverify.solvers import get_solver
from mipverify.solvers.interface import Limits, Termination

from mipverify.formulation import encode
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from tests.presolve import nets
from tests.soundness.exact import Question, random_question

METHODS: dict[str, Callable[[Bounds], Bounds]] = {
    "interval": lambda bounds: bounds,
    "crown": crown,
    "optimized_crown": optimized_crown,
}


def smallest_maximum(question: Question, rows: list) -> float:
    """The exact minimum over the box of the largest of (row . y - offset), by bisection on exact enumeration."""
    low, high = Fraction(-128), Fraction(128)
    for _ in range(22):
        middle = (low + high) / 2
        shifted = [(row, offset + middle) for row, offset in rows]
        if Question(question.layers, question.box, [shifted]).violated():
            high = middle
        else:
            low = middle
    return float(high)


def margins_of(question: Question, method: str) -> tuple[Network, Bounds]:
    case = question.specification().cases[0]
    network = margin_network(question.network(), case.conditions)
    return network, METHODS[method](interval(network, case.box.lower[None], case.box.upper[None]))


@pytest.mark.parametrize("method", METHODS)
def test_the_minimum_is_that_of_exact_enumeration(method: str) -> None:
    rng = np.random.default_rng(31)
    solver = get_solver("highs")
    for _ in range(7):
        question = random_question(rng)
        network, bounds = margins_of(question, method)
        encoding = encode(network, bounds)
        for k, rows in enumerate(question.conditions):
            exact = smallest_maximum(question, rows)
            solution = solver.solve(encoding.minimize(k), limits=Limits(10))
            assert solution.termination is Termination.OPTIMAL
            assert solution.objective == pytest.approx(exact, abs=2e-4)
            assert solution.primal is not None
            value = network.forward(solution.primal[encoding.inputs][None]).reshape(-1)[k]
            assert value == pytest.approx(solution.objective, abs=1e-5)


def test_a_cap_empties_the_program_exactly_where_the_minimum_is_above_it() -> None:
    rng = np.random.default_rng(32)
    solver = get_solver("highs")
    for _ in range(7):
        question = random_question(rng)
        network, bounds = margins_of(question, "crown")
        encoding = encode(network, bounds)
        exact = smallest_maximum(question, question.conditions[0])
        below = solver.solve(encoding.minimize_below(0, exact - 1e-3), limits=Limits(10))
        assert below.termination is Termination.INFEASIBLE
        above = solver.solve(encoding.minimize_below(0, exact + 1e-3), limits=Limits(10))
        assert above.termination is Termination.OPTIMAL
        assert above.objective == pytest.approx(exact, abs=2e-4)


def test_the_margin_network_is_the_largest_row_of_each_condition() -> None:
    rng = np.random.default_rng(33)
    for _ in range(20):
        question = random_question(rng)
        case, network = question.specification().cases[0], question.network()
        margins = margin_network(network, case.conditions)
        points = rng.uniform(case.box.lower, case.box.upper, size=(50, 2))
        outputs = network.forward(points)
        expected = np.stack([condition.margin(outputs).max(axis=1) for condition in case.conditions], axis=1)
        np.testing.assert_allclose(margins.forward(points), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: nets.dense(rng, (4, 6, 5, 5, 3), skip=True),
        lambda rng: nets.convolutional(rng, 5),
        lambda rng: nets.dense(rng, (4, 3)),
    ],
    ids=["skips", "convolutional", "linear"],
)
def test_nothing_sampled_lies_below_the_minimum_which_is_attained(make: Callable[..., Network]) -> None:
    rng = np.random.default_rng(34)
    for _ in range(3):
        network = make(rng)
        lower, upper = nets.boxes(rng, network, 1, radius=0.15)
        encoding = encode(network, crown(interval(network, lower, upper)))
        solution = get_solver("highs").solve(encoding.minimize(1), limits=Limits(20))
        assert solution.termination is Termination.OPTIMAL
        points = nets.points(rng, lower, upper, 2000)[:, 0]
        assert solution.objective <= network.forward(points).reshape(2000, -1)[:, 1].min() + 1e-6
        assert solution.primal is not None
        x = solution.primal[encoding.inputs].reshape(1, *network.input_shape)
        assert network.forward(x).reshape(-1)[1] == pytest.approx(solution.objective, abs=1e-5)


def test_stable_units_cost_no_binary_and_fixed_inputs_are_columns_still() -> None:
    rng = np.random.default_rng(35)
    network = nets.dense(rng, (4, 6, 6, 2))
    lower, upper = nets.boxes(rng, network, 1, radius=0.4)
    upper[:, 2] = lower[:, 2]
    bounds = crown(interval(network, lower, upper))
    encoding = encode(network, bounds)
    assert encoding.binaries == int(bounds.unstable_counts().sum())
    point = encode(network, crown(interval(network, lower, lower)))
    assert point.binaries == 0
    solution = get_solver("highs").solve(point.minimize(0), limits=Limits(5))
    assert solution.objective == pytest.approx(network.forward(lower)[0, 0], abs=1e-9)


def test_the_minimum_rises_to_the_exact_one_as_units_become_binary() -> None:
    rng = np.random.default_rng(36)
    solver, rose = get_solver("highs"), 0
    for _ in range(6):
        network = nets.dense(rng, (4, 9, 8, 2))
        lower, upper = nets.boxes(rng, network, 1, radius=0.5)
        encoding = encode(network, crown(interval(network, lower, upper)))
        exact = solver.solve(encoding.minimize(0), limits=Limits(20)).objective
        order = rng.permutation(encoding.binaries)
        found = []
        for count in np.linspace(0, len(order), 4).astype(int):
            chosen = np.zeros(len(order), bool)
            chosen[order[:count]] = True
            part = encoding.with_binaries(chosen)
            assert part.binaries == count
            solution = solver.solve(part.minimize(0), limits=Limits(20))
            assert solution.primal is not None
            gaps = part.gaps(solution.primal)
            assert gaps.min() >= -1e-6
            assert gaps[chosen].max(initial=0.0) <= 1e-6
            if gaps.max() <= 1e-9:  # a point of the network's own
                assert solution.objective == pytest.approx(exact, abs=1e-5)
            found.append(solution.objective)
        assert all(one <= two + 1e-6 for one, two in pairwise(found))
        assert found[-1] == pytest.approx(exact, abs=1e-6)
        rose += found[0] < exact - 1e-3
    assert rose > 3
