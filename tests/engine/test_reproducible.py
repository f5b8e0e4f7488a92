"""Work is counted, not timed: what a question comes to does not depend on how long there was for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mipverify.engine import verify
from mipverify.engine.budget import Clock
from tests.soundness.nets import dense, lowest_sampled, question, random_layers


def found(seed: int, below: float, timeout: float) -> tuple[Any, ...]:
    """All that a question about a random network comes to, but for seconds."""
    network = dense(random_layers(np.random.default_rng(seed), (24, 20, 20, 3)))
    low, high, row = np.zeros(24), np.full(24, 0.3), [1.0, -1.0, 0.0]
    least = lowest_sampled(network, low, high, row)
    asked = question(low, high, [[(row, least - below)], [([0.0, 1.0, -1.0], -50.0)]])
    verdict = verify(network, asked, timeout=timeout, seed=seed, solver="bab")
    witness = None if verdict.witness is None else np.asarray(verdict.witness.input).tobytes()
    steps = tuple(step["stage"] for step in verdict.statistics["steps"])
    return verdict.verdict, verdict.stage, verdict.margin_lower_bound, verdict.statistics["nodes"], witness, steps


@pytest.mark.parametrize("below", [-0.001, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_time_limits_change_nothing_of_what_is_decided_in_time(seed: int, below: float) -> None:
    once, again = found(seed, below, 40.0), found(seed, below, 400.0)
    assert once[0] != "unknown"
    assert once == again


@pytest.mark.parametrize("seed", range(2))
def test_a_slower_machine_finds_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here = found(seed, 0.02, 1000.0)
    elapsed = Clock.elapsed
    monkeypatch.setattr(Clock, "elapsed", lambda clock: 20 * elapsed(clock))
    assert found(seed, 0.02, 1000.0) == here
