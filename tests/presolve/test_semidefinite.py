"""Semidefinite bounds hold at every point, whatever the search came to, and are tight where triangles are not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import interval, optimized_crown
from mipverify.presolve.semidefinite import Optimized, SemidefiniteSearch, Vectors

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import EVERYWHERE, Assumption
from mipverify.proof.reduction import reduce
from mipverify.proof.semidefinite import SemidefiniteRelaxation, SingleLayer, _highest
from tests.presolve import nets

WIDTHS = [(3, 5, 2), (6, 14, 3), (30, 60, 3), (60, 25, 4)]


def reduced(network: Network, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    return reduce(interval(network, lower[None], upper[None])).bounds


def shallow_of(network: Network, lower: np.ndarray, upper: np.ndarray) -> SingleLayer:
    found = SingleLayer.of(reduced(network, lower, upper))
    assert found is not None
    return found


def box(rng: np.random.Generator, network: Network, radius: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = nets.boxes(rng, network, 1, radius)
    return lower[0], upper[0]


def assumed(single_layer: SingleLayer, known: np.ndarray) -> list[Assumption]:
    """Assumptions that give the units of one unstable layer these signs (K, U): 1, -1, or 0 for either."""
    return [
        Assumption(tuple((single_layer.relu, int(single_layer.units[u]), int(row[u])) for u in np.flatnonzero(row)))
        for row in known
    ]


def solve(
    single_layer: SingleLayer, rows: np.ndarray, assumptions: list[Assumption] | None = None, rounds: int = 30
) -> Optimized:
    search = SemidefiniteSearch(single_layer)
    vectors = Vectors.stack([search.start(int(row)) for row in rows])
    return search.solve(rows, assumptions or [EVERYWHERE] * len(rows), vectors, rounds, 0.15)


def lower_of(single_layer: SingleLayer, count: int, rounds: int = 30) -> np.ndarray:
    """What is proven of the first outputs where nothing is assumed."""
    return np.asarray(solve(single_layer, np.arange(count), rounds=rounds).bound.lower)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("rounds", [7, 40])
def test_bounds_hold_at_points(widths: tuple[int, ...], rounds: int) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, widths)
        lower, upper = box(rng, network)
        single_layer = SingleLayer.of(reduced(network, lower, upper))
        if single_layer is None:  # nothing is unstable in this box
            continue
        found = solve(single_layer, np.arange(widths[-1]), rounds=rounds)
        values = network.forward(nets.points(rng, lower[None], upper[None], 3000)[:, 0])
        assert np.isfinite(found.bound.lower).all()
        assert (found.bound.lower <= values.min(axis=0)).all()
        assert ((found.minimizer >= lower - 1e-9) & (found.minimizer <= upper + 1e-9)).all()


def test_stable_units_count_once() -> None:
    stable = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (5, 30, 2))
        lower, upper = box(rng, network, 0.3)
        bounds = interval(network, lower[None], upper[None])
        stable += int((np.asarray(bounds.lower[network.relu_source(network.relus[0])]) >= 0).sum())
        single_layer = SingleLayer.of(bounds)  # not reduced: rows pass through active units, which are no units then
        assert single_layer is not None
        assert len(single_layer.units) == int(np.asarray(bounds.unstable(network.relus[0])).sum())
        found = lower_of(single_layer, 2, rounds=40)
        points = nets.points(rng, lower[None], upper[None], 2000)[:, 0]
        assert (found <= network.forward(points).min(axis=0)).all()
        hidden = np.maximum(points @ single_layer.weights.T + single_layer.bias, 0)
        again = points @ single_layer.linear.T + single_layer.constant + hidden @ single_layer.coefficients.T
        np.testing.assert_allclose(again, network.forward(points), atol=1e-9)
    assert stable > 50


def test_they_are_close_where_triangles_add_up() -> None:
    rng = np.random.default_rng(5)
    network = nets.dense(rng, (60, 40, 4))
    lower, upper = np.full(60, -0.3), np.full(60, 0.3)
    single_layer = shallow_of(network, lower, upper)
    found = lower_of(single_layer, 4)
    by_lines = optimized_crown(interval(network, lower[None], upper[None])).lower[network.output][0]
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
        single_layer = shallow_of(network, lower, upper)
        points = nets.points(rng, lower[None], upper[None], 20000)[:, 0]
        z = points @ single_layer.weights.T + single_layer.bias
        rows = np.repeat([0, 1], 6)
        known = rng.choice([-1, 0, 1], (12, len(single_layer.bias)), p=[0.2, 0.6, 0.2])
        found = solve(single_layer, rows, assumed(single_layer, known), rounds=40).bound
        free = lower_of(single_layer, 2, rounds=40)
        values = bounds.network.forward(points)
        for k, row in enumerate(rows):
            inside = (known[k] * z >= 0).all(axis=1)
            if inside.any():
                assert found.lower[k] <= values[inside, row].min() + 1e-12
                seen += 1
            raised += found.lower[k] > free[row] + 1e-3
    assert seen > 30
    assert raised > 60


def test_bounds_speak_of_the_part_of_the_input_set_that_was_assumed() -> None:
    rng = np.random.default_rng(12)
    network = nets.dense(rng, (4, 9, 2))
    lower, upper = box(rng, network, 0.8)
    single_layer = shallow_of(network, lower, upper)
    known = rng.choice([-1, 0, 1], (2, len(single_layer.units)))
    assumptions = assumed(single_layer, known)
    elsewhere = Assumption(
        ((single_layer.relu + 1, 0, 1), (single_layer.relu, 10**6, -1))
    )  # of other nodes, or stable units
    np.testing.assert_array_equal(SemidefiniteRelaxation(single_layer).signs([*assumptions, elsewhere])[:2], known)
    assert not SemidefiniteRelaxation(single_layer).signs([elsewhere]).any()
    fact = solve(single_layer, np.array([1, 0]), assumptions).bound
    assert [fact.scope.assumption(k) for k in range(2)] == assumptions
    assert single_layer.bounds.scope.key in fact.scope.wider
    assert fact.claim is not None
    assert (fact.claim.node, fact.claim.units.tolist()) == (single_layer.bounds.network.output, [1, 0])


def test_a_lying_search_proves_nothing_that_is_wrong() -> None:
    rng = np.random.default_rng(3)
    proven = 0
    for seed in range(30):
        network = nets.dense(np.random.default_rng(seed), (4, 8, 2))
        lower, upper = np.full(4, -0.8), np.full(4, 0.8)
        single_layer = shallow_of(network, lower, upper)
        count = len(single_layer.bias)
        relaxation = SemidefiniteRelaxation(single_layer)

        def prove(
            lines: np.ndarray,
            alpha: np.ndarray,
            beta: np.ndarray,
            relaxation: SemidefiniteRelaxation = relaxation,
        ) -> np.ndarray:
            two = (np.stack([part, part]) for part in (lines, alpha, beta))
            return np.asarray(relaxation.prove(np.arange(2), [EVERYWHERE] * 2, *two).lower)

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
            wild = np.where(rng.random(count) < 0.5, bad, lines)
            assert not (prove(wild, np.ones(4), np.ones(count + 1)) > values.min(axis=0)).any()
    assert proven > 30


def one_unit(coefficient: float) -> SingleLayer:
    """coefficient * relu(z) for z = x in [0.99, 1.01], which interval arithmetic knows to be in [-0.01, 2.01] only."""
    two, one = np.array([[51.0], [50.0]]), np.array([[1.0, -1.0]])
    nodes = (
        Input((1,)),
        Affine((2,), (Term(0, Dense(two)),)),
        Affine((1,), (Term(1, Dense(one)),)),
        Relu((1,), 2),
        Affine((1,), (Term(3, Dense(np.array([[coefficient]]))),)),
    )
    single_layer = SingleLayer.of(interval(Network(nodes, 4), np.array([[0.99]]), np.array([[1.01]])))
    assert single_layer is not None
    assert single_layer.lower[0] < 0 < single_layer.upper[0]
    return single_layer


@pytest.mark.parametrize(
    ("sign", "coefficient", "lines"), [(0, 1.0, 2.0), (1, 1.0, -3.0), (0, -1.0, -2.0), (0, -1.0, 3.0)]
)
def test_lines_out_of_their_range_prove_nothing_that_is_wrong(sign: int, coefficient: float, lines: float) -> None:
    single_layer = one_unit(coefficient)
    least, proven = min(0.99 * coefficient, 1.01 * coefficient), 0
    for alpha, beta in ((0.02, (0.5, 0.5)), (0.02, (1.0, 1.0)), (0.1, (3.0, 3.0)), (0.04, (1e-9, 0.04))):
        duals = np.array([[alpha]]), np.array([beta])
        assumptions = assumed(single_layer, np.full((1, 1), sign))
        fact = SemidefiniteRelaxation(single_layer).prove(np.zeros(1, int), assumptions, np.full((1, 1), lines), *duals)
        assert fact.lower[0] <= least
        proven += bool(np.isfinite(fact.lower[0]))
    assert proven


def test_an_eigenvalue_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a decomposition says but what the other one confirms is proven."""
    rng = np.random.default_rng(10)
    true, lower, upper = np.linalg.eigvalsh, np.full(4, -0.8), np.full(4, 0.8)
    seen = 0
    for seed in range(30):
        network = nets.dense(np.random.default_rng(seed), (4, 8, 2))
        single_layer = shallow_of(network, lower, upper)
        concave = np.flatnonzero((single_layer.coefficients < 0).any(axis=1))[:1]
        if not len(concave):
            continue
        relaxation, best = SemidefiniteRelaxation(single_layer), solve(single_layer, concave)
        evidence = best.vectors.lines, rng.random((1, 4)) + 0.1, rng.random((1, len(single_layer.bias) + 1)) + 0.1

        def prove(r: SemidefiniteRelaxation = relaxation, row: np.ndarray = concave, e: tuple = evidence) -> float:
            return float(r.prove(row, [EVERYWHERE], *e).lower[0])

        assert np.isfinite(prove())
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: 0.5 * true(matrix))
        assert prove() == -np.inf
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: np.nan * true(matrix))
        assert prove() == -np.inf
        monkeypatch.setattr(np.linalg, "eigvalsh", true)
        seen += 1
    assert seen > 20


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
            found, *_ = _highest(b, corner, rng.random(inputs) * 4, rng.random(units + 1) * 4)
            assert found == np.inf or Fraction(found) >= best
            finite += np.isfinite(found)
    assert finite > 100


