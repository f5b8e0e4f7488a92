"""One question from network and specification to verdict: the cascade, case by case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.question import Question
from mipverify.engine.stages import CASCADE, Stage
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError, Stopped
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import points_of, validated
from mipverify.parallel import Crew
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.solvers.registry import require_choice
from mipverify.specification import Case, Condition, Specification
from mipverify.specification.preimage import on_scores

MOST_VALIDATED = 4  # boxes on whose points the network is compared with its original
MOST_NAMED = 20  # coordinates in a note
MOST_STEPS = 100  # told of: a property of many cases has many


def verify(
    network: Network,
    specification: Specification,
    *,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    memory: int | None = None,
    progress: Callable[[str, str], None] | None = None,
    stages: Sequence[Stage] = CASCADE,
    proof: bool = False,
) -> Verdict:
    """Prove that no input of the specification's set meets a violating condition, or find one that does.

    timeout: seconds for the whole question. solver: what finishes if bounds do not, of those in `registry.choices()`.
    workers: processes that share the work of one question; the others start only once it has turned out to be hard.
    memory: cap in bytes on what the work may take, which is then done in a process of its own; beyond it the verdict is
    unknown.
    progress: called with a stage's name and a short text. stages: what to run, for measurements. proof: whether what
    holds must come with `Verdict.proof`; no solver's word counts then, and all is done in one process.
    Raises InputError where network and property do not fit.
    """
    require_choice(solver)
    network = snapshot(network)
    run = Run(network, specification, Clock(timeout), solver, seed, workers, progress or silent, stages, proof)
    if memory is not None:
        from mipverify.engine.confined import run_confined

        return run_confined(run, memory)
    try:
        return run_within(run.clock, run.finish)
    except KeyboardInterrupt:
        return run.verdict("interrupted")
    except LeftBehindError:
        return run.verdict("time")


def silent(stage: str, text: str) -> None:
    """The progress that nobody follows."""


@dataclass(eq=False)
class Run:
    """One call of `verify`, whose arguments these are, and the questions that it has come to."""

    network: Network
    specification: Specification
    clock: Clock
    solver: str
    seed: int
    workers: int
    progress: Callable[[str, str], None]
    stages: Sequence[Stage]
    proof: bool = False
    questions: list[Question] = field(default_factory=list)

    @cached_property
    def replay(self) -> Replay:
        """The network's original, compared with it; raises InputError where network and property do not fit."""
        self.specification.require_network(self.network)
        cases = self.specification.cases[:MOST_VALIDATED]
        return validated(self.network, points_of([(case.box.float32_lower, case.box.float32_upper) for case in cases]))

    def finish(self) -> Verdict:
        """Go through all cases, and say what they came to; raises InputError like `replay`."""
        replay = self.replay
        cases = [score_case(self.network, case) for case in self.specification.cases]
        rng = np.random.default_rng(self.seed)
        try:
            with Crew(1 if self.proof else self.workers) as crew:
                for case, stated in zip(cases, self.specification.cases, strict=True):
                    question = Question(self.network, case, replay, self.clock, rng, self.solver, self.progress, crew)
                    question.judged, question.seed = stated.conditions, self.seed
                    question.record = self.proof
                    self.questions.append(question)
                    run_cascade(question, self.stages)
                    if question.witness is not None:
                        break
        except KeyboardInterrupt:
            return self.verdict("interrupted")
        except MemoryError:
            return self.verdict("out of memory")
        return self.verdict()

    def verdict(self, reason: str = "") -> Verdict:
        """What the questions came to. reason: why they were given up, if they were."""
        for question in list(self.questions):
            question.end_step()
        return self.so_far(reason)

    def so_far(self, reason: str) -> Verdict:
        """The verdict if the run is given up for this reason; it may go on meanwhile."""
        verdict = _verdict(self.network, self.specification, list(self.questions), self.clock, reason)
        return self._with_proof(verdict) if self.proof and verdict.verdict == "holds" else verdict

    def _with_proof(self, verdict: Verdict) -> Verdict:
        """The verdict with its proof; unknown where none can be written."""
        from mipverify.proof_file import Ground, UnprovableError, write_proof

        grounds = [Ground(q.margins, q.box[0].reshape(-1), q.box[1].reshape(-1), q.grounds) for q in self.questions]
        try:
            return replace(verdict, proof=write_proof(self.network, self.specification, grounds))
        except UnprovableError as error:
            return replace(verdict, verdict="unknown", reason=f"no proof can be written: {error}")


