"""Every stage ends soon after its time on a network that it cannot finish, and what was proven by then is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.schedule import CASCADE, CUT_SAMPLE
from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from tests.engine.calls import course
from tests.engine.large import cifar, undecided
from tests.soundness.nets import dense, random_layers

ROOT = Path(__file__).parents[2]
STAGES = {stage.name: stage for stage in reversed(CASCADE)}  # of two with one name the first
LIMIT = 0.4  # seconds of processor time, so that other work on the machine does not matter
LATE = 0.8  # that a stage may take beyond; two looks at the clock lie 0.2 s apart, or 0.4 on a slow machine


@dataclass
class Busy(Clock):
    """A clock that counts the processor time of this thread."""

    started: float = field(default_factory=time.thread_time)

    def elapsed(self) -> float:
        return time.thread_time() - self.started


def asked(network: Network, radius: float, solver: str, share: float | None = None) -> Course:
    """A question that has come as far as interval arithmetic or, where zero lies in what that leaves open, CROWN."""
    case = undecided(network, radius, share=share).cases[0]
    stages = [STAGES[name] for name in ("evaluation", "interval", "crown")[: 2 if share is None else 3]]
    found = course(network, case, *stages, clock=Busy(1e9), solver=solver)
    assert not found.state.decided()
    return found


def run(found: Course, stage: str) -> float:
    """Seconds that a stage takes beyond its limit."""
    why = STAGES[stage].applies(found.problem, found.state)
    assert why is not None
    found.clock.limit = found.clock.elapsed() + LIMIT
    found.run_stage(STAGES[stage], why)
    assert not found.state.decided()
    return found.clock.elapsed() - found.clock.limit


def narrower(bounds: Bounds, before: Bounds) -> bool:
    pairs = zip((*before.lower, *bounds.upper), (*bounds.lower, *before.upper), strict=True)
    return all((low <= high + 1e-6 * (1 + abs(low))).all() for low, high in pairs)


@pytest.fixture(scope="module")
def large() -> Network:
    return cifar()


@pytest.mark.parametrize(
    "stage", ["quick attack", "crown", "attack", "optimized crown", "tightening", "long attack", "lp tightening"]
)
def test_stages_of_a_large_network(large: Network, stage: str) -> None:
    found = asked(large, 0.002, "highs" if stage.startswith("lp") else "auto")
    before, bound = found.state.bounds, found.state.lower.copy()
    assert run(found, stage) < LATE
    assert found.state.bounds is not None
    assert before is not None
    assert narrower(found.state.bounds, before)
    assert (found.state.lower >= bound).all()


def test_what_crown_has_done_by_then_is_kept(large: Network) -> None:
    found = asked(large, 0.002, "auto")
    assert found.state.bounds is not None
    counts, bound = found.state.bounds.unstable_counts()[0], found.state.lower.copy()
    run(found, "crown")
    assert found.state.bounds.unstable_counts()[0, 1] < counts[1]  # a layer that it has come to
    assert (found.state.lower > bound).all()


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_programs_of_a_large_network(large: Network, solver: str) -> None:
    """Solvers take what they are given in one piece: a second or two, after which the whole is left behind."""
    assert run(asked(large, 0.002, solver), "milp") < 4.0


def test_a_large_network_is_not_reduced_or_branched_on(large: Network) -> None:
    found = asked(large, 0.002, "auto")
    for stage in ("first branching", "progressive tightening", "branch and bound", "late progressive tightening"):
        assert STAGES[stage].applies(found.problem, found.state) is None
        assert "too many to branch on" in STAGES[stage].obstacle(found.problem, found.state)


@pytest.mark.parametrize(
    ("widths", "radius", "share", "stages"),
    [
        ((30, 250, 250, 250, 5), 0.3, 0.5, ["first branching", "progressive tightening", "branch and bound"]),
        ((30, 250, 250, 250, 5), 0.3, 0.5, ["cut tightening"]),
        ((400, 1500, 5), 0.4, 0.91, ["semidefinite", "semidefinite branching"]),
        ((10, 400, 400, 5), 0.5, 0.8, ["input splitting"]),
    ],
    ids=["phases", "cuts", "single_layer", "boxes"],
)
def test_stages_that_branch(widths: tuple[int, ...], radius: float, share: float, stages: list[str]) -> None:
    network = dense(random_layers(np.random.default_rng(0), widths))
    found = asked(network, radius, "auto", share)
    found.run_stage(CUT_SAMPLE)
    for stage in stages:
        bound = found.state.lower.copy()
        assert run(found, stage) < LATE, stage
        assert (found.state.lower >= bound).all()
        found.clock.limit = 1e9


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_programs(solver: str) -> None:
    network = dense(random_layers(np.random.default_rng(0), (30, 150, 150, 150, 5)))
    found = asked(network, 0.3, solver, 0.5)
    assert run(found, "lp tightening") < LATE
    assert run(found, "milp") < 2 * LATE  # HiGHS looks up less often


def test_a_question_about_a_large_network_keeps_time_and_memory() -> None:
    code = "from tests.engine.large import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "2.0"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # not by the working directory: PYTHONSAFEPATH may be set
    )
    verdict, reason, _, seconds, peak = json.loads(done.stdout)
    assert (verdict, reason) == ("unknown", "time")
    assert seconds < 5.0  # by the wall clock, beside other work
    assert peak < 800e6
