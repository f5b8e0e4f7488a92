"""Samples of a data set as problems: each by itself, or some of them together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mipverify.engine.problem import MarginNetworks, Problem
from mipverify.engine.sample import SampleResult, other_class
from mipverify.engine.stage import Stage
from mipverify.engine.state import State, Update
from mipverify.engine.verdict import Verdict, Witness
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import narrowed
from mipverify.proof.restated import restated
from mipverify.specification import Box, Case, Condition
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


@dataclass(frozen=True, eq=False)
class Samples:
    """Whether any input of a box around each sample reaches another class than its label.

    inputs: the boxes, one after the other. labels: (N,). record: whether proofs are to be written.
    """

    network: Network
    inputs: Box
    labels: np.ndarray
    replay: Replay
    seed: int
    record: bool = False

    @cached_property
    def margin_networks(self) -> MarginNetworks:
        """Of all labels that occur, and of each."""
        return MarginNetworks(self.network)

    @cached_property
    def margins(self) -> Network:
        """The margin network of all conditions."""
        return self.margin_networks.of(self.conditions)

    @cached_property
    def of_label(self) -> dict[int, tuple[Condition, ...]]:
        """The conditions on samples of each label that occurs."""
        size, classes = self.network.input_size, self.network.output_size
        return {int(label): misclassified(int(label), classes, size) for label in np.unique(self.labels)}

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Those of all labels that occur."""
        return tuple(condition for label in self.of_label for condition in self.of_label[label])

    @cached_property
    def columns(self) -> dict[int, np.ndarray]:
        """Which of all conditions are those of each label."""
        each = self.network.output_size - 1
        return {label: np.arange(k * each, (k + 1) * each) for k, label in enumerate(self.of_label)}

    def case(self, sample: int) -> Case:
        """The case of one sample."""
        return Case(self._boxes(np.array([sample])), self.of_label[int(self.labels[sample])])

    def together(self, some: np.ndarray) -> Problem:
        """The problem of some samples, by index array."""
        asked = np.zeros((len(some), len(self.conditions)), bool)
        for k, sample in enumerate(some.tolist()):
            asked[k, self.columns[int(self.labels[sample])]] = True
        own = self.network, self.conditions, self._boxes(some), self.margins, _EachJudge(self, some)
        return Problem(*own, seed=self.seed, record=self.record, entries=len(some), asked=asked)

    def _boxes(self, some: np.ndarray) -> Box:
        size = self.network.input_size
        return self.inputs.spread((some[:, None] * size + np.arange(size)).reshape(-1))


@dataclass(frozen=True, eq=False)
class _EachJudge:
    """Lets the judge of each sample by itself decide. some: the sample of each entry."""

    samples: Samples
    some: np.ndarray

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        samples, sample = self.samples, int(self.some[entry])
        problem = Problem.of(
            samples.network, samples.case(sample), samples.replay, margins=samples.margin_networks, seed=samples.seed
        )
        own = np.flatnonzero(np.isin(samples.columns[int(samples.labels[sample])], conditions))
        return problem.judge.first_violation(points, own)


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
