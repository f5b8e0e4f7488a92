"""Attacks on more than fits into one step: in parts, the same walks, with a look at the clock between them."""

from __future__ import annotations

import numpy as np
import pytest

from mipverify.attack import pgd as module
from mipverify.attack.pgd import Attack, pgd
from tests.presolve import nets


def met(conditions: np.ndarray, stop_after: int | None = None) -> list[bytes]:
    """The points that an attack shows, wherever one of the outputs is not positive."""
    network = nets.dense(np.random.default_rng(4), (6, 10, 8))
    shown: list[bytes] = []
    looks = [0]

    def stop() -> bool:
        looks[0] += 1
        return stop_after is not None and looks[0] > stop_after

    def show(points: np.ndarray) -> None:
        shown.extend(point.tobytes() for point in points)

    rng = np.random.default_rng(1)
    pgd(network, np.zeros(6, np.float32), np.ones(6, np.float32), conditions, Attack(2, 4), rng, show, stop=stop)
    return shown


def test_parts_take_the_walks_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    every = np.arange(8)
    whole = [set(met(every[k : k + 1])) for k in every]
    assert sum(map(bool, whole)) >= 2
    monkeypatch.setattr(module, "STEP_WORK", 1)
    assert set(met(every)) == set.union(*whole)


def test_the_clock_is_looked_at_between_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_WORK", 1)
    whole, part = met(np.arange(8)), met(np.arange(8), stop_after=4)
    assert set(part) < set(whole)