def test_bounds_hold_for_all_that_uncertain_values_may_be() -> None:
    ratios, moved = np.array([0.1, 0.2, 0.4]), 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (6, 14, 3))
        lower, upper = box(rng, network)
        first, hidden, relu, last = network.nodes
        assert isinstance(hidden, Affine)
        assert isinstance(last, Affine)
        vague = replace(hidden, error_bound=np.full(14, 0.05)), replace(last, error_bound=ratios)
        single_layer = SingleLayer.of(interval(Network((first, vague[0], relu, vague[1]), 3), lower[None], upper[None]))
        assert single_layer is not None
        found, firm = lower_of(single_layer, 3), lower_of(shallow_of(network, lower, upper), 3)
        points = nets.points(rng, lower[None], upper[None], 2000)[:, 0]
        z = network.values(points)[1]
        weight = np.asarray(last.terms[0].operator.weight, float)  # type: ignore[attr-defined]
        for row in range(3):
            worst = z - 0.05 * np.sign(weight[row])  # activations moved to where they do most harm
            least = (np.maximum(worst, 0) @ weight[row] + last.bias[row] - ratios[row]).min()
            assert found[row] <= least
            moved += least < firm[row]
    assert moved, "values that stay above the bounds without error bounds would show no fault"


def test_outputs_scale_as_they_should() -> None:
    rng = np.random.default_rng(6)
    network = nets.dense(rng, (6, 14, 3))
    lower, upper = box(rng, network)
    *below, last = network.nodes
    assert isinstance(last, Affine)
    before = lower_of(shallow_of(network, lower, upper), 3)
    for factor in (2.0**-20, 2.0**20):
        operator = Dense(factor * np.asarray(last.terms[0].operator.weight, float))  # type: ignore[attr-defined]
        large = Affine(last.shape, (Term(last.terms[0].source, operator),), factor * np.asarray(last.bias, float))
        after = lower_of(shallow_of(Network((*below, large), network.output), lower, upper), 3)
        np.testing.assert_allclose(after, factor * before, rtol=1e-3, atol=1e-3 * factor)


