"""Descent from many starts finds narrow valleys that random points miss, and keeps to its box and its work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mipverify.attack.many_starts import ManyStarts, descend_from_many
from mipverify.engine.schedule import CROWN, INPUT_SPLITTING, INTERVAL
from mipverify.network import Network
from tests.engine.calls import course
from tests.soundness.nets import dense, question

LOW, HIGH = np.zeros(3, np.float32), np.ones(3, np.float32)


def valleys() -> Network:
    """120 |x0 - 0.3 x1 - 0.45| + |x2 - 0.37| - 0.02 beside a wide valley 0.3 - 0.2 x1 + 3 |x0|: the lower one counts.

    The narrow one is below zero on some hundred-thousandths of the box.
    """
    kinks = np.array([[1, -0.3, 0], [-1, 0.3, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
    offsets = np.array([-0.45, 0.45, -0.37, 0.37, 0, 0, 0], np.float32)
    # narrow - wide, its negative, and wide itself: min(a, b) = b - relu(b - a)
    narrow, wide = np.array([120, 120, 1, 1, 0, 0, 0.0]), np.array([0, 0, 0, 0, 3, 3, -0.2])
    second = np.stack([wide - narrow, wide, -wide]).astype(np.float32)
    shift = np.array([0.3 + 0.02, 0.3, -0.3], np.float32)
    return dense([(kinks, offsets), (second, shift), (np.array([[-1, 1, -1]], np.float32), np.zeros(1, np.float32))])


def search(network: Network, settings: ManyStarts, seed: int = 0) -> list[np.ndarray]:
    tried: list[np.ndarray] = []

    def accept(points: np.ndarray) -> object | None:
        tried.append(points)
        return "found"

    descend_from_many(network, LOW, HIGH, np.array([0]), settings, np.random.default_rng(seed), accept)
    return tried


def test_a_narrow_valley_is_found_from_many_starts() -> None:
    network = valleys()
    sampled = np.random.default_rng(9).random((1000, 3), dtype=np.float32)
    assert not (network.forward(sampled) <= 0).any()
    for seed in range(5):
        (points,) = search(network, ManyStarts(), seed)
        assert (network.forward(points)[:, 0] <= 0).all()
        assert ((points >= LOW) & (points <= HIGH)).all()


def test_the_same_seed_tries_the_same_points() -> None:
    one, two = search(valleys(), ManyStarts(), 3), search(valleys(), ManyStarts(), 3)
    assert np.array_equal(one[0], two[0])


def test_work_is_bounded_and_stops_when_told() -> None:
    seen: list[int] = []
    network = valleys()
    settings = ManyStarts(starts=500, steps=2, most_work=2 * 3 * network.work[-1] * 7)
    never = replace(settings, least=1e-9, largest=1e-9)

    def count(points: np.ndarray) -> None:
        seen.append(len(points))

    descend_from_many(network, LOW, HIGH, np.array([0]), never, np.random.default_rng(0), count)
    assert sum(seen) <= 7 * 3
    stopped: list[int] = []
    descend_from_many(
        network, LOW, HIGH, np.array([0]), ManyStarts(), np.random.default_rng(0), stopped.append, stop=lambda: True
    )
    assert len(stopped) <= 1


def test_input_splitting_asks_for_it_where_boxes_do_not_get_on() -> None:
    case = question(LOW, HIGH, [[([1.0], 0.0)]]).cases[0]
    boxes = {}
    for patience in (1, 10**9):
        found = course(valleys(), case, INTERVAL, CROWN, replace(INPUT_SPLITTING, patience=patience))
        assert found.state.witness is not None
        boxes[patience] = found.state.nodes
    assert boxes[1] < boxes[10**9]
