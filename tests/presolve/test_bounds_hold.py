"""Every method's bounds contain the values of sampled points and corners, in every node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import Search, crown, fast_lin, interval, optimize_rows, optimized_crown
from mipverify.presolve.linear import lp_tighten
from mipverify.presolve.separation import separate_rows
from mipverify.solvers import lp_session

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.backward import Evidence, row_minimum
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.cuts import IdealLayer, cuttable
from mipverify.proof.facts import Assumption
from mipverify.proof.rows import Rows, unit_rows
from tests.presolve.nets import boxes, branches, convolutional, dense, points

METHODS: dict[str, Callable[[Bounds], Bounds]] = {
    "interval": lambda bounds: bounds,
    "fast_lin": fast_lin,
    "crown": crown,
    "optimized_crown": lambda bounds: optimized_crown(bounds, Search(iterations=4)),
    "lp": lambda bounds: lp_tighten(crown(bounds), lp_session),
}
NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": dense,
    "skip": lambda rng: dense(rng, (4, 8, 8, 8, 3), skip=True),
    "convolutional": convolutional,
    "branches": branches,
}


def found_by(method: str, network: Network, lower: np.ndarray, upper: np.ndarray) -> list[Bounds]:
    """What a method finds for boxes together, or one by one where it works on single ones."""
    if method != "lp":
        return [METHODS[method](interval(network, lower, upper))]
    return [METHODS[method](interval(network, lower[k : k + 1], upper[k : k + 1])) for k in range(len(lower))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_sampled_points_lie_inside_every_bound(method: str, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network)
    entries = [(bounds, k) for bounds in found_by(method, network, lower, upper) for k in range(bounds.batch)]
    assert len(entries) == len(lower)
    for box, (bounds, k) in enumerate(entries):
        values = network.values(points(rng, lower[box], upper[box], 300))
        for node, value in enumerate(values):
            tolerance = 1e-9 * (1 + np.abs(value))  # the sampled values are themselves rounded
            assert (bounds.lower[node][k] <= value + tolerance).all(), (node, network.nodes[node])
            assert (bounds.upper[node][k] >= value - tolerance).all(), (node, network.nodes[node])


@pytest.mark.parametrize("kind", NETWORKS)
def test_sharper_methods_leave_fewer_unstable_units(kind: str) -> None:
    rng = np.random.default_rng(5)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network, radius=0.1)
    counts = [sum(b.unstable_counts().sum() for b in found_by(name, network, lower, upper)) for name in METHODS]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_bounds_do_not_depend_on_the_rest_of_the_batch(kind: str) -> None:
    rng = np.random.default_rng(6)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network)
    together = crown(interval(network, lower, upper))
    for box in range(len(lower)):
        alone = crown(interval(network, lower[box : box + 1], upper[box : box + 1]))
        for node in network.preactivations:
            np.testing.assert_allclose(together.lower[node][box], alone.lower[node][0], rtol=1e-4, atol=1e-4)


def any_evidence(bounds: Bounds, rows: Rows, rng: np.random.Generator) -> Evidence:
    """Numbers of no meaning, of either sign, for all that a search may choose; cuts that hold, as all made cuts do."""
    network, count = bounds.network, len(rows)
    slopes = {node: 2 * rng.normal(size=(count, *network.nodes[node].shape)) for node in network.relus}
    multipliers = {node: rng.normal(size=slopes[node].shape) for node in network.relus}
    cuts, factors = {}, {}
    for node in cuttable(network):
        if bounds.within is None and bounds.batch == 1 and bounds.unstable(node).any():
            layer, size = IdealLayer.of(bounds, node), bounds.lower[node].size
            z, y, weight = (rng.normal(size=(count, n)) for n in (len(layer.lower), size, size))
            cuts[node] = separate_rows(layer, z, y, np.abs(y), rng.random((count, size)), weight, 3)
            factors[node] = rng.normal(size=(count, len(cuts[node])))
    return Evidence(slopes, multipliers, cuts, factors)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_evidence_is_rows_hold_on_their_input_sets(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind](rng)
    lower, upper = boxes(rng, network, count=1, radius=0.3)
    bounds = crown(interval(network, lower, upper))
    x = points(rng, lower[0], upper[0], 2000)
    values = network.values(x)
    outputs = values[network.output].reshape(len(x), -1)
    units = rng.integers(network.output_size, size=8)
    rows = unit_rows(network, network.output, units, None, bounds.like)
    best = row_minimum(bounds, rows).lower
    for part in (rows, rows.negated(), rows.scaled(2.0 ** rng.integers(-3, 4, size=8))):
        assert part.claim is not None
        found = row_minimum(bounds, part, any_evidence(bounds, part, rng)).lower
        assert np.isfinite(found).all()
        assert (part.claim.factors * outputs[:, units] >= found - 1e-9 * (1 + np.abs(outputs[:, units]))).all()
    assert (row_minimum(bounds, rows, any_evidence(bounds, rows, rng)).lower < best).any()
    # Under assumptions, where a split has made one bound zero: each row in an entry of its own.
    phases = [(node, int(u)) for node in network.relus for u in np.flatnonzero(bounds.unstable(node)[0])]
    assumptions, inside = [], []
    for _ in range(8):
        start = rng.integers(len(x))
        chosen = [phases[k] for k in rng.permutation(len(phases))[: rng.integers(1, 4)]]
        at = {(node, u): values[network.relu_source(node)].reshape(len(x), -1)[:, u] for node, u in chosen}
        signs = {key: 1 if z[start] >= 0 else -1 for key, z in at.items()}
        assumptions.append(Assumption(tuple((*key, sign) for key, sign in signs.items())))
        inside.append(np.all([np.ones(len(x), bool), *(signs[key] * z >= 0 for key, z in at.items())], axis=0))
    parts = assume(bounds, assumptions, [None] * 8)
    found = row_minimum(parts, rows, any_evidence(parts, rows, rng)).lower
    for k in range(8):
        assert inside[k].any()
        assert (outputs[inside[k], units[k]] >= found[k] - 1e-9 * (1 + np.abs(found[k]))).all()


@pytest.mark.parametrize("kind", ["slopes", "multipliers", "cut_multipliers"])
def test_one_kind_of_evidence_out_of_its_range_proves_nothing_wrong(kind: str) -> None:
    """Everything else as good as it gets, so that bounds are near the truth, and what is wrong would show."""
    rng = np.random.default_rng(9)
    near = []
    for _ in range(20):
        network = dense(rng, (3, 6, 5, 2))
        lower, upper = boxes(rng, network, count=1, radius=0.4)
        bounds = optimized_crown(interval(network, lower, upper))
        rows = unit_rows(network, network.output, np.arange(2), None, bounds.like)
        best, random = optimize_rows(bounds, rows, Search(enough=np.inf)), any_evidence(bounds, rows, rng)
        least = network.forward(points(rng, lower[0], upper[0], 3000)).min(axis=0)
        near.append((least - best.lower).min())
        good = Evidence({k: v.astype(float) for k, v in best.evidence.slopes.items()}, {}, random.cuts)
        for size in (-3.0, -1.0, -0.3, -0.1, 0.1, 0.3, 1.0, 3.0):
            values = {node: size * np.abs(array) for node, array in getattr(random, kind).items()}
            found = row_minimum(bounds, rows, replace(good, **{kind: values})).lower
            assert (found <= least + 1e-9).all()
    assert np.median(near) < 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_evidence_that_is_no_number_proves_nothing_wrong(bad: float) -> None:
    rng = np.random.default_rng(7)
    network = dense(rng)
    lower, upper = boxes(rng, network, count=1, radius=0.5)
    bounds = crown(interval(network, lower, upper))
    rows = unit_rows(network, network.output, np.arange(4), None, bounds.like)
    least = network.forward(points(rng, lower[0], upper[0], 2000)).min(axis=0)
    evidence = any_evidence(bounds, rows, rng)
    for kind in ("slopes", "multipliers", "cut_multipliers"):
        for array in getattr(evidence, kind).values():
            before = array.copy()
            array[...] = np.where(rng.random(array.shape) < 0.2, bad, array)
            with np.errstate(all="ignore"):
                assert (row_minimum(bounds, rows, evidence).lower <= least + 1e-9).all()
            array[...] = before


def test_facts_of_other_input_sets_are_refused() -> None:
    rng = np.random.default_rng(8)
    network = dense(rng)
    lower, upper = boxes(rng, network, count=1, radius=0.5)
    bounds = crown(interval(network, lower, upper))
    rows = unit_rows(network, network.output, np.arange(4), None, bounds.like)
    evidence = any_evidence(bounds, rows, rng)
    assert evidence.cuts
    with pytest.raises(ValueError, match="cut"):
        row_minimum(crown(interval(network, lower - 1, upper + 1)), rows, evidence)
    with pytest.raises(TypeError):
        row_minimum(bounds.surrogate(), rows)  # type: ignore[arg-type]


def test_published_facts() -> None:
    """x in [-1, 1]^2, A1 = [[1, -.5], [-.5, 1]], ReLU, A2 = [[1, -1], [1, -1]]: interval arithmetic gives +-3 / 2."""
    first = np.array([[1, -0.5], [-0.5, 1]], np.float32)
    second = np.array([[1, -1], [1, -1]], np.float32)
    nodes = (
        Input((2,)),
        Affine((2,), (Term(0, Dense(first)),)),
        Relu((2,), 1),
        Affine((2,), (Term(2, Dense(second)),)),
    )
    network = Network(nodes, 3)
    box = -np.ones((1, 2)), np.ones((1, 2))
    naive = interval(network, *box)
    sharp = crown(naive)
    np.testing.assert_allclose(naive.upper[3], 1.5, atol=1e-9)
    assert (sharp.upper[3] <= naive.upper[3]).all()
    best = network.forward(points(np.random.default_rng(0), box[0][0], box[1][0], 2000)).max()
    assert best <= sharp.upper[3].max()


def test_cancellation_does_not_fool_the_bounds() -> None:
    """1e16 + 1 - 1e16 is 1 in exact arithmetic and may be 0 or 2 in floating point: the bounds must contain it."""
    weight = np.array([[1e16, 1.0, -1e16]])
    network = Network((Input((3,)), Affine((1,), (Term(0, Dense(weight)),))), 1)
    one = np.ones((1, 3))
    bounds = interval(network, one, one)
    assert bounds.lower[1].item() <= 1.0 <= bounds.upper[1].item()
    rows = unit_rows(network, 1, np.array([0]), None, one)
    assert row_minimum(bounds, rows).lower[0] <= 1.0
    assert row_minimum(bounds, rows.negated()).lower[0] <= -1.0


@pytest.mark.parametrize("method", METHODS)
def test_overflow_proves_nothing(method: str) -> None:
    rng = np.random.default_rng(3)
    network = dense(rng, (3, 6, 6, 2))
    for node in network.nodes:
        for term in getattr(node, "terms", ()):
            term.operator.weight = term.operator.weight.astype(np.float64) * 1e200
    lower, upper = boxes(rng, network, count=1)
    with np.errstate(all="ignore"):
        (bounds,) = found_by(method, network, lower, upper)
        found = row_minimum(bounds, unit_rows(network, network.output, np.arange(2), None, lower)).lower
    assert not bounds.finite()[0] or np.isneginf(found).all() or np.isfinite(found).all()