def test_networks_of_two_unstable_layers_are_refused() -> None:
    rng = np.random.default_rng(1)
    network = nets.dense(rng, (4, 10, 10, 2))
    assert SingleLayer.of(reduced(network, np.full(4, -1.0), np.full(4, 1.0))) is None
    # In a small box the second layer of some network is stable, and the first is not.
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (4, 10, 4, 2))
        center = rng.normal(size=4)
        small = reduced(network, center - 0.08, center + 0.08)
        single_layer = SingleLayer.of(small)
        if single_layer is None or len(small.network.relus) != 1:
            continue
        lower = lower_of(single_layer, 2)
        points = nets.points(rng, center[None] - 0.08, center[None] + 0.08, 2000)[:, 0]
        assert (lower <= network.forward(points).min(axis=0)).all()
        found += 1
    assert found > 2


def test_fixed_inputs_and_a_point_are_boxes_too() -> None:
    rng = np.random.default_rng(2)
    network = nets.dense(rng, (5, 12, 2))
    center = rng.normal(size=5)
    reach = np.array([0.5, 0.0, 0.3, 0.0, 0.0])
    single_layer = shallow_of(network, center - reach, center + reach)
    lower = lower_of(single_layer, 2)
    points = nets.points(rng, (center - reach)[None], (center + reach)[None], 2000)[:, 0]
    assert np.isfinite(lower).all()
    assert (lower <= network.forward(points).min(axis=0)).all()
    assert isinstance(network.nodes[network.output], Affine)
