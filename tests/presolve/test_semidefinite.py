"""Semidefinite bounds hold at every point, whatever the search came to, and are tight where triangles are not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import interval, optimized_crown, reduce
from mipverify.presolve.semidefinite import Lifted, Lifting, Shallow, Vectors, _highest

from mipverify.network import Affine, Network
from mipverify.proof.bounds import Bounds
from tests.presolve import nets

WIDTHS = [(3, 5, 2), (6, 14, 3), (30, 60, 3), (60, 25, 4)]


def reduced(network: Network, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    return reduce(interval(network, lower[None], upper[None])).bounds


def shallow_of(network: Network, lower: np.ndarray, upper: np.ndarray) -> Shallow:
    found = Shallow.of(reduced(network, lower, upper))
    assert found is not None
    return found


def box(rng: np.random.Generator, network: Network, radius: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = nets.boxes(rng, network, 1, radius)
    return lower[0], upper[0]


def nothing_known(shallow: Shallow) -> np.ndarray:
    return np.zeros(shallow.coefficients.shape, np.int8)


def solve(shallow: Shallow, rows: np.ndarray, known: np.ndarray, rounds: int = 30) -> Lifted:
    lifting = Lifting(shallow)
    return lifting.solve(rows, known, Vectors.stack([lifting.start(int(row)) for row in rows]), rounds, 0.15)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("rounds", [7, 40])
def test_bounds_hold_at_points(widths: tuple[int, ...], rounds: int) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, widths)
        lower, upper = box(rng, network)
        shallow = Shallow.of(reduced(network, lower, upper))
        if shallow is None:  # nothing is unstable in this box
            continue
        found = solve(shallow, np.arange(widths[-1]), nothing_known(shallow), rounds=rounds)
        values = network.forward(nets.points(rng, lower[None], upper[None], 3000)[:, 0])
        assert np.isfinite(found.lower).all()
        assert (found.lower <= values.min(axis=0)).all()
        assert ((found.minimizer >= lower - 1e-9) & (found.minimizer <= upper + 1e-9)).all()


def test_stable_units_count_once() -> None:
    stable = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (5, 30, 2))
        lower, upper = box(rng, network, 0.3)
        bounds = interval(network, lower[None], upper[None])
        stable += int((np.asarray(bounds.lower[network.relu_source(network.relus[0])]) >= 0).sum())
        shallow = Shallow.of(bounds)  # not reduced: rows pass through active units, which are no units then
        assert shallow is not None
        assert len(shallow.units) == int(np.asarray(bounds.unstable(network.relus[0])).sum())
        found = solve(shallow, np.arange(2), nothing_known(shallow), rounds=40).lower
        points = nets.points(rng, lower[None], upper[None], 2000)[:, 0]
        assert (found <= network.forward(points).min(axis=0)).all()
        hidden = np.maximum(points @ shallow.weights.T + shallow.bias, 0)
        again = points @ shallow.linear.T + shallow.constant + hidden @ shallow.coefficients.T
        np.testing.assert_allclose(again, network.forward(points), atol=1e-9)
    assert stable > 50


def test_they_are_close_where_triangles_add_up() -> None:
    rng = np.random.default_rng(5)
    network = nets.dense(rng, (60, 40, 4))
    lower, upper = np.full(60, -0.3), np.full(60, 0.3)
    shallow = shallow_of(network, lower, upper)
    found = solve(shallow, np.arange(4), nothing_known(shallow)).lower
    by_lines = optimized_crown(network, lower[None], upper[None]).lower[network.output][0]
    points = nets.points(rng, lower[None], upper[None], 4000)[:, 0]
    for _ in range(60):  # steps down along the gradient: a bound on the bound from the other side
        x = points[np.argmin(network.forward(points), axis=0)]
        points = np.clip(
            np.repeat(x, 300, axis=0) + rng.choice([-0.6, 0, 0.6], (1200, 60), p=[0.02, 0.96, 0.02]), -0.3, 0.3
        )
        points[:4] = x
    truth = network.forward(points).min(axis=0)
    assert (found <= truth).all()
    assert (truth - found < 0.35 * (truth - by_lines)).all()


def test_bounds_under_known_signs_hold_where_the_signs_do() -> None:
    seen = raised = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 9, 2))
        lower, upper = box(rng, network, 0.8)
        bounds = reduced(network, lower, upper)
        shallow = shallow_of(network, lower, upper)
        points = nets.points(rng, lower[None], upper[None], 20000)[:, 0]
        z = points @ shallow.weights.T + shallow.bias
        rows = np.repeat([0, 1], 6)
        known = rng.choice([-1, 0, 1], (12, len(shallow.bias)), p=[0.2, 0.6, 0.2])
        found = solve(shallow, rows, known, rounds=40)
        free = solve(shallow, np.arange(2), nothing_known(shallow), rounds=40).lower
        values = bounds.network.forward(points)
        for k, row in enumerate(rows):
            inside = (known[k] * z >= 0).all(axis=1)
            if inside.any():
                assert found.lower[k] <= values[inside, row].min() + 1e-12
                seen += 1
            raised += found.lower[k] > free[row] + 1e-3
    assert seen > 30
    assert raised > 60


def test_a_lying_search_proves_nothing_that_is_wrong() -> None:
    rng = np.random.default_rng(3)
    proven = 0
    for seed in range(30):
        network = nets.dense(np.random.default_rng(seed), (4, 8, 2))
        lower, upper = np.full(4, -0.8), np.full(4, 0.8)
        shallow = shallow_of(network, lower, upper)
        count = len(shallow.bias)
        lifting = Lifting(shallow)

        def prove(
            lines: np.ndarray, alpha: np.ndarray, beta: np.ndarray, lifting: Lifting = lifting, count: int = count
        ) -> np.ndarray:
            two = (np.stack([part, part]) for part in (lines, alpha, beta))
            return lifting.prove(np.arange(2), np.zeros((2, count), np.int8), *two)

        values = network.forward(nets.points(rng, lower[None], upper[None], 2000)[:, 0])
        for size in (1.0, 1e-6, 1e6):
            lines = rng.random(count).astype(np.float32)
            alpha, beta = size * rng.random(4), size * rng.random(count + 1)
            alpha[rng.random(4) < 0.3] = 0.0
            found = prove(lines, alpha, beta)
            assert (found <= values.min(axis=0)).all()
            proven += np.isfinite(found).sum()
        for bad in (np.nan, np.inf, -1e9):
            alpha, beta = np.ones(4), np.ones(count + 1)
            alpha[0] = beta[-1] = bad
            assert not (prove(lines, alpha, beta) > values.min(axis=0)).any()
    assert proven > 30


@pytest.mark.parametrize(
    ("sign", "coefficient", "lines"), [(0, 1.0, 2.0), (1, 1.0, -3.0), (0, -1.0, -2.0), (0, -1.0, 3.0)]
)
def test_lines_out_of_their_range_prove_nothing_that_is_wrong(sign: int, coefficient: float, lines: float) -> None:
    one, zero = np.ones(1), np.zeros(1)
    shallow = Shallow(
        np.ones((1, 1)), zero, zero, -0.01 * one, 1.01 * one, np.zeros((1, 1)), np.full((1, 1), coefficient),
        zero, zero, one, 0.01 * one, 2, np.zeros(1, int),
    )  # fmt: skip
    least = min(0.99 * coefficient, 1.01 * coefficient)
    for alpha, beta in ((0.02, (0.5, 0.5)), (0.02, (1.0, 1.0)), (0.1, (3.0, 3.0)), (0.04, (1e-9, 0.04))):
        duals = np.array([[alpha]]), np.array([beta])
        (found,) = Lifting(shallow).prove(np.zeros(1, int), np.full((1, 1), sign), np.full((1, 1), lines), *duals)
        assert found <= least


def test_an_eigenvalue_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    true, refused = np.linalg.eigvalsh, 0
    for _ in range(60):
        b, corner = rng.normal(size=(4, 3)), rng.normal(size=3)
        alpha, beta = rng.random(3) + 0.1, rng.random(4) + 0.1
        honest = _highest(b, corner, alpha, beta)
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: 0.5 * true(matrix))
        refused += _highest(b, corner, alpha, beta) == np.inf
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: np.nan * true(matrix))
        assert _highest(b, corner, alpha, beta) == np.inf
        monkeypatch.setattr(np.linalg, "eigvalsh", true)
        assert np.isfinite(honest)
    assert refused == 60


def test_the_maximum_over_all_signs_is_below_what_is_proven() -> None:
    rng = np.random.default_rng(8)
    finite = 0
    for _ in range(60):
        units, inputs = rng.integers(1, 5, 2)
        b = rng.integers(-8, 9, (units + 1, inputs)) / 4
        corner = rng.integers(-8, 9, units) / 4
        best = Fraction(-(10**9))
        for signs in itertools.product((-1, 1), repeat=int(units)):
            q = [Fraction(s) for s in (*signs, 1)]
            along = [sum(q[j] * Fraction(b[j, i]) for j in range(units + 1)) for i in range(inputs)]
            best = max(best, sum(map(abs, along)) + sum(q[j] * Fraction(corner[j]) for j in range(units)))
        for _ in range(3):
            found = _highest(b, corner, rng.random(inputs) * 4, rng.random(units + 1) * 4)
            assert found == np.inf or Fraction(found) >= best
            finite += np.isfinite(found)
    assert finite > 100


def test_bounds_hold_for_all_that_uncertain_values_may_be() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (6, 14, 3))
        lower, upper = box(rng, network)
        shallow = shallow_of(network, lower, upper)
        vague = replace(shallow, uncertainty=np.full(len(shallow.bias), 0.05), doubt=np.array([0.1, 0.2, 0.4]))
        found = solve(vague, np.arange(3), nothing_known(shallow)).lower
        points = nets.points(rng, lower[None], upper[None], 2000)[:, 0]
        z = points @ shallow.weights.T + shallow.bias
        base = points @ shallow.linear.T + shallow.constant - vague.doubt
        for row in range(3):
            worst = z - 0.05 * np.sign(shallow.coefficients[row])  # activations moved to where they do most harm
            worst = np.clip(worst, shallow.lower, shallow.upper)
            assert found[row] <= (base[:, row] + np.maximum(worst, 0) @ shallow.coefficients[row]).min()


def test_outputs_scale_as_they_should() -> None:
    rng = np.random.default_rng(6)
    network = nets.dense(rng, (6, 14, 3))
    lower, upper = box(rng, network)
    shallow = shallow_of(network, lower, upper)
    before = solve(shallow, np.arange(3), nothing_known(shallow)).lower
    for factor in (2.0**-20, 2.0**20):
        large = replace(
            shallow,
            linear=factor * shallow.linear,
            coefficients=factor * shallow.coefficients,
            constant=factor * shallow.constant,
            doubt=factor * shallow.doubt,
        )
        after = solve(large, np.arange(3), nothing_known(shallow)).lower
        np.testing.assert_allclose(after, factor * before, rtol=1e-3, atol=1e-3 * factor)


def test_networks_of_two_unstable_layers_are_refused() -> None:
    rng = np.random.default_rng(1)
    network = nets.dense(rng, (4, 10, 10, 2))
    assert Shallow.of(reduced(network, np.full(4, -1.0), np.full(4, 1.0))) is None
    # In a small box the second layer of some network is stable, and the first is not.
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 10, 4, 2))
        center = rng.normal(size=4)
        small = reduced(network, center - 0.08, center + 0.08)
        shallow = Shallow.of(small)
        if shallow is None or len(small.network.relus) != 1:
            continue
        lower = solve(shallow, np.arange(2), nothing_known(shallow)).lower
        points = nets.points(rng, center[None] - 0.08, center[None] + 0.08, 2000)[:, 0]
        assert (lower <= network.forward(points).min(axis=0)).all()
        found += 1
    assert found > 2


def test_fixed_inputs_and_a_point_are_boxes_too() -> None:
    rng = np.random.default_rng(2)
    network = nets.dense(rng, (5, 12, 2))
    center = rng.normal(size=5)
    reach = np.array([0.5, 0.0, 0.3, 0.0, 0.0])
    shallow = shallow_of(network, center - reach, center + reach)
    lower = solve(shallow, np.arange(2), nothing_known(shallow)).lower
    points = nets.points(rng, (center - reach)[None], (center + reach)[None], 2000)[:, 0]
    assert np.isfinite(lower).all()
    assert (lower <= network.forward(points).min(axis=0)).all()
    assert isinstance(network.nodes[network.output], Affine)