def run_cascade(question: Question, stages: Sequence[Stage] = CASCADE) -> None:
    """Run the stages until the question is decided or time is up."""
    for stage in stages:
        if question.decided():
            break
        if question.clock.over():
            question.reason = "time"
            break
        with suppress(Stopped):  # the clock tells why
            if stage.when(question):
                question.stage = stage.name
                question.report(stage.name, "")
                with question.step(stage.name):
                    stage.run(question)


def score_case(network: Network, case: Case) -> Case:
    """The case in terms of the network's own output, which its original's final functions turn into what it gives.

    Raises InputError where the two are not the same question.
    """
    if not network.dropped:
        return case
    return replace(case, conditions=tuple(_score_condition(network, condition) for condition in case.conditions))


def require_order(network: Network, conditions: Iterable[Condition]) -> None:
    """Raise InputError unless the conditions say of the network's own output what they say of its original's."""
    for condition in conditions if network.dropped else ():
        if _score_condition(network, condition).rows != condition.rows:
            raise _beyond(network, condition, "it asks for more than their order")


def _score_condition(network: Network, condition: Condition) -> Condition:
    try:
        return on_scores(condition, network.dropped, network.output_size)
    except InputError as error:
        raise _beyond(network, condition, str(error)) from None


def _beyond(network: Network, condition: Condition, reason: str) -> InputError:
    what = "; ".join(network.notes)
    return InputError(
        f"{network.path or 'the network'}: {what}; condition {condition.label!r} of the property: {reason}"
    )


def _verdict(
    network: Network, specification: Specification, questions: list[Question], clock: Clock, reason: str
) -> Verdict:
    witness = next((w for w in [q.witness for q in questions] if w is not None), None)
    complete = len(questions) == len(specification.cases)
    lower = min((float(q.lower.min()) for q in questions), default=float("-inf")) if complete else float("-inf")
    word: Any = "unknown"
    if witness is not None:
        word = "violated"
    elif complete and not reason and all(not len(q.open()) for q in questions):
        word = "holds"
    if word == "unknown" and not reason:
        reason = next((q.reason for q in questions if q.reason), "time" if clock.over() else "undecided")
    statistics: dict[str, Any] = {
        "unstable_relus": _unstable(questions),
        "binaries": max((q.binaries for q in questions), default=0),
        "nodes": sum(q.nodes for q in questions),
        "seconds": {name: round(seconds, 4) for name, seconds in list(clock.stages.items())},
        "steps": [step.to_json() for q in questions for step in q.steps][-MOST_STEPS:],
    }
    return Verdict(
        word,
        clock.elapsed(),
        questions[-1].stage if questions else "none",
        margin_lower_bound=lower if np.isfinite(lower) and word != "violated" else None,
        witness=witness,
        trusted=tuple(dict.fromkeys(t for q in questions for t in q.trusted)),
        statistics=statistics,
        reason=reason if word == "unknown" else "",
        network={"path": network.path, "sha256": network.sha256},
        property={"path": specification.path, "sha256": specification.sha256},
        notes=_notes(specification),
    )


def _notes(specification: Specification) -> tuple[str, ...]:
    """What the verdict must say of the input set."""
    stated: dict[str, str] = {}
    names: set[str] = set()
    for case in specification.cases:
        for i, coordinate in case.box.stated.items():
            if coordinate.name not in stated and len(stated) < MOST_NAMED:
                stated[coordinate.name] = f"{coordinate.decimal}: {case.box.float32_lower[i].item()!r}"
            names.add(coordinate.name)
    if not stated:
        return ()
    named = [f"{name} ({pair})" for name, pair in stated.items()]
    more = f" and {len(names) - len(named)} more" if len(names) > len(named) else ""
    return (f"no float32 lies between the bounds of {', '.join(named)}{more}: the nearest float32 stands for them",)


def _unstable(questions: list[Question]) -> list[int]:
    """Unstable units of each ReLU layer, in the case that has the most."""
    counts = [q.bounds.unstable_counts()[0] for q in questions if q.bounds is not None]
    relus = len(questions[0].network.relus) if questions else 0
    return [int(v) for v in max(counts, key=lambda c: int(c.sum()))[:relus]] if counts else []
