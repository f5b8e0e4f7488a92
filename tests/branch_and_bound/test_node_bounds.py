"""The bound of a node of the phase tree lies below every value that a point with the node's phases takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval, optimized_crown
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.relaxed import child
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.formulation.margin import margin_network
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Scale
from mipverify.proof.backward import Evidence, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Assumption
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.presolve import nets
from tests.soundness.nets import dense, picked, question

Splits = tuple[tuple[int, int, int], ...]


def shared(rng: np.random.Generator) -> Network:
    """Two ReLU nodes that read one pre-activation, and a sum of both with the pre-activation itself."""
    weight = rng.normal(size=(7, 5)).astype(np.float32)
    last = rng.normal(size=(3, 7)).astype(np.float32)
    half, more, some = (Scale(np.float32(v), (7,)) for v in (0.5, -1.5, 0.25))
    nodes = (
        Input((5,)),
        Affine((7,), (Term(0, Dense(weight)),), rng.normal(size=7).astype(np.float32)),
        Relu((7,), 1),
        Relu((7,), 1),
        Affine((7,), (Term(2, half), Term(3, more), Term(1, some))),
        Relu((7,), 4),
        Affine((3,), (Term(5, Dense(last)), Term(2, Dense(last)))),
    )
    return Network(nodes, 6)


def conjunctive(rng: np.random.Generator) -> Network:
    """The margins of two conditions, a conjunction of three rows and one of two."""
    network = nets.dense(rng, (5, 8, 6, 4))
    rows = [(rng.normal(size=4).astype(np.float32).tolist(), float(np.float32(rng.normal()))) for _ in range(5)]
    case = question(np.zeros(5), np.ones(5), [rows[:3], rows[3:]]).cases[0]
    return margin_network(network, case.conditions)


def layered(rng: np.random.Generator) -> Network:
    """As `reduce` makes them: every layer reads the input and all layers before it."""
    network = nets.dense(rng, (5, 9, 8, 6, 3))
    return reduce(crown(interval(network, np.full((1, 5), -2.0), np.full((1, 5), 2.0)))).bounds.network


NETWORKS = {
    "dense": nets.dense,
    "layered": layered,
    "deep": lambda rng: nets.dense(rng, (5, 6, 6, 6, 6, 6, 2), skip=True),
    "convolutional": nets.convolutional,
    "shared": shared,
    "conjunctions": conjunctive,
}


def bounder_of(
    network: Network, lower: np.ndarray, upper: np.ndarray, iterations: int = 12, clipping: DomainClipping | None = None
) -> PhaseBounder:
    """A bounder with a row for each output."""
    bounds = crown(interval(network, lower[None], upper[None]))
    rows = unit_rows(network, network.output, np.arange(network.output_size), None, lower)
    return PhaseBounder(bounds, rows, Search(iterations=iterations, decay=0.9), clipping=clipping)


def node_of(condition: int, splits: Splits) -> Node:
    """A node that nothing is known of."""
    return replace(root(condition), assumption=Assumption(splits))


def unstable_units(root: Bounds) -> list[tuple[int, int]]:
    return [(r, int(u)) for r in root.network.relus for u in np.flatnonzero(np.asarray(root.unstable(r))[0])]


def some_node(
    network: Network, units: list[tuple[int, int]], values: list[np.ndarray], k: int, count: int,
    rng: np.random.Generator,
) -> Splits:  # fmt: skip
    """Some units, with the phases they have at the k-th point."""
    chosen = [units[i] for i in rng.permutation(len(units))[:count]]
    signs = [1 if values[network.relu_source(r)][k].reshape(-1)[u] >= 0 else -1 for r, u in chosen]
    return tuple((r, u, s) for (r, u), s in zip(chosen, signs, strict=True))


def agree(network: Network, values: list[np.ndarray], splits: Splits) -> np.ndarray:
    """Which of the points (N,) lie in a node."""
    good = np.ones(len(values[0]), bool)
    for relu, unit, sign in splits:
        x = values[network.relu_source(relu)].reshape(len(good), -1)[:, unit]
        good &= (x >= 0) if sign > 0 else (x <= 0)
    return good


def lowest_inside(
    network: Network, lower: np.ndarray, upper: np.ndarray, splits: Splits, start: np.ndarray, output: int,
    rng: np.random.Generator,
) -> float:  # fmt: skip
    """The least value of an output that a random walk downhill from `start` finds without leaving the node."""
    best, x, width = np.inf, start, 0.5
    for _ in range(14):
        moved = x[None] + rng.normal(size=(150, *x.shape)) * width * (upper - lower) * (
            rng.random((150, *x.shape)) < 0.4
        )
        points = np.concatenate([x[None], np.clip(moved, lower, upper)])
        values = network.values(points)
        result = values[network.output].reshape(len(points), -1)[:, output]
        result = np.where(agree(network, values, splits), result, np.inf)
        if result.min() >= best:
            width *= 0.6
        best, x = min(best, float(result.min())), points[np.argmin(result)]
    return best


@pytest.mark.parametrize("kind", NETWORKS)
def test_node_bounds_lie_below_what_attacks_inside_the_node_find(kind: str) -> None:
    rng = np.random.default_rng(3)
    gaps = []
    for trial in range(4):
        network = NETWORKS[kind](rng)
        radius = 0.8 if trial % 2 else 0.25
        ((lower, upper),) = zip(*(side for side in nets.boxes(rng, network, 1, radius=radius)), strict=True)
        bounder = bounder_of(network, lower, upper)
        units = unstable_units(bounder.root)
        starts = rng.uniform(lower, upper, size=(6, *lower.shape))
        values, nodes = network.values(starts), []
        for k in range(len(starts)):
            count = len(units) if k % 2 else int(rng.integers(0, 9))  # all phases fixed: bounds are tight there
            splits = some_node(network, units, values, k, count, rng)
            nodes.append(node_of(int(rng.integers(network.output_size)), splits))
        solved, optimum, _ = bounder.solve(nodes)
        for k, node in enumerate(solved):
            low = lowest_inside(network, lower, upper, node.splits, starts[k], node.condition, rng)
            assert np.isfinite(low)
            assert optimum.lower[k] <= node.lower <= low + 1e-9 * (1 + abs(low))
            gaps.append((low - node.lower) / (1 + abs(low)))
    assert min(gaps) < 0.3, "bounds far below everything would show no fault"


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_node_with_a_point_at_zero_is_closed_by_clipped_bounds(kind: str) -> None:
    rng = np.random.default_rng(6)
    clipped, gained = 0, []
    for trial in range(5):
        network = NETWORKS[kind](rng)
        ((lower, upper),) = zip(*(side for side in nets.boxes(rng, network, 1, radius=0.5)), strict=True)
        plain = bounder_of(network, lower, upper)
        units = unstable_units(plain.root)
        start = rng.uniform(lower, upper)
        values, nodes, constants, conditions = network.values(start[None]), [], [], []
        for k in range(8):
            splits = some_node(network, units, values, 0, int(rng.integers(0, 1 + len(units))), rng)
            conditions.append(int(rng.integers(network.output_size)))
            constants.append(-lowest_inside(network, lower, upper, splits, start, conditions[-1], rng))
            nodes.append(node_of(k, splits))
        # Rows whose least value in their node is zero, or below where the walk did not find it.
        asked, ceiling = picked(network, np.array(conditions), np.array(constants)), 10.0 ** -int(trial)
        bounder = bounder_of(asked, lower, upper, clipping=DomainClipping(asked, ceiling))
        solved, _ = bounder.raise_bounds(nodes)
        without, _ = bounder_of(asked, lower, upper).raise_bounds(nodes)
        for node, same in zip(solved, without, strict=True):
            assert node.lower <= 1e-9
            clipped += narrower(node, bounder.root)
            gained.append(node.lower - same.lower)
    assert clipped
    assert max(gained) > 1e-6, "bounds that clipping does not raise would show no fault"


def narrower(node: Node, bounds: Bounds) -> bool:
    """Whether a node has bounds of its own that are tighter than those of the whole box."""
    return node.entry is not None and any(
        bool((low > bounds.lower[source].reshape(-1)).any() or (high < bounds.upper[source].reshape(-1)).any())
        for source, (low, high) in node.entry.arrays.items()
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_clipped_nodes_claim_no_more_than_their_ceiling(kind: str) -> None:
    rng = np.random.default_rng(8)
    network = NETWORKS[kind](rng)
    ((lower, upper),) = zip(*(side for side in nets.boxes(rng, network, 1, radius=0.8)), strict=True)
    bounder = bounder_of(network, lower, upper)
    start = bounder.raise_bounds([root(0)])[0]
    seen = bounder.network.forward(nets.points(rng, lower[None], upper[None], 4000)[:, 0]).reshape(4000, -1)[:, 0]
    # Hidden bounds that hold where the row is not above its ceiling; higher up it takes any value.
    ceiling = float(start[0].lower + 0.5 * (seen.min() - start[0].lower))
    (clipped,) = DomainClipping(network, ceiling).clip(*bounder.solve(start))
    assert clipped.entry is not None
    assert clipped.ceiling == ceiling
    again = DomainClipping(network, ceiling + 1).clip(*bounder.solve([clipped]))
    assert again[0].ceiling == ceiling, "bounds that were clipped further down are among them"
    patient = Search(iterations=200, decay=0.98, enough=np.inf)
    for node in (clipped, *again):
        assumption = replace(node.assumption, splits=some_signs(bounder, rng))
        solved, optimum, _ = bounder.solve([replace(node, assumption=assumption, fact=None)], patient)
        assert solved[0].lower <= ceiling
        assert solved[0].lower == max(node.lower, min(float(optimum.lower[0]), ceiling))


def some_signs(bounder: PhaseBounder, rng: np.random.Generator) -> Splits:
    """Phases for all unstable units, taken at random: as high as the row gets in any part of the box."""
    return tuple((relu, unit, int(rng.choice([-1, 1]))) for relu, unit in unstable_units(bounder.root))


@pytest.mark.parametrize("kind", ["dense", "deep", "conjunctions"])
def test_any_slopes_and_multipliers_give_a_sound_bound(kind: str) -> None:
    rng = np.random.default_rng(4)
    gaps = []
    for trial in range(6):
        network = NETWORKS[kind](rng)
        ((lower, upper),) = zip(*(side for side in nets.boxes(rng, network, 1, radius=0.8)), strict=True)
        bounder = bounder_of(network, lower, upper)
        units = unstable_units(bounder.root)
        start = rng.uniform(lower, upper)
        values = network.values(start[None])
        splits = some_node(network, units, values, 0, 6, rng)
        sizes = {r: int(np.prod(network.nodes[r].shape)) for r in network.relus}
        wild = 3.0 * (trial % 3)
        slopes = {r: (rng.random(n) + wild * rng.normal(size=n)).astype(np.float32) for r, n in sizes.items()}
        multipliers = {r: (wild * rng.normal(size=n)).astype(np.float32) for r, n in sizes.items()}
        for r, u, sign in splits:
            multipliers[r][u] = rng.exponential() * (sign if trial < 3 else rng.choice([-1, 1]))
        node = replace(node_of(0, splits), slopes=slopes, multipliers=multipliers)
        ((solved,), _, bounds) = bounder.solve([node], search=Search(iterations=0))
        rows = bounder.rows.take(np.zeros(1, int))
        evidence = Evidence(
            *({r: a.reshape(1, *network.nodes[r].shape) for r, a in own.items()} for own in (slopes, multipliers))
        )
        low = lowest_inside(network, lower, upper, splits, start, 0, rng)
        for proven in (solved.lower, row_minimum(bounds, rows, evidence).lower[0]):
            assert proven <= low + 1e-9 * (1 + abs(low))
            gaps.append((low - proven) / (1 + abs(low)))
    assert min(gaps) < 3, "bounds far below everything would show no fault"


def test_children_are_bounded_with_the_lines_of_their_own_phase() -> None:
    # y = relu(x) - 7/8 x on [-1, 1]: under x >= 0 it is x / 8, whatever lower slope the parent had found.
    one, less = Dense(np.ones((1, 1), np.float32)), Dense(np.full((1, 1), -0.875, np.float32))
    nodes = (Input((1,)), Affine((1,), (Term(0, one),)), Relu((1,), 1), Affine((1,), (Term(2, one), Term(0, less))))
    network = Network(nodes, 3)
    bounder = bounder_of(network, np.array([-1.0]), np.array([1.0]), iterations=30)
    for slope in (0.0, 1.0):
        parent = replace(root(0), lower=-1.0, slopes={2: np.full(1, slope, np.float32)})
        ((active, inactive), _, _) = bounder.solve([child(parent, (2, 0), sign, 1.0, slope) for sign in (1, -1)])
        assert -0.05 <= active.lower <= 0
        assert -0.05 <= inactive.lower <= 0


def test_a_child_is_never_bounded_below_its_parent() -> None:
    rng = np.random.default_rng(6)
    network = nets.dense(rng, (6, 10, 8, 2))
    center = rng.normal(size=6)
    bounder = bounder_of(network, center - 0.7, center + 0.7)
    ((parent,), _, _) = bounder.solve([root(0)])
    (children,) = bounder.split([parent])
    assert children is not None
    solved, _, _ = bounder.solve(children)
    assert min(node.lower for node in solved) >= parent.lower


@pytest.mark.parametrize(("both", "wanted"), [(-0.6, "both"), (-0.9, "one")])
def test_the_split_is_taken_that_leaves_least_to_do(monkeypatch: pytest.MonkeyPatch, both: float, wanted: str) -> None:
    """Two children somewhat closer to zero, or one that is closed and one as far as their parent."""
    rng = np.random.default_rng(6)
    network = nets.dense(rng, (6, 10, 8, 2))
    center = rng.normal(size=6)
    bounder = bounder_of(network, center - 0.7, center + 0.7)
    ((parent,), _, _) = bounder.solve([root(0)])
    parent, seen = replace(parent, lower=-1.0), []

    def estimate(children: Sequence[Node]) -> np.ndarray:
        seen.extend(children[::2])
        lower = np.full((len(children) // 2, 2), -1.0, np.float32)  # most splits bring nothing
        lower[2], lower[4] = (5.0, -1.0), (both, both)
        return lower.reshape(-1)

    monkeypatch.setattr(bounder, "estimate", estimate)
    (pair,) = bounder.split([parent])
    assert pair is not None
    assert pair[0].splits == seen[4 if wanted == "both" else 2].splits


@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_a_child_starts_with_the_multiplier_that_keeps_its_parents_bound(weight: float) -> None:
    # The row is weight * relu(x) over x in [-1, 2], met with the line of slope weight / 2 (lower) or weight * 2 / 3.
    slope = weight * (0.5 if weight > 0 else 2 / 3)
    network = dense([([[1.0]], [0.0]), ([[weight]], [0.0])])
    bounder = bounder_of(network, np.array([-1.0]), np.array([2.0]), iterations=0)
    ((parent,), _, _) = bounder.solve([replace(root(0), slopes={2: np.full(1, 0.5, np.float32)})])
    for sign in (1, -1):
        ((own,), _, _) = bounder.solve([replace(child(parent, (2, 0), sign, weight, slope), lower=-np.inf)])
        assert own.lower >= parent.lower - 1e-6


def test_where_all_phases_are_fixed_there_is_nothing_to_split() -> None:
    network = dense([([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.5])])
    bounds = optimized_crown(interval(network, np.array([[-1.0]]), np.array([[1.0]])))
    bounder = PhaseBounder(bounds, unit_rows(network, 3, np.arange(1), None, np.zeros(1)), Search())
    solved, _, _ = bounder.solve([node_of(0, ((2, 0, 1), (2, 1, -1)))])
    assert bounder.split(solved) == [None]
    assert solved[0].lower <= -0.5
