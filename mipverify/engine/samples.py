"""Samples of a data set: some of them together, and what is known of those that are left open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.sample import SampleResult, other_class
from mipverify.engine.stage import Stage
from mipverify.engine.state import State, Update
from mipverify.engine.together import Together
from mipverify.engine.verdict import Verdict
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import narrowed
from mipverify.proof.restated import restated
from mipverify.specification import Box
from mipverify.specification.robustness import misclassified


def answered(sample: SampleResult, verdict: Verdict) -> SampleResult:
    """A sample that was open, with the verdict of work of its own."""
    witness = verdict.witness
    return replace(
        sample,
        verdict=verdict.verdict,
        stage=verdict.stage,
        seconds=sample.seconds + verdict.seconds,
        margin_lower_bound=verdict.margin_lower_bound,
        adversarial=None if witness is None else witness.input,
        adversarial_label=None if witness is None else other_class(witness.output, sample.label),
        unstable=tuple(verdict.statistics.get("unstable_relus", ())),
        nodes=int(verdict.statistics.get("nodes", 0)),
        reason=verdict.reason,
        trusted=verdict.trusted,
        proof=None if verdict.proof is None else verdict.proof.to_bytes(),
    )


def samples_together(
    network: Network, inputs: Box, labels: np.ndarray, replay: Replay, seed: int, record: bool = False
) -> Together:
    """Whether any input of a box around each sample reaches another class than its label.

    inputs: the boxes, one after the other. labels: (N,). record: whether proofs are to be written.
    """
    classes = network.output_size
    of_label = {int(label): misclassified(int(label), classes, network.input_size) for label in np.unique(labels)}
    conditions = tuple(condition for label in of_label for condition in of_label[label])
    asked = np.repeat(labels[:, None] == np.array(list(of_label)), classes - 1, axis=1)
    return Together(
        network, inputs, conditions, asked, lambda sample: of_label[int(labels[sample])], replay, seed, record
    )


class LeftOpen:
    """Samples that were left open and what is known of them, the newest ones in bounded memory."""

    def __init__(self, most_bytes: int = 2**27):
        self._most, self._held = most_bytes, 0
        self._found: OrderedDict[int, tuple[SampleResult, HandedOn]] = OrderedDict()

    def add(self, result: SampleResult, known: HandedOn) -> None:
        """Keep one, under its index."""
        self.take(result.index)
        self._found[result.index] = result, known
        self._held += known.bytes
        while self._held > self._most:
            _, (_, oldest) = self._found.popitem(last=False)
            self._held -= oldest.bytes

    def take(self, index: int) -> tuple[SampleResult, HandedOn] | None:
        """What is kept under an index, which is forgotten; None where there is nothing."""
        found = self._found.pop(index, None)
        if found is not None:
            self._held -= found[1].bytes
        return found


@dataclass(frozen=True, eq=False)
class HandedOn:
    """What is known of a sample that was left open: where work of its own goes on.

    bounds: over its box, of the margin network of all samples (batch 1). columns: which outputs are its own margins.
    hints: inputs (H, n) to start attacks from. ran: the stages that it has been through.
    """

    bounds: Bounds
    columns: np.ndarray
    hints: np.ndarray
    ran: Sequence[Stage]

    @staticmethod
    def of(state: State, entry: int, ran: Sequence[Stage]) -> HandedOn:
        """Of one of several input sets."""
        assert state.problem.asked is not None
        columns = np.flatnonzero(state.problem.asked[entry])
        hints = state.hints[:0]
        if state.hinted is not None:
            hints = state.hints[state.hinted // len(state.problem.conditions) == entry]
        return HandedOn(state.proven.select(np.array([entry])), columns, hints, tuple(ran))

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        arrays = (*self.bounds.lower, *self.bounds.upper, self.hints)
        return sum(int(array.nbytes) for array in arrays)

    def update(self, problem: Problem) -> Update:
        """The same for the problem of the sample alone; ValueError where it is another one."""
        bounds = narrowed(problem.margins, problem.inputs, self.bounds)
        if not (self.bounds.finite()[0] and bounds.finite()[0]):
            return Update(facts=(bounds,), hints=self.hints)
        margins = restated(self.bounds, self.columns, bounds, np.arange(len(self.columns)))
        return Update(facts=(bounds, margins), hints=self.hints)
