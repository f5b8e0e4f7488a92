"""A pool gives what one process alone gives, whatever befalls its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from mipverify.presolve import crown, interval
from mipverify.presolve.cutting import cut_tighten
from mipverify.solvers.branch_and_bound import Effort, progressive_tighten
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.search import PhaseSearch
from mipverify.solvers.branch_and_bound.splits import root

from mipverify.parallel import SERIAL, ProcessPool, partition
from mipverify.parallel.executor import C, R, T, Work
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.parallel import work
from tests.presolve import nets


def never() -> bool:
    return False


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(3) as pool:
        pool.map(work.scaled, [1], [1], never)
        wait_for(lambda: pool.count == 3)
        yield pool


def wait_for(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_results_come_in_order_and_with_the_context_of_each_call(pool: ProcessPool) -> None:
    for factor in (2, 3):
        context = [factor]
        for items in ([1, 2, 3], [5, 6, 7, 8, 9]):
            assert pool.map(work.scaled, context, items, never) == [factor * item for item in items]


def test_the_others_take_part(pool: ProcessPool) -> None:
    assert pool.map(work.where, os.getpid(), [0, 0, 0], never) == [False, True, True]


@pytest.mark.parametrize("trouble", [work.dies_elsewhere, work.fails_elsewhere])
def test_what_goes_wrong_elsewhere_is_done_here(pool: ProcessPool, trouble: Callable[..., int]) -> None:
    assert pool.map(trouble, os.getpid(), [1, 2, 3], never) == [1, 2, 3]
    assert pool.map(work.scaled, [4], [1, 2, 3], never) == [4, 8, 12]


def test_when_time_is_up_nobody_is_waited_for(pool: ProcessPool) -> None:
    begin = time.monotonic()
    found = pool.map(work.slow_elsewhere, os.getpid(), [1, 2, 3], lambda: time.monotonic() > begin + 0.2)
    assert time.monotonic() - begin < 5
    assert found == [1, None, None]
    assert pool.count == 1


def test_others_take_the_place_of_those_that_a_stop_cut_short(pool: ProcessPool) -> None:
    begin = time.monotonic()
    pool.map(work.slow_elsewhere, os.getpid(), [1, 2], lambda: time.monotonic() > begin + 0.2)
    assert pool.count == 2
    pool.map(work.scaled, [1], [1], never)
    wait_for(lambda: pool.count == 3)
    assert pool.map(work.where, os.getpid(), [0, 0, 0], never) == [False, True, True]


def test_an_answer_that_nobody_waited_for_is_not_taken_for_a_later_one(pool: ProcessPool) -> None:
    with pytest.raises(RuntimeError):
        pool.map(work.fails_here, os.getpid(), [1, 2, 3], never)
    assert pool.map(work.scaled, [5], [1, 2, 3], never) == [5, 10, 15]


class Flickering:
    """Another number of pool at every look, as when workers become ready or die."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    @property
    def count(self) -> int:
        return int(self.rng.integers(1, 4))

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        return SERIAL.map(work, context, items, stop)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
def test_no_item_is_lost_while_hands_come_and_go(size: int) -> None:
    pool = Flickering()
    for _ in range(6):
        assert sorted(item for part in partition(list(range(size)), pool) for item in part) == list(range(size))


def test_workers_end_with_their_pool() -> None:
    with ProcessPool(2) as pool:
        pool.map(work.scaled, [1], [1], never)
        (worker,) = pool._workers
    assert worker.process.poll() is not None


class Budget:
    """Stops a search after some nodes."""

    def __init__(self, nodes: int):
        self.left = nodes

    def __call__(self, search: PhaseSearch) -> None:
        self.left = self.left if search.nodes < self.left else 0

    def spent(self) -> bool:
        return self.left == 0


class CutShort:
    """Two pool, of which one has no answer when time is up, at the third call."""

    count, calls, over = 2, 0, False

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        found = SERIAL.map(work, context, items, stop)
        self.calls += 1
        if self.calls >= 3:
            found[0], self.over = None, True
        return found


def test_no_bound_is_told_that_forgets_nodes_without_an_answer() -> None:
    rng = np.random.default_rng(1)
    network = nets.dense(rng, (4, 14, 12, 3))
    center = rng.normal(size=4)
    bounds = crown(interval(network, center[None] - 0.7, center[None] + 0.7))
    rows = unit_rows(network, network.output, np.arange(3), None, bounds.lower[0])
    pool, told = CutShort(), []
    search = PhaseSearch(
        PhaseBounder(bounds, rows),
        [root(k) for k in range(3)],
        pool=pool,
        progress=lambda search: told.append(search.store.lowest()),
    )
    outcome = search.run(lambda: pool.over)
    assert pool.over
    assert told
    assert max(told) <= min(outcome.lower.values())


class Forgetful:
    """Two pool, of which one never has an answer."""

    count = 2

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        return [None, *SERIAL.map(work, context, items[1:], stop)]


def test_nothing_is_claimed_of_hidden_units_without_an_answer() -> None:
    rng = np.random.default_rng(5)
    settled = 0
    for _ in range(3):
        network = nets.dense(rng, (6, 16, 16, 16, 2))
        center = rng.normal(size=6)
        lower, upper = center[None] - 0.4, center[None] + 0.4
        start = crown(interval(network, lower, upper))
        tight = progressive_tighten(start, Effort(200, 1.0), pool=Forgetful())
        values = network.values(nets.points(rng, lower, upper, 20_000)[:, 0])
        for node in network.preactivations:
            seen = np.asarray(values[node]).reshape(20_000, -1)
            assert (seen.min(axis=0) >= tight.lower[node][0] - 1e-9).all()
            assert (seen.max(axis=0) <= tight.upper[node][0] + 1e-9).all()
        settled += int(start.unstable_counts().sum() - tight.unstable_counts().sum())
    assert settled


def test_searches_prove_the_same_with_more_hands(pool: ProcessPool) -> None:
    rng = np.random.default_rng(3)
    network = nets.dense(rng, (4, 12, 12, 2))
    center = rng.normal(size=4)
    bounds = reduce(crown(interval(network, center[None] - 0.5, center[None] + 0.5))).bounds
    rows = unit_rows(bounds.network, bounds.network.output, np.arange(2), None, bounds.lower[0])
    found = []
    for executor in (SERIAL, pool):
        tight = cut_tighten(bounds, pool=executor)
        few = Budget(60)
        search = PhaseSearch(PhaseBounder(bounds, rows), [root(0), root(1)], batch=8, pool=executor, progress=few)
        outcome = search.run(few.spent)
        found.append((tight, outcome))
    (alone, first), (together, second) = found
    for one, two in zip(alone.lower + alone.upper, together.lower + together.upper, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)
    assert first.closed == second.closed
    assert first.lower == pytest.approx(second.lower, rel=0.05, abs=1e-3)
