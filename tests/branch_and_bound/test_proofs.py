"""What a search keeps of its closed nodes suffices to check it: they cover the box, and their bounds follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mipverify.presolve import optimized_crown, unit_rows
from mipverify.solvers.branch_and_bound.corners import Corners
from mipverify.solvers.branch_and_bound.phases import LOOK, PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch, Proof
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.engine import verify
from mipverify.network import Network
from tests.presolve import nets
from tests.soundness.nets import dense, question, random_layers


@dataclass(frozen=True)
class Searched:
    """A search that closed: its network, points (N, *shape) of the box, the row's values (N,) there, all positive, and
    the ceiling that hidden bounds hold below."""

    network: Network
    proof: Proof
    points: np.ndarray
    row: np.ndarray
    ceiling: float


def searched(seed: int) -> Searched:
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (6, 14, 12, 2))
    center = rng.normal(size=6)
    lower, upper = center - 0.5, center + 0.5
    points = nets.points(rng, lower[None], upper[None], 3000)[:, 0]
    row = network.forward(points).reshape(len(points), -1)[:, 0]
    least = row.min()
    raised = -least + 0.05 * (1 + abs(least))
    bounds = optimized_crown(network, lower[None], upper[None])
    rows = unit_rows(network, network.output, np.arange(1), None, lower)
    rows = replace(rows, constant=rows.constant + raised)
    ceiling = 0.4 * (1 + abs(least))  # so high that there are points below it
    corners = Corners(network, ceiling, keep=True)
    proof = Proof(PhaseBounder(bounds, rows, corners=corners))
    outcome = PhaseSearch(proof.bounder, [root(0)], closed=proof.nodes.append).run()
    assert outcome.closed
    return Searched(network, proof, points, row + raised, ceiling)


def inside(network: Network, node: Node, values: list[np.ndarray]) -> np.ndarray:
    good = np.ones(len(values[0]), bool)
    for relu, unit, sign in node.splits:
        x = values[network.relu_source(relu)].reshape(len(good), -1)[:, unit]
        good &= x >= 0 if sign > 0 else x <= 0
    return good


SEEDS = (0, 2, 3, 4, 5)  # the search of 1 ends in a leaf that needs a linear program


@pytest.mark.parametrize("seed", SEEDS)
def test_closed_nodes_cover_the_box(seed: int) -> None:
    found = searched(seed)
    network, proof, points = found.network, found.proof, found.points
    assert sum(2.0 ** -len(node.splits) for node in proof.nodes) == 1.0
    values = network.values(points)
    covered = np.zeros(len(points), bool)
    for node in proof.nodes:
        covered |= inside(network, node, values)
    assert covered.all()


def test_bounds_follow_from_what_is_kept() -> None:
    clipped = checked = 0
    for seed in SEEDS:
        found = searched(seed)
        network, proof, points, row = found.network, found.proof, found.points, found.row
        values = network.values(points)
        low_enough = row <= found.ceiling
        for node in proof.nodes:
            again, _, _ = proof.bounder.solve([replace(node, lower=float("-inf"))], LOOK)
            empty = any((low > high).any() for low, high in node.bounds.values())
            assert empty or again[0].lower > 0
            left = inside(network, node, values) & low_enough
            checked += left.sum()
            before: dict = {}
            for clip in node.clips:
                clipped += 1
                state = Node(0, clip.splits, -np.inf, clip.slopes, clip.multipliers, clip.cut_multipliers, before)
                _, optimum, relaxed = proof.bounder.solve([state], LOOK)
                plane = points @ optimum.row.coefficients.reshape(-1) + optimum.row.constant
                here = inside(network, state, values) & low_enough
                assert (plane[here] <= row[here] + 1e-9).all()
                for source, (low, high) in clip.bounds.items():
                    seen = values[source].reshape(len(points), -1)[left]
                    assert (seen >= low - 1e-9).all()
                    assert (seen <= high + 1e-9).all()
                    assert (low >= relaxed.bounds.lower[source].reshape(-1)).all()
                before = clip.bounds
            assert node.clips or not node.bounds
    assert clipped
    assert checked


def test_a_verdict_keeps_proofs_only_when_asked_to() -> None:
    rng = np.random.default_rng(7)
    network = dense(random_layers(rng, (6, 20, 20, 3)))
    low, high = np.zeros(6), np.full(6, 1.0)
    values = network.forward(nets.points(rng, low[None], high[None], 4000)[:, 0])
    least = float((values[:, 0] - values[:, 1]).min())
    asked = question(low, high, [[([1.0, -1.0, 0.0], least - 0.3 * (1 + abs(least)))]])
    verdict = verify(network, asked, solver="bab", timeout=60.0, keep_proofs=True)
    assert verdict.verdict == "holds"
    assert verify(network, asked, solver="bab", timeout=60.0).proofs == ()
    for proof in verdict.proofs:
        assert proof.nodes
