"""What a stage of the cascade is: when it is worth its time, how much of it it gets, and what it does with that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from mipverify.engine.budget import Deadline
from mipverify.engine.problem import Problem
from mipverify.engine.state import Fact, State, Update
from mipverify.engine.verdict import Witness
from mipverify.parallel import Executor


@dataclass(frozen=True)
class Budget:
    """How long a stage may search: a share of the time that the question has left, at most `seconds`.

    leaving: (stage, share): while that stage is still to come and worth its time, this one gets only so much; the first
    one that is decides.
    """

    share: float = 1.0
    seconds: float = math.inf
    leaving: tuple[tuple[Stage, float], ...] = ()

    def deadline(self, whole: Deadline, problem: Problem, state: State, to_come: Collection[Stage]) -> Deadline:
        """When a stage that begins now must end, within that of the question."""
        shares = (
            share for stage, share in self.leaving if stage in to_come and stage.applies(problem, state) is not None
        )
        return whole.within(self.seconds, share=next(shares, self.share))


ALL_THAT_IS_LEFT = Budget()


@dataclass(frozen=True, eq=False)
class Work:
    """A stage at work: what it may read and use, and where it says what it has come to.

    state: what is known, updates of this stage included. deadline: when it must end; `deadline.whole` is that of the
    question, for what follows from a search and is not cut short with it. pool: who works on what can be cut into
    parts. rng: its own random numbers. tell: takes an update over at once, so that nothing proven is lost where the
    stage is interrupted. report: a topic and a text for who follows the work; no part of what is known.
    """

    problem: Problem
    state: State
    deadline: Deadline
    pool: Executor
    rng: np.random.Generator
    tell: Callable[[Update], None]
    report: Callable[[str, str], None]

    def learn(self, *facts: Fact) -> None:
        """Tell what is proven."""
        self.tell(Update(facts=facts))

    def try_points(self, points: np.ndarray, entry: int | None = None) -> Witness | None:
        """Have points (R, ...) judged; the first that violates is told, and ends the question about its input set.

        entry: which one that is, of several.
        """
        open_ = self.state.open() if entry is None else self.state.open_at(entry)
        witness = self.problem.judge.first_violation(points, open_, entry or 0)
        if witness is not None:
            self.tell(Update(witness=witness, entry=entry or 0))
        return witness

    def outlasting(self) -> Work:
        """The same for a search that may go on in a later stage: its deadline is that of the question."""
        return replace(self, deadline=self.deadline.whole)


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A step of the cascade. Subclasses are frozen dataclasses, whose fields are the numbers that a schedule sets.

    name: what verdicts and reports call it. budget: how long it may search.
    """

    name: str
    budget: Budget = ALL_THAT_IS_LEFT

    @abstractmethod
    def applies(self, problem: Problem, state: State) -> str | None:
        """Why it is worth its time, or None where it is not; changes nothing, and is cheap."""

    def obstacle(self, problem: Problem, state: State) -> str:
        """What keeps it from a problem that it is meant for, in words for the user; "" where there is nothing."""
        return ""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Work on the open conditions until they are decided or `work.deadline` is over, telling what comes of it.

        May raise Stopped where time is up before there is anything to tell.
        """
