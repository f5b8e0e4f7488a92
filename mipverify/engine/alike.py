"""Questions about a box each, about one network: their bounds and attacks are made together, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.run import notes_on
from mipverify.engine.scores import score_case
from mipverify.engine.together import Reached, Together
from mipverify.engine.verdict import Verdict
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.proof.bounds import Bounds
from mipverify.specification import Box, Condition, Specification

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


@dataclass(frozen=True, eq=False)
class Alike:
    """Some questions about a box each, with few conditions in all.

    asked: the questions; conditions: those of each (`condition_keys`). replay: the network's original.
    """

    network: Network
    asked: Sequence[Specification]
    conditions: Sequence[dict[Key, Condition]]
    replay: Replay
    seed: int

    def answers(self, clock: Clock) -> Iterator[tuple[int, Verdict | Bounds | None]]:
        """By place in `asked` the verdicts that bounds and attacks come to; for what they leave open the bounds, if
        time was left to make some."""
        together = self._together()
        boxes = together.boxes
        middle = 0.5 * (boxes.float32_lower + boxes.float32_upper)
        for reached in together.walk(clock, first=middle.reshape(len(self.asked), -1)):
            bounds = reached.course.state.bounds
            if reached.holds or reached.witness is not None:
                yield reached.place, self._verdict(reached)
            else:
                yield reached.place, None if bounds is None else bounds.select(np.array([reached.entry]))

    def _together(self) -> Together:
        union = {key: condition for own in self.conditions for key, condition in own.items()}
        place = {key: column for column, key in enumerate(union)}
        mask = np.zeros((len(self.asked), len(union)), bool)
        for entry, own in enumerate(self.conditions):
            mask[entry, [place[key] for key in own]] = True
        cases = [specification.cases[0] for specification in self.asked]
        boxes, judged = Box.joined([case.box for case in cases]), [case.conditions for case in cases]
        return Together(self.network, boxes, tuple(union.values()), mask, judged.__getitem__, self.replay, self.seed)

    def _verdict(self, reached: Reached) -> Verdict:
        specification, course = self.asked[reached.place], reached.course
        lower = reached.margin
        return Verdict(
            "holds" if reached.witness is None else "violated",
            course.clock.elapsed() / len(self.asked),
            course.stage if course.ran else "evaluation",
            margin_lower_bound=lower if np.isfinite(lower) and reached.witness is None else None,
            witness=reached.witness,
            statistics={
                "unstable_relus": list(reached.unstable),
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
