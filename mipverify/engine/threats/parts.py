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
from mipverify.engine.driver import silent
from mipverify.engine.recorded import ground_of, require_provable, with_proof
from mipverify.engine.samples import HandedOn
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.scores import score_case
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from mipverify.engine.together import Reached, Together
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
STAGES = ("none", *(stage.name for stage in TOGETHER))


@dataclass(eq=False)
class PartsRun:
    """One question about some boxes of one sample.

    box: of all, one after the other. names: what each is called. left: parts that the batched stages leave open: the
    least margin, the part, and what is known of it, None where time was up before any bounds. grounds: why parts hold,
    where a proof is to be written.
    """

    network: Network
    box: Box
    names: Sequence[dict[str, Any]]
    sample: Sample
    limits: Limits
    clock: Clock
    left: list[tuple[float, int, HandedOn | None]] = field(default_factory=list)
    grounds: dict[int, Ground] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = in_arithmetic(snapshot(self.network), self.limits.arithmetic)
        self._judged = self.sample.conditions(self.network.output_size)
        if self.limits.proof:
            require_provable(self.network, self._judged)
        self._lower = np.full(len(self.names), -np.inf)
        self._trusted: tuple[str, ...] = ()
        self._nodes, self._stage = 0, "none"
        first = self.box.taken(slice(self.network.input_size))
        replay = validated(self.network, points_of([(first.float32_lower, first.float32_upper)]))
        conditions = score_case(self.network, Case(first, self._judged)).conditions
        asked = np.ones((len(self.names), len(conditions)), bool)
        how = replay, self.limits.seed, self.limits.proof
        self._parts = Together(self.network, self.box, conditions, asked, lambda _: self._judged, *how)
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
            for reached in self._parts.walk(self.clock, some):
                if reached.witness is not None:
                    return self._verdict("violated", reached.course.stage, reached.place, reached.witness)
                self._take(reached)
        reason, stage, undecided = "", self._stage, False
        for turn, (_, part, start) in enumerate(sorted(self.left, key=lambda one: one[0])):
            if start is None or self.clock.over():
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
        specification = Specification(tuple(map(self._parts.case, parts)), "robustness")
        return with_proof(verdict, self.network, specification, [self.grounds[part] for part in parts])

    def _take(self, reached: Reached) -> None:
        """What batched stages have come to for one part, in which they have found no counterexample."""
        part, course, entry = reached.place, reached.course, reached.entry
        self._stage = max(self._stage, course.stage, key=STAGES.index)  # the last one that any part needed
        self._lower[part] = reached.margin
        if reached.unstable:
            self._unstable = np.maximum(self._unstable, reached.unstable)
        if reached.holds and self.limits.proof:
            self.grounds[part] = ground_of(course.problem, course.state.grounds_of(entry), entry)
        elif not reached.holds:
            known = course.state.bounds is not None
            start = HandedOn.of(course.state, entry, tuple(course.ran)) if known else None
            self.left.append((reached.margin, part, start))

    def _alone(self, part: int, start: HandedOn) -> tuple[Verdict, list[Ground]]:
        """One part by itself, and why it holds, if it does and a proof is to be written: that is one of everything."""
        asked, how = Specification((self._parts.case(part),), "robustness"), self.limits
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


def verify_parts(
    network: Network, box: Box, names: Sequence[dict[str, Any]], sample: Sample, limits: Limits
) -> Verdict:
    """Whether an input of any of some boxes, one after the other in `box`, is classified otherwise than the sample."""
    return PartsRun(network, box, names, sample, limits, Clock(limits.timeout)).run()
