"""Trees of phases whose work outlives better intermediate bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mipverify.engine.driver import Course
from mipverify.engine.schedule import BRANCH_AND_BOUND, CROWN, FIRST_BRANCHING, INTERVAL
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import Update
from mipverify.network import Network
from mipverify.proof.interval import tighten
from mipverify.specification import Specification
from tests.engine.calls import calling, course
from tests.soundness.nets import dense, question, random_layers

BEGUN = replace(
    FIRST_BRANCHING, most_work=2.0**23, on_its_way=1.0
)  # about sixty nodes, which come further than cuts at the root
MARGIN = 0.05  # of a network whose least value is sampled


def other_bounds(work: Work) -> None:
    """Intermediate bounds that are no better, made anew."""
    before = work.state.proven
    work.tell(Update(facts=(tighten(before, []),)))
    assert work.state.proven is not before


def asked(seed: int) -> tuple[Network, Specification]:
    """A margin that holds, by next to nothing."""
    rng = np.random.default_rng(seed)
    network = dense(random_layers(rng, (6, 24, 16, 1)))
    low, high = np.full(6, -0.5), np.full(6, 0.5)
    points = low + rng.random((100_000, 6)) * (high - low)
    least = float(network.forward(points.astype(np.float32)).min())
    return network, question(low, high, [[([1.0], least - MARGIN)]])


def after(seed: int, *stages: Stage) -> Course:
    network, specification = asked(seed)
    return course(network, specification.cases[0], INTERVAL, CROWN, *stages)


@pytest.mark.parametrize("seed", [1, 3, 5, 12])
def test_trees_far_ahead_go_on_over_other_bounds(seed: int) -> None:
    begun = after(seed, BEGUN)
    assert not begun.state.decided()
    once = after(seed, BEGUN, BRANCH_AND_BOUND)
    again = after(seed, BEGUN, calling("bounds", other_bounds), BRANCH_AND_BOUND)
    assert (once.state.lower > 0).all()
    assert (again.state.lower > 0).all()
    assert once.state.nodes == again.state.nodes > begun.state.nodes
