"""Problems under way as tests want them, stages that call a function of a test, and a judge who accepts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.judge import Judge
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State
from mipverify.engine.verdict import Witness
from mipverify.network import Network
from mipverify.network.replay import replay_of
from mipverify.specification import Case


@dataclass(frozen=True, kw_only=True)
class Calls(Stage):
    """Runs `action`, whatever is known."""

    action: Callable[[Work], None]

    def applies(self, problem: Problem, state: State) -> str | None:
        return "asked for"

    def run(self, work: Work) -> None:
        self.action(work)


def calling(name: str, action: Callable[[Work], None]) -> Stage:
    return Calls(name=name, action=action)


class AcceptsNothing:
    """No counterexample saves a wrong proof."""

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        return None


def course(
    network: Network,
    case: Case,
    *stages: Stage,
    clock: Clock | None = None,
    solver: str = "auto",
    judge: Judge | None = None,
) -> Course:
    """A problem that has been through some stages, whether they apply or not."""
    problem = Problem.of(network, case, replay_of(network), solver=solver)
    found = Course(problem if judge is None else problem.judged_by(judge), clock or Clock(60.0))
    for stage in stages:
        found.run_stage(stage)
    return found
