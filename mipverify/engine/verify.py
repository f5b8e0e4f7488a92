"""One question from network and specification to verdict: the cascade, case by case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.question import Question
from mipverify.engine.stages import CASCADE
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.replay import OnnxRuntimeReplay
from mipverify.specification import Specification

SOLVERS = ("auto", "bab", "highs", "cbc", "scip")


def verify(
    network: Network,
    specification: Specification,
    *,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    memory: int | None = None,
    progress: Callable[[str, str], None] | None = None,
) -> Verdict:
    """Prove that no input of the specification's set meets a violating condition, or find one that does.

    timeout: seconds for the whole question. solver: what finishes if bounds do not: auto, bab, highs, cbc or scip.
    memory: cap in bytes on the address space of this process; beyond it the verdict is unknown.
    progress: called with a stage's name and a short text. Raises InputError where network and property do not fit.
    """
    if solver not in SOLVERS:
        raise InputError(f"solver {solver!r} is not one of {', '.join(SOLVERS)}")
    clock = Clock(timeout)
    _check_fit(network, specification)
    replay = OnnxRuntimeReplay(network.path or "")
    rng = np.random.default_rng(seed)
    questions: list[Question] = []
    stage = "none"
    reason = ""
    try:
        for case in specification.cases:
            question = Question(network, case, replay, clock, rng, solver, progress or (lambda stage, text: None))
            questions.append(question)
            stage = run_cascade(question)
            if question.witness is not None:
                break
    except KeyboardInterrupt:
        reason = "interrupted"
    except MemoryError:
        reason = "out of memory"
    return _verdict(network, specification, questions, clock, stage, reason)


def run_cascade(question: Question) -> str:
    """Run the stages until the question is decided or time is up; returns the name of the last one that ran."""
    last = "none"
    for stage in CASCADE:
        if question.decided():
            break
        if question.clock.over():
            question.reason = "time"
            break
        if stage.when(question):
            last = stage.name
            question.report(stage.name, "")
            with question.clock.stage(stage.name):
                stage.run(question)
    return last


def _check_fit(network: Network, specification: Specification) -> None:
    for case in specification.cases:
        if len(case.box.lower) != network.input_size:
            raise InputError(
                f"{specification.path or 'the property'}: {len(case.box.lower)} inputs, but {network.path or 'the network'} "
                f"has {network.input_size} (shape {list(network.input_shape)})"
            )
        for condition in case.conditions:
            if condition.output_rows.shape[1] != network.output_size:
                raise InputError(
                    f"{specification.path or 'the property'}: {condition.output_rows.shape[1]} outputs, but "
                    f"{network.path or 'the network'} has {network.output_size}"
                )


def _verdict(
    network: Network, specification: Specification, questions: list[Question], clock: Clock, stage: str, reason: str
) -> Verdict:
    witness = next((q.witness for q in questions if q.witness is not None), None)
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
        "seconds": {name: round(seconds, 4) for name, seconds in clock.stages.items()},
    }
    return Verdict(
        word,
        clock.elapsed(),
        stage,
        margin_lower_bound=lower if np.isfinite(lower) and word != "violated" else None,
        witness=witness,
        trusted=tuple(dict.fromkeys(t for q in questions for t in q.trusted)),
        statistics=statistics,
        reason=reason if word == "unknown" else "",
        network={"path": network.path, "sha256": network.sha256},
        property={"path": specification.path, "sha256": specification.sha256},
    )


def _unstable(questions: list[Question]) -> list[int]:
    """Unstable units of each ReLU layer, in the case that has the most."""
    counts = [q.bounds.unstable_counts()[0] for q in questions if q.bounds is not None]
    relus = len(questions[0].network.relus) if questions else 0
    return [int(v) for v in max(counts, key=lambda c: int(c.sum()))[:relus]] if counts else []
