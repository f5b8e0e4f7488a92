"""What holds for every stage and for the driver: predicates change nothing, order, budgets, what interrupts keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from mipverify.presolve import crown, interval

from mipverify.engine import verify
from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.driver import Course
from mipverify.engine.problem import Problem
from mipverify.engine.schedule import CASCADE, CROWN, CUT_SAMPLE, EVALUATION, INTERVAL, OPTIMIZED_CROWN
from mipverify.engine.stage import Budget, Stage, Work
from mipverify.engine.state import State, Update
from mipverify.errors import Stopped
from mipverify.proof.backward import row_minimum
from mipverify.proof.rows import unit_rows
from mipverify.specification import Specification, robustness
from tests.engine.calls import calling, course
from tests.soundness.nets import dense, lowest_sampled, question, random_layers

ROW = [1.0, -1.0, 0.0]
NETWORK = dense(random_layers(np.random.default_rng(0), (12, 24, 24, 3)))
LOW, HIGH = np.zeros(12), np.full(12, 0.5)
LEAST = lowest_sampled(NETWORK, LOW, HIGH, ROW)


def below(by: float) -> Specification:
    """Whether the margin comes this much below what samples have."""
    return question(LOW, HIGH, [[(ROW, LEAST - by)]])


def snapshot(state: State) -> dict[str, Any]:
    """Everything in a state: arrays and lists by value, all else by identity."""
    copied = {}
    for name, value in vars(state).items():
        if isinstance(value, np.ndarray):
            copied[name] = value.tobytes()
        elif isinstance(value, list):
            copied[name] = tuple(value)
        else:
            copied[name] = value
    return copied


@dataclass(frozen=True, kw_only=True)
class Asking(Stage):
    """Asks all stages of the cascade whether they apply, before `stage` runs."""

    stage: Stage

    def applies(self, problem: Problem, state: State) -> str | None:
        before, problem_before = snapshot(state), dict(vars(problem))
        for other in CASCADE:
            first = other.applies(problem, state), other.obstacle(problem, state)
            assert (other.applies(problem, state), other.obstacle(problem, state)) == first
        after = snapshot(state)
        assert before.keys() == after.keys()
        assert all(before[name] is after[name] or before[name] == after[name] for name in before)
        assert all(vars(problem)[name] is value for name, value in problem_before.items())
        return self.stage.applies(problem, state)

    def run(self, work: Work) -> None:
        self.stage.run(work)


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
def test_asking_whether_stages_apply_changes_nothing(solver: str) -> None:
    asking = tuple(Asking(name=stage.name, budget=stage.budget, stage=stage) for stage in CASCADE)
    verdict = verify(NETWORK, below(0.02), timeout=4.0, solver=solver, stages=asking)
    assert len(verdict.statistics["steps"]) > 4


def test_stages_run_in_the_order_of_the_schedule_and_each_at_most_once() -> None:
    names = [step["stage"] for step in verify(NETWORK, below(0.02), timeout=4.0).statistics["steps"]]
    places = [next(k for k, stage in enumerate(CASCADE) if stage.name == name) for name in names]
    assert places == sorted(set(places))
    assert names[:2] == ["evaluation", "interval"]


def test_nothing_runs_after_a_decision() -> None:
    ran: list[str] = []
    late = calling("late", lambda work: ran.append("late"))
    easy = question(LOW, HIGH, [[(ROW, -1e4)]])
    assert verify(NETWORK, easy, stages=(INTERVAL, late)).stage == "interval"
    assert not ran


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, MemoryError])
def test_what_a_stage_has_told_outlives_what_ends_it(error: type[BaseException]) -> None:
    def cut_short(work: Work) -> None:
        work.learn(crown(work.state.proven))
        rows = unit_rows(work.problem.margins, work.problem.margins.output, np.arange(1), None, work.problem.box[0])
        work.learn(row_minimum(work.state.proven, rows))
        work.tell(Update(nodes=3))
        raise error

    only = verify(NETWORK, below(0.02), stages=(INTERVAL,)).margin_lower_bound
    verdict = verify(NETWORK, below(0.02), stages=(INTERVAL, calling("cut short", cut_short)))
    assert verdict.verdict == "unknown"
    assert verdict.margin_lower_bound is not None
    assert only is not None
    assert verdict.margin_lower_bound > only
    assert verdict.statistics["nodes"] == 3
    assert verdict.statistics["steps"][-1]["stage"] == "cut short"


def test_the_same_seed_gives_the_same_answer() -> None:
    answers = [verify(NETWORK, below(-1e-3), seed=seed, stages=CASCADE[:6]) for seed in (3, 3)]
    words = [(a.verdict, a.stage, a.margin_lower_bound) for a in answers]
    assert words[0] == words[1]
    assert answers[0].witness is not None
    assert answers[1].witness is not None
    assert (answers[0].witness.input == answers[1].witness.input).all()


def test_random_numbers_of_a_stage_do_not_depend_on_those_before() -> None:
    drawn: list[float] = []
    stage = calling("draws", lambda work: drawn.append(work.rng.random()))
    case = below(0.02).cases[0]
    course(NETWORK, case, stage)
    course(NETWORK, case, EVALUATION, INTERVAL, stage)
    assert drawn[0] == drawn[1]


def applying(name: str, why: str | None) -> Stage:
    @dataclass(frozen=True, kw_only=True)
    class Sometimes(Stage):
        def applies(self, problem: Problem, state: State) -> str | None:
            return why

        def run(self, work: Work) -> None:
            raise AssertionError("it only stands for what is to come")

    return Sometimes(name=name)


def test_a_stage_leaves_time_to_later_ones_while_they_are_to_come_and_apply() -> None:
    small, large, never = applying("small", "yes"), applying("large", "yes"), applying("never", None)
    budget = Budget(0.8, leaving=((never, 0.1), (small, 0.25), (large, 0.5)))
    found = course(NETWORK, below(0.02).cases[0], clock=Clock(100.0))
    whole = Deadline(found.clock)
    for to_come, share in (((small, large, never), 0.25), ((large, never), 0.5), ((never,), 0.8), ((), 0.8)):
        left = budget.deadline(whole, found.problem, found.state, to_come).left()
        assert left == pytest.approx(100 * share, rel=0.05)
    assert Budget(0.8, 7.0).deadline(whole, found.problem, found.state, ()).left() == pytest.approx(7, rel=0.05)


def other_box(problem: Problem) -> Any:
    lower, upper = problem.box
    return interval(problem.margins, lower + 0.25, upper)


def other_network(problem: Problem) -> Any:
    return interval(problem.network, *problem.box)


def another_scope(problem: Problem) -> Any:
    return interval(problem.margins, *problem.box)


def hidden_row(problem: Problem) -> Any:
    bounds = interval(problem.margins, *problem.box)
    return bounds.units(problem.margins.preactivations[0], np.arange(3))


@pytest.mark.parametrize("foreign", [other_box, other_network, another_scope, hidden_row])
def test_a_state_refuses_what_is_proven_of_something_else(foreign: Callable[[Problem], Any]) -> None:
    found = course(NETWORK, below(0.02).cases[0], INTERVAL)
    with pytest.raises(ValueError, match="about"):
        found.take(Update(facts=(foreign(found.problem),)))


def test_first_bounds_over_a_part_of_the_box_are_refused() -> None:
    found = course(NETWORK, below(0.02).cases[0])
    ball = robustness(np.full(12, 0.25), 0, "0.25", num_classes=3, norm="l2").cases[0].inputs
    lower, upper = found.problem.box
    assert not ball.contains(LOW)
    with pytest.raises(ValueError, match="about"):
        found.take(Update(facts=(interval(found.problem.margins, lower, upper, ball),)))
    found.take(Update(facts=(interval(found.problem.margins, lower, upper),)))


def test_a_margin_of_the_negative_row_is_refused() -> None:
    found = course(NETWORK, below(0.02).cases[0], INTERVAL)
    margins = found.problem.margins
    rows = unit_rows(margins, margins.output, np.arange(1), None, found.problem.box[0]).negated()
    with pytest.raises(ValueError, match="multiples"):
        found.take(Update(facts=(row_minimum(found.state.proven, rows),)))


def test_an_obstacle_is_told_as_the_reason() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Hindered(Stage):
        def applies(self, problem: Problem, state: State) -> str | None:
            return None

        def obstacle(self, problem: Problem, state: State) -> str:
            return "it is too large"

        def run(self, work: Work) -> None:
            raise AssertionError("it does not apply")

    assert verify(NETWORK, below(0.02), stages=(INTERVAL, Hindered(name="hindered"))).reason == "it is too large"


def test_stages_are_values() -> None:
    """A schedule that went to another process, or was changed in one number, is compared by what it says."""
    assert replace(CROWN) == CROWN
    assert replace(OPTIMIZED_CROWN, name="other") != OPTIMIZED_CROWN
    assert len(set(CASCADE)) == len(CASCADE)


def test_what_cuts_gain_is_measured_once() -> None:
    found: Course = course(NETWORK, below(0.02).cases[0], INTERVAL, CROWN)
    assert CUT_SAMPLE.applies(found.problem, found.state) is not None
    found.run_stage(CUT_SAMPLE)
    assert found.state.cut_gain is not None
    assert CUT_SAMPLE.applies(found.problem, found.state) is None
