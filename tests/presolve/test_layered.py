"""Networks as layers: the same function, and the same ascent as on the graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mipverify.presolve import Search, crown, interval, optimize_rows, optimized_crown, products
from mipverify.presolve.layered import Layered
from mipverify.presolve.optimized import Optimum
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.root_cuts import root_cuts
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Assumption
from mipverify.proof.interval import interval_over
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.specification.norms import L2
from mipverify.specification.sets import Ball, BallInBox, Box
from tests.branch_and_bound.test_node_bounds import lowest_inside, some_node, unstable_units
from tests.presolve import nets

KINDS = {
    "dense": lambda rng: nets.dense(rng, (5, 12, 10, 8, 4)),
    "convolutional": nets.convolutional,
    "no ReLU": lambda rng: nets.dense(rng, (5, 3)),
}


def reduced(kind: str, seed: int, radius: float = 0.5) -> Bounds:
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper = nets.boxes(rng, network, 1, radius=radius)
    return reduce(crown(interval(network, lower, upper))).bounds


def by_graph(bounder: PhaseBounder, nodes: list[Node], search: Search) -> Optimum:
    """What the ascent on the graph comes to, for a bounder that does not know of layers."""
    other = PhaseBounder(bounder.root, bounder.rows, bounder.search, cuts=bounder.cuts)
    other.layered = None
    return other.solve(nodes, search)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_reduced_network(kind: str) -> None:
    network = reduced(kind, 1).network
    layers = Layered.of(network, np.float64)
    assert layers is not None
    assert layers.relus == network.relus
    x = np.random.default_rng(0).normal(size=(50, *network.input_shape))
    values = network.values(x)
    y = np.concatenate([np.zeros((50, 0)), *(values[relu] for relu in network.relus)], axis=1)
    z = np.concatenate([np.zeros((50, 0)), *(values[network.relu_source(relu)] for relu in network.relus)], axis=1)
    made = x.reshape(50, -1) @ layers.inputs.T + y @ layers.units.T + layers.bias
    np.testing.assert_allclose(made, z, atol=1e-9)
    for node, count in layers.seen.items():
        whole = np.concatenate([x.reshape(50, -1), y[:, :count]], axis=1)
        np.testing.assert_array_equal(values[node].reshape(50, -1), whole)


def test_other_networks_are_not_of_that_form() -> None:
    rng = np.random.default_rng(2)
    others: list[Network] = [nets.dense(rng), nets.convolutional(rng), nets.dense(rng, (5, 6, 6, 6, 2), skip=True)]
    assert [Layered.of(network) for network in others] == [None] * 3


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
@pytest.mark.parametrize(("with_cuts", "stored"), [(False, "dense"), (True, "dense"), (True, "sparse")])
def test_ascents_come_to_what_the_graph_comes_to(
    kind: str, with_cuts: bool, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stored == "sparse":  # as in networks of another size
        monkeypatch.setattr(products, "SMALL", -1)
        monkeypatch.setattr(products, "SPARSE", 1.0)
    rng, search, moved = np.random.default_rng(3), Search(iterations=3, enough=np.inf), 0.0
    for seed in range(4):
        bounds = reduced(kind, seed)
        network = bounds.network
        rows = unit_rows(network, network.output, np.arange(network.output_size), None, bounds.lower[0])
        conditions = np.arange(network.output_size)
        start = {int(c): root(int(c)) for c in conditions}
        cuts = None
        if with_cuts:
            found = root_cuts(bounds, conditions)
            cuts = max(found, key=lambda own: sum(map(len, own.layers.values()))).layers
        bounder = PhaseBounder(bounds, rows, search, cuts=cuts)
        point = rng.uniform(bounds.lower[0], bounds.upper[0])
        units, values = unstable_units(bounds), network.values(point)
        nodes = []
        for k in range(10):
            splits = some_node(network, units, values, 0, int(rng.integers(0, 5)), rng)
            nodes.append(replace(start[k % len(start)], assumption=Assumption(splits)))
        first, graph, layers = (
            bounder.solve(nodes, Search(iterations=0))[1].lower,
            by_graph(bounder, nodes, search),
            bounder.solve(nodes, search)[1],
        )
        # Where a gradient is nothing but roundoff, Adam takes a whole step on its sign: a few rows part then.
        apart = np.abs(layers.lower - graph.lower) / np.abs(graph.lower).max()
        assert np.median(apart) <= 1e-3
        assert apart.max() <= 0.02
        for given, wanted in (
            (layers.evidence.multipliers, graph.evidence.multipliers),
            (layers.evidence.slopes, graph.evidence.slopes),
        ):
            assert given.keys() == wanted.keys()
            assert all(given[k].shape == wanted[k].shape for k in given)
        assert layers.evidence.cut_multipliers.keys() == graph.evidence.cut_multipliers.keys()
        moved = max(moved, float((layers.lower - first).max()))
        # Rows that are done leave the others alone: each is raised above `enough`, or as far as it gets.
        some = bounder.solve(nodes, Search(iterations=3, enough=float(np.median(first))))[1].lower
        assert (some >= first - 1e-6).all()
        assert ((some > np.median(first)) >= (layers.lower > np.median(first))).all()
        for k in (0, 5):
            low, high = bounds.lower[0][0], bounds.upper[0][0]
            low = lowest_inside(network, low, high, nodes[k].splits, point[0], nodes[k].condition, rng)
            assert layers.lower[k] <= low + 1e-9 * (1 + abs(low))
    assert moved > 0.05


def test_curved_balls_take_the_way_by_the_graph() -> None:
    rng = np.random.default_rng(5)
    network = nets.dense(rng, (4, 8, 6, 2))
    center = np.zeros((1, 4))
    lower = []
    box = Box.from_floats(center - 0.5, center + 0.5)
    for inputs in (BallInBox(Ball.around(center[0], "0.5", L2()), box), box):
        bounds = reduce(crown(interval_over(network, inputs))).bounds
        rows = unit_rows(bounds.network, bounds.network.output, np.arange(2), None, bounds.lower[0])
        layered = Layered.of(bounds.network)
        assert layered is not None
        lower.append(optimize_rows(bounds, rows, Search(iterations=10), layered=layered).lower)
    assert (lower[0] > lower[1] + 0.01).all()


def test_networks_of_torch_modules_are_read_as_well() -> None:
    torch = pytest.importorskip("torch")
    layers = torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
    network = Network.from_torch(torch.nn.Sequential(*layers).eval(), (5,))
    lower, upper = np.full((1, 5), -1.0), np.full((1, 5), 1.0)
    assert Layered.of(network) is None  # not a reduced one, and no reason to fail
    plain = interval(network, lower, upper)
    assert (optimized_crown(plain).lower[-1] > crown(plain).lower[-1] - 1e-6).all()
    single_layer = Network.from_torch(torch.nn.Sequential(*layers[:2], torch.nn.Linear(7, 2)).eval(), (5,))
    assert Layered.of(single_layer) is None
    assert Layered.of(Network.from_torch(torch.nn.Sequential(layers[0]).eval(), (5,))) is not None
