"""Several boxes of one sample as one question: bounds and attacks in batches, then single work for what is left open.

A counterexample in one of them ends it; it holds where it holds in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course, silent
from mipverify.engine.problem import MarginNetworks, Problem
from mipverify.engine.recorded import ground_of, require_provable, with_proof
from mipverify.engine.samples import HandedOn
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.scores import score_case
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from mipverify.engine.verdict import Verdict, Witness
from mipverify.engine.verify import verify_rest, verify_with_grounds
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import points_of, validated
from mipverify.specification import Box, Case, Specification

if TYPE_CHECKING:
    from mipverify.proof_file import Ground

TOGETHER_BOXES = 64  # as many as samples of a report
TOGETHER_ENTRIES = 2**21  # node values of all of them


@dataclass(eq=False)
class PartsRun:
    """One question about some boxes of one sample.

    box: of all, one after the other. names: what each is called. left: parts that the batched stages leave open: the
    least margin, the part, and what is known of it. grounds: why parts hold, where a proof is to be written.
    """

    network: Network
    box: Box
    names: Sequence[dict[str, Any]]
    sample: Sample
    limits: Limits
    clock: Clock
    left: list[tuple[float, int, HandedOn]] = field(default_factory=list)
    grounds: dict[int, Ground] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = in_arithmetic(snapshot(self.network), self.limits.arithmetic)
        self._judged = self.sample.conditions(self.network.output_size)
        if self.limits.proof:
            require_provable(self.network, self._judged)
        self._lower = np.full(len(self.names), -np.inf)
        self._size = self.network.input_size
        self._trusted: tuple[str, ...] = ()
        self._nodes, self._stage, self._position = 0, "none", 0
        first = self._part(np.array([0]))
        self._replay = validated(self.network, points_of([(first.float32_lower, first.float32_upper)]))
        self._networks = MarginNetworks(self.network)
        self._conditions = score_case(self.network, Case(first, self._judged)).conditions
        self._margins = self._networks.of(self._conditions)
        self._unstable = np.zeros(len(self.network.relus), np.int64)

    def run(self) -> Verdict:
        """All parts in batches, then those that are left open, the least certain first."""
        nodes = sum(math.prod(node.shape) for node in self.network.nodes)
        count = max(1, min(TOGETHER_BOXES, TOGETHER_ENTRIES // nodes))
        told = self.limits.progress or silent
        for begin in range(0, len(self.names), count):
            if self.clock.over():
                return self._verdict("unknown", "none", reason="time")
            told("parts", f"{begin} of {len(self.names)}")
            some = np.arange(begin, min(begin + count, len(self.names)))
            found = self._together(some)
            if found is not None:
                part, witness, stage = found
                return self._verdict("violated", stage, part, witness)
        reason, stage, undecided = "", self._stage, False
        for turn, (_, part, start) in enumerate(sorted(self.left, key=lambda one: one[0])):
            if self.clock.over():
                return self._verdict("unknown", stage, reason="time")
            told("parts", f"{turn} of {len(self.left)} that are left open")
            verdict, grounds = self._alone(part, start)
            stage = verdict.stage
            if verdict.verdict == "violated":
                return self._verdict("violated", stage, part, verdict.witness)
            self.grounds.update((part, ground) for ground in grounds)
            undecided |= verdict.verdict != "holds"
            lower = verdict.margin_lower_bound
            self._lower[part] = -np.inf if lower is None else lower
            reason = reason or verdict.reason
            self._trusted = tuple(dict.fromkeys((*self._trusted, *verdict.trusted)))
            self._nodes += int(verdict.statistics.get("nodes", 0))
        verdict = self._verdict("unknown" if undecided else "holds", stage, reason=reason)
        return self._with_proof(verdict) if self.limits.proof and not undecided else verdict

    def _with_proof(self, verdict: Verdict) -> Verdict:
        """A verdict that all parts hold with their proof, one case each; unknown where none can be written."""
        parts = range(len(self.names))
        cases = tuple(Case(self._part(np.array([part])), self._judged) for part in parts)
        specification = Specification(cases, "robustness")
        return with_proof(verdict, self.network, specification, [self.grounds[part] for part in parts])

    def _part(self, some: np.ndarray) -> Box:
        return self.box.spread((some[:, None] * self._size + np.arange(self._size)).reshape(-1))

    def _together(self, some: np.ndarray) -> tuple[int, Witness, str] | None:
        """A counterexample in some parts, with its part and the stage that found it; None where there is none."""
        course = Course(self._problem(some), self.clock)
        for position, step in enumerate(TOGETHER):
            why = step.applies(course.problem, course.state)
            if why is None or (course.ran and self.clock.over()):  # what is handed on has bounds in any case
                continue
            course.run_stage(step, why, TOGETHER[position + 1 :])
            if position >= self._position:  # of all batches the last stage that any of them needed
                self._position, self._stage = position, step.name
            for entry, witness in course.state.witnesses.items():
                return int(some[entry]), witness, step.name
            holds = course.state.holds()
            self._unstable = np.maximum(
                self._unstable, course.state.proven.unstable_counts().max(axis=0)[: len(self._unstable)]
            )
            self._lower[some] = [float(course.state.of_entry(entry).min()) for entry in range(len(some))]
            if self.limits.proof:
                for entry in np.flatnonzero(holds).tolist():
                    own = course.state.grounds_of(entry)
                    self.grounds[int(some[entry])] = ground_of(course.problem, own, entry)
            kept = np.flatnonzero(~holds)
            if not len(kept):
                return None
            if len(kept) < len(some):
                some = some[kept]
                course.keep(self._problem(some), kept)
        for entry, part in enumerate(some.tolist()):
            self.left.append((float(self._lower[part]), part, HandedOn.of(course.state, entry, tuple(course.ran))))
        return None

    def _problem(self, some: np.ndarray) -> Problem:
        judge = _EachPart(self, some)
        own = self.network, self._conditions, self._part(some), self._margins, judge
        asked = np.ones((len(some), len(self._conditions)), bool)
        record = self.limits.proof
        return Problem(*own, seed=self.limits.seed, entries=len(some), asked=asked, record=record)

    def of_part(self, part: int) -> Problem:
        """The problem of one part by itself."""
        case = Case(self._part(np.array([part])), self._conditions)
        return Problem.of(
            self.network, case, self._replay, judged=self._judged, margins=self._networks, seed=self.limits.seed
        )

    def _alone(self, part: int, start: HandedOn) -> tuple[Verdict, list[Ground]]:
        """One part by itself, and why it holds, if it does and a proof is to be written: that is one of everything."""
        case = Case(self._part(np.array([part])), self._judged)
        asked, how = Specification((case,), "robustness"), self.limits
        if how.proof:
            return verify_with_grounds(self.network, asked, timeout=self.clock.left(), seed=how.seed)
        rest = verify_rest(self.network, asked, start, timeout=self.clock.left(), solver=how.solver, seed=how.seed)
        return rest, []

    def _verdict(
        self, word: Any, stage: str, part: int | None = None, witness: Witness | None = None, reason: str = ""
    ) -> Verdict:
        worst = int(self._lower.argmin()) if part is None else part
        lower = float(self._lower.min())
        statistics = {
            "unstable_relus": self._unstable.tolist(),
            "binaries": 0,
            "nodes": self._nodes,
            "seconds": {},
            "parts": len(self.names),
            "worst": self.names[worst],
        }
        return Verdict(
            word,
            self.clock.elapsed(),
            stage,
            margin_lower_bound=lower if np.isfinite(lower) and word != "violated" else None,
            witness=witness,
            trusted=self._trusted,
            statistics=statistics,
            reason=reason,
            network={"path": self.network.path, "sha256": self.network.sha256},
            property={"path": None, "sha256": None},
            arithmetic=self.network.arithmetic,
        )


@dataclass(frozen=True, eq=False)
class _EachPart:
    """Lets the judge of each part by itself decide. some: the part of each entry."""

    run: PartsRun
    some: np.ndarray

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        return self.run.of_part(int(self.some[entry])).judge.first_violation(points, conditions)


def verify_parts(
    network: Network, box: Box, names: Sequence[dict[str, Any]], sample: Sample, limits: Limits
) -> Verdict:
    """Whether an input of any of some boxes, one after the other in `box`, is classified otherwise than the sample."""
    return PartsRun(network, box, names, sample, limits, Clock(limits.timeout)).run()
