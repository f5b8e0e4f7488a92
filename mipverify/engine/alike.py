"""Questions about a box each, about one network: their bounds and attacks are made together, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.judge import Replaying
from mipverify.engine.problem import MarginNetworks, Problem
from mipverify.engine.run import notes_on
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.scores import score_case
from mipverify.engine.state import Update
from mipverify.engine.verdict import Verdict, Witness
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.proof.bounds import Bounds
from mipverify.specification import Box, Case, Condition, Specification

MOST_CONDITIONS = 128  # of all questions of a batch: each of them is bounded for all of its boxes by intervals

Key: TypeAlias = tuple[Any, ...]


def askable(specification: Specification) -> bool:
    """Whether a question is one about one box, which can be asked together with others."""
    return len(specification.cases) == 1 and specification.cases[0].inputs.is_box and specification.assumed is None


def condition_keys(network: Network, specification: Specification) -> dict[Key, Condition]:
    """The conditions on the network's own output, each once: by what margins are made of.

    Raises InputError where these are not the question.
    """
    (case,) = specification.cases
    return {_key(condition): condition for condition in score_case(network, case).conditions}


def _key(condition: Condition) -> Key:
    rows = condition.input_rows
    inputs = () if rows is None else (rows.indptr.tobytes(), rows.indices.tobytes(), rows.data.tobytes())
    own = condition.output_rows.tobytes(), condition.offset.tobytes(), condition.strict.tobytes()
    return (*own, condition.coefficients_exact, *inputs)


@dataclass(eq=False)
class Alike:
    """Some questions about a box each, with few conditions in all.

    asked: the questions; conditions: those of each (`condition_keys`). replay: the network's original.
    """

    network: Network
    asked: Sequence[Specification]
    conditions: Sequence[dict[Key, Condition]]
    replay: Replay
    seed: int

    def __post_init__(self) -> None:
        union = {key: condition for own in self.conditions for key, condition in own.items()}
        place = {key: column for column, key in enumerate(union)}
        self._union = tuple(union.values())
        self._mask = np.zeros((len(self.asked), len(union)), bool)
        for entry, own in enumerate(self.conditions):
            self._mask[entry, [place[key] for key in own]] = True
        self._margins = MarginNetworks(self.network).of(self._union)
        self._cases = [specification.cases[0] for specification in self.asked]
        self._boxes = Box.joined([case.box for case in self._cases])

    def answers(self, clock: Clock) -> Iterator[tuple[int, Verdict | Bounds | None]]:
        """By place in `asked` the verdicts that bounds and attacks come to; for what they leave open the bounds, if
        time was left to make some."""
        some, size = np.arange(len(self.asked)), self.network.input_size
        course = Course(self._together(some), clock)
        middle = (0.5 * (self._boxes.float32_lower + self._boxes.float32_upper)).reshape(-1, size)
        for entry in range(len(some)):
            witness = self.judge(entry).first_violation(middle[entry, None], np.flatnonzero(self._mask[entry]))
            if witness is not None:
                course.take(Update(witness=witness, entry=entry))
        stage = "evaluation"
        for position, step in enumerate((None, *TOGETHER)):
            if step is not None:
                why = step.applies(course.problem, course.state)
                if why is None or clock.over():
                    continue
                course.run_stage(step, why, TOGETHER[position:])
                stage = step.name
            holds, witnesses = course.state.holds(), course.state.witnesses
            for entry, found in witnesses.items():
                yield int(some[entry]), self._verdict(course, some, entry, stage, found)
            for entry in np.flatnonzero(holds).tolist():
                if entry not in witnesses:
                    yield int(some[entry]), self._verdict(course, some, entry, stage, None)
            left = np.array([k for k in np.flatnonzero(~holds).tolist() if k not in witnesses], int)
            if not len(left):
                return
            if len(left) < len(some):
                some = some[left]
                course.keep(self._together(some), left)
        bounds = course.state.bounds
        for entry, place in enumerate(some.tolist()):
            yield place, None if bounds is None else bounds.select(np.array([entry]))

    def _together(self, some: np.ndarray) -> Problem:
        """The problem of some questions, by index array."""
        size = self.network.input_size
        boxes = self._boxes.spread((some[:, None] * size + np.arange(size)).reshape(-1))
        own = self.network, self._union, boxes, self._margins, _EachJudge(self, some)
        return Problem(*own, seed=self.seed, entries=len(some), asked=self._mask[some])

    def judge(self, place: int) -> Replaying:
        """Who accepts counterexamples to one question."""
        case: Case = self._cases[place]
        return Replaying(self.network, self._margins, case, self.replay, case.conditions)

    def _verdict(self, course: Course, some: np.ndarray, entry: int, stage: str, witness: Witness | None) -> Verdict:
        specification, state = self.asked[int(some[entry])], course.state
        lower = float(state.of_entry(entry).min())
        unstable = [] if state.bounds is None else state.bounds.unstable_counts()[entry].tolist()
        share = course.clock.elapsed() / len(self.asked)
        return Verdict(
            "holds" if witness is None else "violated",
            share,
            stage,
            margin_lower_bound=lower if np.isfinite(lower) and witness is None else None,
            witness=witness,
            statistics={
                "unstable_relus": unstable[: len(self.network.relus)],
                "binaries": 0,
                "nodes": 0,
                "seconds": {name: round(s / len(self.asked), 4) for name, s in course.clock.stages.items()},
                "steps": [],
                "together": len(self.asked),
            },
            network={"path": self.network.path, "sha256": self.network.sha256},
            property={"path": specification.path, "sha256": specification.sha256},
            notes=notes_on(specification),
            arithmetic=self.network.arithmetic,
        )


@dataclass(frozen=True, eq=False)
class _EachJudge:
    """Lets the judge of each question decide. some: the question of each entry."""

    alike: Alike
    some: np.ndarray

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        return self.alike.judge(int(self.some[entry])).first_violation(points, conditions)
