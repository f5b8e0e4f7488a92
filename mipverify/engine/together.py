"""Questions about a box each, about one network, which go through the same stages until they are decided."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.judge import Replaying
from mipverify.engine.problem import Problem
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.state import Update
from mipverify.engine.verdict import Witness
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.specification import Box, Case, Condition


@dataclass(frozen=True, eq=False)
class Reached:
    """What became of one question: it holds, or has a witness, or is left open.

    place: its number. course, entry: where what is known of it stands, until the next one is asked for; of those that
    are left open, for good. unstable: ReLUs of each layer, empty before any bounds.
    """

    place: int
    course: Course
    entry: int
    holds: bool
    unstable: tuple[int, ...]

    @property
    def witness(self) -> Witness | None:
        """The counterexample, if there is one."""
        return self.course.state.witnesses.get(self.entry)

    @property
    def margin(self) -> float:
        """The least lower bound of the margins that it is asked about."""
        return float(self.course.state.of_entry(self.entry).min())


@dataclass(frozen=True, eq=False)
class Together:
    """Some questions about a box each.

    boxes: one after the other. conditions: all that occur, on the network's output. asked: mask (N, k) of those that
    each question is about. judged: by its number, the conditions on what the original gives that these stand for.
    record: whether proofs are to be written.
    """

    network: Network
    boxes: Box
    conditions: tuple[Condition, ...]
    asked: np.ndarray
    judged: Callable[[int], tuple[Condition, ...]]
    replay: Replay
    seed: int
    record: bool = False

    @cached_property
    def margins(self) -> Network:
        """The margin network of all conditions."""
        return margin_network(self.network, self.conditions)

    def case(self, place: int) -> Case:
        """One question by itself."""
        return Case(self._boxes(np.array([place])), self.judged(place))

    def problem(self, some: np.ndarray) -> Problem:
        """The problem of some questions, by index array."""
        own = self.network, self.conditions, self._boxes(some), self.margins, _EachJudge(self, some)
        return Problem(*own, seed=self.seed, record=self.record, entries=len(some), asked=self.asked[some])

    def judge(self, place: int) -> Replaying:
        """Who accepts counterexamples to one question."""
        return Replaying(self.network, self.margins, self.case(place), self.replay, self.judged(place))

    def walk(
        self, clock: Clock, some: np.ndarray | None = None, *, first: np.ndarray | None = None
    ) -> Iterator[Reached]:
        """Each question once it is decided; once time is up, or all stages have been gone through, those left open.

        some: these questions alone, by index array. first: a point (N, n) of each, judged before any stage.
        """
        some = np.arange(len(self.asked)) if some is None else some
        course = Course(self.problem(some), clock)
        if first is not None:
            for entry, place in enumerate(some.tolist()):
                witness = self.judge(place).first_violation(first[place, None], np.flatnonzero(self.asked[place]))
                if witness is not None:
                    course.take(Update(witness=witness, entry=entry))
            some = yield from self._decided(course, some)
        for position, stage in enumerate(TOGETHER):
            if not len(some) or clock.over():
                break
            why = stage.applies(course.problem, course.state)
            if why is not None:
                course.run_stage(stage, why, TOGETHER[position + 1 :])
                some = yield from self._decided(course, some)
        unstable = _unstable(course, len(some))
        for entry, place in enumerate(some.tolist()):
            yield Reached(place, course, entry, False, unstable[entry])

    def _decided(self, course: Course, some: np.ndarray) -> Generator[Reached, None, np.ndarray]:
        """Those of some questions that are decided; returns the others, with which the course goes on."""
        state, unstable = course.state, _unstable(course, len(some))
        holds = state.holds()
        holds[list(state.witnesses)] = False
        for entry in (*state.witnesses, *np.flatnonzero(holds).tolist()):
            yield Reached(int(some[entry]), course, entry, bool(holds[entry]), unstable[entry])
        holds[list(state.witnesses)] = True
        left = np.flatnonzero(~holds)
        if 0 < len(left) < len(some):
            course.keep(self.problem(some[left]), left)
        return some[left]

    def _boxes(self, some: np.ndarray) -> Box:
        size = self.network.input_size
        return self.boxes.spread((some[:, None] * size + np.arange(size)).reshape(-1))


def _unstable(course: Course, count: int) -> list[tuple[int, ...]]:
    """Unstable ReLUs of each layer, for each of `count` questions."""
    if course.state.bounds is None:
        return [()] * count
    layers = len(course.problem.network.relus)
    return [tuple(row) for row in course.state.bounds.unstable_counts()[:, :layers].tolist()]


@dataclass(frozen=True, eq=False)
class _EachJudge:
    """Lets the judge of each question decide. some: the question of each entry."""

    together: Together
    some: np.ndarray

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        return self.together.judge(int(self.some[entry])).first_violation(points, conditions)
