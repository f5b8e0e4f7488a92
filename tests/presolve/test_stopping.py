"""Bounds whose work is cut short after any number of looks at the clock: sound, never looser; what is done is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mipverify.presolve import Search, crown, fast_lin, interval, optimized_crown
from mipverify.presolve.cutting import cut_tighten
from mipverify.presolve.linear import lp_tighten
from mipverify.solvers import lp_session

from mipverify.proof import parts, patches
from mipverify.proof.bounds import Bounds
from mipverify.proof.parts import row_chunks
from tests.presolve import nets


def after(calls: int, seen: list[int] | None = None) -> Callable[[], bool]:
    """A `stop` that is true from that call on; seen: counts them."""
    count = [0] if seen is None else seen

    def stop() -> bool:
        count[0] += 1
        return count[0] > calls

    return stop


METHODS: dict[str, Callable[[Bounds, Callable[[], bool]], Bounds]] = {
    "fast-lin": fast_lin,
    "crown": crown,
    "optimized": lambda bounds, stop: optimized_crown(bounds, Search(iterations=3), stop),
    "cuts": lambda bounds, stop: cut_tighten(bounds, stop=stop),
    "lp": lambda bounds, stop: lp_tighten(bounds, lp_session, stop),
}
SINGLE = ("cuts", "lp")  # methods that work on one box


@pytest.mark.parametrize("shape", ["dense", "skip", "convolutional"])
@pytest.mark.parametrize("method", METHODS)
def test_work_that_is_cut_short_anywhere_leaves_sound_bounds(
    method: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROW_WORK", 1)  # a look at the clock between any two rows
    monkeypatch.setattr(patches, "ROW_WORK", 1)
    monkeypatch.setattr(patches, "FIRST_ROWS", 1)
    rng = np.random.default_rng(5)
    network = (
        nets.convolutional(rng, 5) if shape == "convolutional" else nets.dense(rng, (3, 6, 6, 6, 2), shape == "skip")
    )
    low, high = nets.boxes(rng, network, 1 if method in SINGLE else 2, radius=0.6)
    seen = [0]
    plain = interval(network, low, high)
    METHODS[method](plain, after(10**9, seen))
    values = [network.values(x) for x in nets.points(rng, low, high, 50)]
    assert seen[0] > 10
    better = []
    for calls in np.unique(np.linspace(0, seen[0], 8).astype(int)):
        count = [0]
        found = METHODS[method](plain, after(int(calls), count))
        assert count[0] <= calls + 2 * len(network.preactivations) + 2  # nobody works on without looking
        for node in range(len(network.nodes)):
            for at in values:
                assert (at[node] >= found.lower[node] - 1e-9).all()
                assert (at[node] <= found.upper[node] + 1e-9).all()
            assert (found.lower[node] >= plain.lower[node] - 1e-9).all()
            assert (found.upper[node] <= plain.upper[node] + 1e-9).all()
        better.append(sum(float((a - b).sum()) for a, b in zip(found.lower, plain.lower, strict=True)))
    assert better[0] == 0
    assert better[-1] > better[len(better) // 2] > 0  # what was reached is kept


def test_slices_of_rows_are_as_long_as_memory_and_time_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.dense(np.random.default_rng(0), (50, 400, 400, 2))
    many = [part.stop - part.start for part in row_chunks(network, 3, 10**6)]
    assert 8 * 400 * max(many) <= parts.ROW_BYTES
    assert max(many) * network.work[3] <= parts.ROW_WORK
    assert sum(many) == 10**6
    assert network.work[3] >= 400 * 400 + 50 * 400
    monkeypatch.setattr(parts, "ROW_WORK", 1)
    assert [(p.start, p.stop) for p in row_chunks(network, 3, 2)] == [(0, 1), (1, 2)]
