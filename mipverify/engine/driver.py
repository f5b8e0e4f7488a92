"""The driver of the cascade: runs stages in order, takes over what they tell, and records what each came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.errors import Stopped
from mipverify.parallel import SERIAL, Executor


@dataclass(frozen=True)
class Step:
    """What a stage came to: conditions still open, their lowest bound, unstable ReLUs (None before any bounds)."""

    stage: str
    seconds: float
    open: int
    bound: float
    unstable: int | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `Verdict.statistics`."""
        bound = self.bound if np.isfinite(self.bound) else None
        return {**asdict(self), "seconds": round(self.seconds, 4), "bound": bound}


def silent(topic: str, text: str) -> None:
    """Tells nobody."""


@dataclass(eq=False)
class Course:
    """The way of one problem through stages.

    clock: of the question, which may have several problems. report: called with a topic and a text for who follows the
    work. pool: who works on what can be cut into parts. state: what is known. ran: the stages so far; steps:
    what each came to.
    """

    problem: Problem
    clock: Clock
    report: Callable[[str, str], None] = silent
    pool: Executor = SERIAL
    state: State = field(init=False)
    ran: list[Stage] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _begun: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        self.state = State(self.problem)

    @property
    def stage(self) -> str:
        """The name of the last stage that ran."""
        return self.ran[-1].name if self.ran else "none"

    def run(self, stages: Sequence[Stage]) -> State:
        """Run the stages until the problem is decided or time is up; what is known then."""
        for position, stage in enumerate(stages):
            if self.state.decided():
                break
            if self.clock.over():
                self.take(Update(reason="time"))
                break
            why = stage.applies(self.problem, self.state)
            if why is not None:
                self.run_stage(stage, why, stages[position + 1 :])
            elif obstacle := stage.obstacle(self.problem, self.state):
                self.take(Update(reason=obstacle))
        return self.state

    def run_stage(self, stage: Stage, why: str = "", to_come: Sequence[Stage] = ()) -> None:
        """Run one stage, whether it applies or not. why: as it says. to_come: those that time must be left for."""
        deadline = stage.budget.deadline(Deadline(self.clock), self.problem, self.state, to_come)
        rng = self.problem.generator(stage.name)
        self.ran.append(stage)
        self.report(stage.name, "")
        self._begun, self._notes = (stage.name, self.clock.elapsed()), [why] if why else []
        try:
            with suppress(Stopped):  # the clock tells why
                stage.run(Work(self.problem, self.state, deadline, self.pool, rng, self.take, self.report))
        finally:
            self.end_step()

    def keep(self, problem: Problem, some: np.ndarray) -> None:
        """Go on with some of several input sets, by index array, about which `problem` is."""
        self.state, self.problem = self.state.keep(problem, some), problem

    def take(self, update: Update) -> None:
        """Take over what a stage tells."""
        self.state.learn(update)
        if update.note:
            self._notes.append(update.note)
            self.report("policy", update.note)

    def end_step(self) -> None:
        """Record the stage under way, if there is one: also when it is left behind."""
        if self._begun is None:
            return
        (stage, begin), self._begun = self._begun, None
        state, seconds = self.state, self.clock.elapsed() - begin
        self.clock.count(stage, seconds)
        bound, count = float(state.asked_margins().min()), state.count_open()
        unstable = None if state.bounds is None else int(state.bounds.unstable_counts().sum())
        self.steps.append(Step(stage, seconds, count, bound, unstable, "; ".join(self._notes)))
