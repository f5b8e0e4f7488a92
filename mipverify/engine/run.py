"""One call of `verify` on its way: the problems that it has come to, and the verdict that follows from these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.problem import Problem
from mipverify.engine.recorded import ground_of, with_proof
from mipverify.engine.samples import HandedOn
from mipverify.engine.schedule import CASCADE, RECORDED
from mipverify.engine.scores import score_case
from mipverify.engine.stage import Stage
from mipverify.engine.state import State
from mipverify.engine.verdict import Verdict
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.network.validation import points_of, validated
from mipverify.parallel import Executor, ProcessPool
from mipverify.proof.bounds import Bounds
from mipverify.specification import Specification
from mipverify.specification.exact import shorten
from mipverify.specification.sets import InputSet

if TYPE_CHECKING:
    from mipverify.proof_file import Ground

MOST_VALIDATED = 4  # boxes on whose points the network is compared with its original
MOST_NAMED = 20  # coordinates in a note
MOST_STEPS = 100  # told of: a property of many cases has many


@dataclass(frozen=True, eq=False)
class AtHand:
    """What others before made, for runs on the same network to use.

    replay: its original, compared with it in the input sets of the question. pool: who works on parts of the work.
    around: bounds over sets around an input set.
    """

    replay: Replay
    pool: Executor
    around: Callable[[InputSet], tuple[Bounds, ...]]


@dataclass(eq=False)
class Run:
    """One call of `verify`, whose arguments these are, and the courses of the problems that it has come to.

    start: what is known already of the only case. at_hand: what need not be made anew.
    """

    network: Network
    specification: Specification
    clock: Clock
    solver: str
    seed: int
    workers: int
    progress: Callable[[str, str], None]
    stages: Sequence[Stage]
    proof: bool = False
    start: HandedOn | None = None
    at_hand: AtHand | None = None
    courses: list[Course] = field(default_factory=list)

    @cached_property
    def replay(self) -> Replay:
        """The network's original, compared with it; raises InputError where network and property do not fit."""
        self.specification.require_network(self.network)
        if self.at_hand is not None:
            return self.at_hand.replay
        return validated(self.network, compared_at(self.specification))

    def finish(self) -> Verdict:
        """Go through all cases, and say what they came to; raises InputError like `replay`."""
        replay = self.replay
        stages = RECORDED if self.proof and self.stages is CASCADE else self.stages
        cases = [score_case(self.network, case) for case in self.specification.cases]
        try:
            with self._pool() as pool:
                for turn, (case, stated) in enumerate(zip(cases, self.specification.cases, strict=True)):
                    problem = Problem.of(
                        self.network,
                        case,
                        replay,
                        judged=stated.conditions,
                        solver="bab" if self.proof else self.solver,  # no solver's word enters a proof
                        seed=self.seed,
                        turn=turn,
                        record=self.proof,
                        around=self.at_hand.around(case.inputs) if self.at_hand is not None else (),
                    )
                    self.courses.append(Course(problem, self.clock, self.progress, pool))
                    if self.start is not None:
                        self.courses[-1].take(self.start.update(problem))
                    if self.courses[-1].run(stages).witness is not None:
                        break
        except KeyboardInterrupt:
            return self.verdict("interrupted")
        except MemoryError:
            return self.verdict("out of memory")
        return self.verdict()

    def _pool(self) -> AbstractContextManager[Executor]:
        """Who works on parts of the work: for this run alone, or kept for others."""
        return ProcessPool(self.workers) if self.at_hand is None else nullcontext(self.at_hand.pool)

    def verdict(self, reason: str = "") -> Verdict:
        """What the problems came to. reason: why they were given up, if they were."""
        for course in list(self.courses):
            course.end_step()
        return self.so_far(reason)

    def so_far(self, reason: str) -> Verdict:
        """The verdict if the run is given up for this reason; it may go on meanwhile."""
        verdict = _verdict(self.network, self.specification, list(self.courses), self.clock, reason)
        if not self.proof or verdict.verdict != "holds":
            return verdict
        return with_proof(verdict, self.network, self.specification, self.grounds())

    def grounds(self) -> list[Ground]:
        """Why the conditions of each case are excluded."""
        return [ground_of(course.problem, course.state.grounds) for course in self.courses]


def compared_at(specification: Specification, most: int | None = None) -> np.ndarray:
    """The float32 points (P, n) of its input sets at which a network is compared with its original.

    most: of each set, its middle and corners.
    """
    cases = specification.cases[:MOST_VALIDATED]
    return np.concatenate([points_of([(case.box.float32_lower, case.box.float32_upper)])[:most] for case in cases])


def _verdict(
    network: Network, specification: Specification, courses: list[Course], clock: Clock, reason: str
) -> Verdict:
    states = [course.state for course in courses]
    witness = next((state.witness for state in states if state.witness is not None), None)
    complete = len(states) == len(specification.cases)
    lower = min((float(state.lower.min()) for state in states), default=float("-inf")) if complete else float("-inf")
    word: Any = "unknown"
    if witness is not None:
        word = "violated"
    elif complete and not reason and all(not len(state.open()) for state in states):
        word = "holds"
        if specification.assumed is not None:
            word, reason = "unknown", f"inputs have no bounds: it holds where they lie within {specification.assumed:g}"
    if word == "unknown" and not reason:
        reason = next((state.reason for state in states if state.reason), "time" if clock.over() else "undecided")
    statistics: dict[str, Any] = {
        "unstable_relus": _unstable(network, states),
        "binaries": max((state.binaries for state in states), default=0),
        "nodes": sum(state.nodes for state in states),
        "seconds": {name: round(seconds, 4) for name, seconds in list(clock.stages.items())},
        "steps": [step.to_json() for course in courses for step in course.steps][-MOST_STEPS:],
    }
    return Verdict(
        word,
        clock.elapsed(),
        courses[-1].stage if courses else "none",
        margin_lower_bound=lower if np.isfinite(lower) and word != "violated" else None,
        witness=witness,
        trusted=tuple(dict.fromkeys(t for state in states for t in state.trusted)),
        statistics=statistics,
        reason=reason if word == "unknown" else "",
        network={"path": network.path, "sha256": network.sha256},
        property={"path": specification.path, "sha256": specification.sha256},
        notes=notes_on(specification),
        arithmetic=network.arithmetic,
    )


def notes_on(specification: Specification) -> tuple[str, ...]:
    """What the verdict must say of the input set."""
    stated: dict[str, str] = {}
    names: set[str] = set()
    for case in specification.cases:
        for i, coordinate in case.box.stated.items():
            if coordinate.name not in stated and len(stated) < MOST_NAMED:
                stated[coordinate.name] = f"{shorten(coordinate.decimal)}: {case.box.float32_lower[i].item()!r}"
            names.add(coordinate.name)
    if not stated:
        return ()
    named = [f"{name} ({pair})" for name, pair in stated.items()]
    more = f" and {len(names) - len(named)} more" if len(names) > len(named) else ""
    return (f"no float32 lies between the bounds of {', '.join(named)}{more}: the nearest float32 stands for them",)


def _unstable(network: Network, states: list[State]) -> list[int]:
    """Unstable units of each ReLU layer, in the case that has the most."""
    counts = [state.bounds.unstable_counts()[0] for state in states if state.bounds is not None]
    return [int(v) for v in max(counts, key=lambda c: int(c.sum()))[: len(network.relus)]] if counts else []
