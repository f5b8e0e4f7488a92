"""A number between two proven ones: problems at levels between them raise the lower, witnesses lower the upper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.driver import Course, silent
from mipverify.engine.judge import Judge
from mipverify.engine.problem import MarginNetworks, Problem
from mipverify.engine.schedule import Shares
from mipverify.engine.stage import Stage
from mipverify.engine.state import Update
from mipverify.engine.verdict import Witness
from mipverify.network import Network
from mipverify.network.validation import points_of, validated
from mipverify.parallel import SERIAL, Executor, ProcessPool
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.proof.bounds import Bounds
from mipverify.specification import Box, Case

INTERRUPTED = "interrupted"  # the reason of a search that Ctrl-C has ended
CLOSE = 0.9  # of the gap that is allowed: so far below the upper bound a proof closes it, with room for rounding


class Bisection(ABC):
    """lower <= a number that a network defines <= upper, both narrowed by problems about levels between them.

    box: a set on whose points the network is compared with its original. shares: of the time left. seed, solver,
    progress: as in `verify`. record: whether what is proven must have a derivation; no solver's word counts then.
    """

    def __init__(
        self,
        network: Network,
        box: Box,
        clock: Clock,
        shares: Shares,
        *,
        seed: int,
        solver: str,
        progress: Callable[[str, str], None] | None,
        record: bool = False,
    ):
        self.network, self.clock, self.shares = network, clock, shares
        self.seed, self.solver, self.report = seed, "bab" if record else solver, progress or silent
        self.record = record
        self.replay = validated(network, points_of([(box.float32_lower, box.float32_upper)]))
        self.margin_networks = MarginNetworks(network)
        self.pool: Executor = SERIAL
        self.lower, self.upper = -np.inf, np.inf
        self.trusted: list[str] = []
        self.reason = ""
        self.questions = self.nodes = self.binaries = 0

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether there is nothing left to narrow."""

    @abstractmethod
    def aim(self) -> float:
        """A level so close to the upper bound that its proof ends the search."""

    @abstractmethod
    def ask(self, level: float, stages: Sequence[Stage], deadline: Deadline) -> None:
        """Take over what stages come to at a level."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Those for a level close to the upper bound."""

    @abstractmethod
    def stages_below(self) -> Sequence[Stage]:
        """Those for a level half way, which ought to hold."""

    def improve_witness(self) -> None:  # noqa: B027 - not every search does
        """What follows a lower upper bound."""

    @property
    def deadline(self) -> Deadline:
        """That of the search."""
        return Deadline(self.clock)

    @abstractmethod
    def close(self) -> None:
        """Narrow the bounds until they meet, nothing is left or time is over."""

    def finish(self, workers: int) -> str:
        """The same with so many processes that share the work; what ended it too early, empty for nothing.

        What is left behind then may bring the bounds closer yet, while they are read.
        """
        try:
            run_within(self.clock, partial(self._close_with, workers))
        except LeftBehindError:
            return "time"
        except KeyboardInterrupt:
            return INTERRUPTED
        except MemoryError:
            return "out of memory"
        return ""

    def _close_with(self, workers: int) -> None:
        with ProcessPool(workers) as self.pool:
            self.close()

    def narrow(self) -> None:
        """Bring the bounds together until they meet, time is up or nothing comes of it."""
        while not (self.done or self.clock.over()):
            before = self.lower, self.upper
            self.ask(self.aim(), self.stages(), self.deadline.within(share=self.shares.proof))
            if (self.lower, self.upper) == before:
                # Too hard so close to the upper bound: half way a proof may still be found.
                self.ask(self.middle(), self.stages_below(), self.deadline.within(share=self.shares.retry))
                if (self.lower, self.upper) == before:
                    return
            elif self.upper < before[1]:
                self.improve_witness()

    def middle(self) -> float:
        """Half way between the bounds."""
        return 0.5 * self.lower + 0.5 * self.upper

    def run(
        self,
        case: Case,
        stages: Sequence[Stage],
        deadline: Deadline,
        *,
        around: Bounds | None = None,
        start: Witness | None = None,
        judge: Callable[[Problem, Clock], Judge] | None = None,
    ) -> Course:
        """Send a case through stages. around: as in `Problem`. start: a witness of another level, near which attacks
        begin. judge: who accepts a counterexample, if not the usual one."""
        problem = Problem.of(
            self.network,
            case,
            self.replay,
            margins=self.margin_networks,
            solver=self.solver,
            seed=self.seed,
            turn=self.questions,
            record=self.record,
            around=() if around is None else (around,),
        )
        clock = Clock(deadline.left(), stages=self.clock.stages)
        if judge is not None:
            problem = problem.judged_by(judge(problem, clock))
        course = Course(problem, clock, self.report, self.pool)
        if start is not None:
            course.take(Update(hints=start.input[None].astype(np.float64)))
        state = course.run(stages)
        self.questions += 1
        self.nodes += state.nodes
        self.binaries = max(self.binaries, state.binaries)
        return course

    def seconds(self) -> dict[str, float]:
        """What each stage took."""
        return {name: round(seconds, 4) for name, seconds in self.clock.stages.items()}
