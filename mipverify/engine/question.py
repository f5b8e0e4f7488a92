"""One question under way: a box, its margins, what is proven of them so far, and who may accept a counterexample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.verdict import Witness
from mipverify.formulation.margin import condition_parts, margin_network
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.parallel import ALONE, Hands
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation
from mipverify.proof.facts import RowBounds, UnitBounds
from mipverify.proof.reduction import Reduced, reduce
from mipverify.specification import Case, Condition

if TYPE_CHECKING:
    from mipverify.engine.splitting import Trees
    from mipverify.solvers.branch_and_bound.search import PhaseSearch


@dataclass(frozen=True)
class Step:
    """What a stage came to: conditions still open, their lowest bound, unstable ReLUs (None before any bounds)."""

    stage: str
    seconds: float
    open: int
    bound: float
    unstable: int | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `Verdict.statistics`."""
        bound = self.bound if np.isfinite(self.bound) else None
        return {**asdict(self), "seconds": round(self.seconds, 4), "bound": bound}


@dataclass(eq=False)
class Question:
    """Whether any condition of `case` is met inside its box. Stages read it and write what they find into it.

    margins: the network whose outputs (k,) are the conditions' margins. lower: proven lower bounds (k,).
    bounds: of every node of `margins` over the box, batch 1, once a stage has made them.
    cut_gain: the share of the width of hidden bounds that cuts take away, once it was measured. hidden_cut,
    tightened_harder: whether they were cut, and had their further passes. binaries: of the largest program; programmed:
    whether a MILP solver was tried.
    judged: the conditions on what the original gives that the case's stand for, if it is not the network's output.
    hints: inputs (H, n) that bounds suggest as starting points of attacks. around: bounds over an input set around it.
    seed: of solvers. hands: who works on stages that can be cut into parts. steps: what each stage came to. notes: why
    the next one is run the way it is.
    record: whether a proof is to be written: what has no derivation counts as nothing then. grounds: by condition, the
    derivation of its best bound, and which of its rows.
    trees: searches on phases under way. lifted: the one with semidefinite bounds.
    """

    network: Network
    case: Case
    replay: Replay
    clock: Clock
    rng: np.random.Generator
    solver: str = "auto"
    report: Callable[[str, str], None] = lambda stage, text: None
    hands: Hands = ALONE
    judged: tuple[Condition, ...] = ()
    seed: int = 0
    witness: Witness | None = None
    bounds: Bounds | None = None
    around: Bounds | None = None
    trusted: list[str] = field(default_factory=list)
    cut_gain: float | None = None
    hidden_cut: bool = False
    tightened_harder: bool = False
    nodes: int = 0
    binaries: int = 0
    programmed: bool = False
    reason: str = ""
    stage: str = "none"
    record: bool = False
    grounds: dict[int, tuple[Derivation, int]] = field(default_factory=dict)
    trees: Trees | None = None
    lifted: PhaseSearch | None = None
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judged = self.judged or self.case.conditions
        self._reduced: tuple[Bounds, Reduced] | None = None
        self._begun: tuple[str, float] | None = None
        self.margins = margin_network(self.network, self.case.conditions)
        self.lower = np.full(len(self.case.conditions), -np.inf)
        # A condition of strict rows only is not met where its margin, the largest of theirs, is zero.
        self._excluded_at_zero = np.array([bool(c.strict.all()) for c in self.case.conditions])
        self.hints = np.zeros((0, self.network.input_size))
        shape, box = (1, *self.network.input_shape), self.case.box
        self.float_box = (box.float32_lower, box.float32_upper)
        lower, upper = box.enclosure
        self.box = (lower.reshape(shape), upper.reshape(shape))

    @property
    def reduced(self) -> Reduced:
        """The margin network reduced to what is unstable within `bounds`, made once for them.

        Raises Stopped where time is up before it is done.
        """
        assert self.bounds is not None
        if self._reduced is None or self._reduced[0] is not self.bounds:
            self._reduced = self.bounds, reduce(self.bounds, self.clock.over)
        return self._reduced[1]

    def open(self) -> np.ndarray:
        """Indices of the conditions that no bound excludes yet."""
        return np.flatnonzero(~((self.lower > 0) | (self._excluded_at_zero & (self.lower >= 0))))

    def decided(self) -> bool:
        """Whether there is a witness or no open condition."""
        return self.witness is not None or not len(self.open())

    def learn(self, fact: RowBounds) -> None:
        """Take over what is proven of margins, over the whole input set or that of the reduced network.

        Raises ValueError where the fact is about something else.
        """
        if self._reduced is not None and fact.scope.key == self._reduced[1].bounds.scope.key:
            fact = self._reduced[1].lifted_rows(fact)
        claim = fact.claim
        if claim is None or self.bounds is None or not self.bounds.scope.has(fact.scope) or fact.scope.assumptions:
            raise ValueError("the fact is not about this question's input set")
        if not (np.asarray(claim.factors) == 1).all():
            raise ValueError("the fact is about multiples of margins")
        if claim.node == self.margins.output and claim.units.size == len(fact.lower):
            self._learn(claim.units.reshape(-1), fact.lower, fact.derivation)
            return
        for units, lower in zip(claim.units.reshape(len(fact.lower), -1).tolist(), fact.lower.tolist(), strict=True):
            condition = self._conditions.get((claim.node, tuple(sorted(units))))
            if condition is None:
                raise ValueError("the fact is about something else than a margin")
            self._learn(np.array([condition]), np.array([lower]), None)

    def learn_units(self, fact: UnitBounds) -> None:
        """Take over what is proven of margins as entries of the output."""
        assert self.bounds is not None
        if fact.node != self.margins.output or not self.bounds.scope.has(fact.scope):
            raise ValueError("the fact is about something else than a margin")
        self._learn(fact.units, fact.lower, fact.derivation)

    def trust(self, condition: int, lower: float, whom: str) -> None:
        """Take a lower bound of a margin on somebody's word."""
        if lower > self.lower[condition] and not self.record:
            self._learn(np.array([condition]), np.array([lower]), None)
            self.trusted.append(whom)

    def _learn(self, conditions: np.ndarray, lower: np.ndarray, how: Derivation | None) -> None:
        if self.record and how is None:
            return
        if how is not None:
            for place in np.flatnonzero(lower > self.lower[conditions]).tolist():
                self.grounds[int(conditions[place])] = how, place
        # NaN counts as nothing proven.
        self.lower[conditions] = np.fmax(self.lower[conditions], lower)

    @cached_property
    def _conditions(self) -> dict[tuple[int, tuple[int, ...]], int]:
        """Which condition's margin is the largest of some units of a node."""
        parts = condition_parts(self.network, self.case.conditions)
        return {(node, tuple(sorted(units))): c for c, (node, units) in enumerate(parts)}

    def learn_strict(self, fact: UnitBounds) -> None:
        """Take over which rows of conditions are nowhere negative: where such a row is strict, it is never met.

        Raises ValueError where the fact is about something else than rows of conditions.
        """
        assert self.bounds is not None
        if fact.node != len(self.network.nodes) or not self.bounds.scope.has(fact.scope):
            raise ValueError("the fact is about something else than rows of conditions")
        if self.record:
            return
        shown = np.array([c for unit in fact.units[fact.lower >= 0] for c in self._strict_rows.get(int(unit), ())], int)
        self._excluded_at_zero[shown] = True
        self._learn(shown, np.zeros(len(shown)), None)

    @cached_property
    def _strict_rows(self) -> dict[int, list[int]]:
        """The conditions of which each unit of the node of rows is a strict row."""
        found: dict[int, list[int]] = {}
        parts = condition_parts(self.network, self.case.conditions)
        for c, (condition, (_, units)) in enumerate(zip(self.case.conditions, parts, strict=True)):
            for unit in np.asarray(units)[condition.strict].tolist() if condition.strict.any() else ():
                found.setdefault(unit, []).append(c)
        return found

    def note(self, text: str) -> None:
        """Say why something is done, for those who ask how the question was decided."""
        self.notes.append(text)
        self.report("policy", text)

    @contextmanager
    def step(self, stage: str) -> Iterator[None]:
        """Run a stage in here: its time is counted, and what it came to recorded."""
        self._begun = stage, self.clock.elapsed()
        try:
            yield
        finally:
            self.end_step()

    def end_step(self) -> None:
        """Record the stage under way, if there is one: also when it is left behind."""
        if self._begun is None:
            return
        (stage, begin), self._begun = self._begun, None
        seconds, bound = self.clock.elapsed() - begin, float(self.lower.min())
        self.clock.count(stage, seconds)
        unstable = None if self.bounds is None else int(self.bounds.unstable_counts().sum())
        self.steps.append(Step(stage, seconds, len(self.open()), bound, unstable, "; ".join(self.notes)))
        self.notes.clear()

    def try_points(self, points: np.ndarray) -> Witness | None:
        """Move points (R, ...) into the float32 box and replay them in the original file; the first that violates."""
        x = self.case.inputs.nearest_float32(points.reshape(len(points), -1))
        guess = self.margins.forward(x.reshape(len(x), *self.network.input_shape)).reshape(len(x), -1)
        scale = 1e-4 * (1 + np.abs(guess))
        likely = np.flatnonzero((guess <= scale)[:, self.open()].any(axis=1))
        likely = likely[np.argsort(guess[likely].min(axis=1))][:16]
        if not len(likely):
            return None
        outputs = self.replay.run(x[likely])
        for point, output in zip(x[likely], outputs, strict=True):
            if not self.case.inputs.contains(point):
                continue
            if any(meets(self.network, condition, point, output) for condition in self.judged):
                stated = {i: coordinate.decimal for i, coordinate in self.case.box.stated.items()}
                self.witness = Witness(point.copy(), output.copy(), stated)
                return self.witness
        return None

    @property
    def project(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Moves float32 points (R, n) of the box into the input set, if that is less."""
        return None if self.case.inputs.is_box else self.case.inputs.nearest_float32


def meets(network: Network, condition: Condition, point: np.ndarray, output: np.ndarray) -> bool:
    """Whether the output (k,) of a network's original at a point (n,) meets a condition, exactly."""
    if len(output) == network.output_size:
        return condition.satisfied(point, output)
    # The file ends in an ArgMax and gives a class, which no other output exceeds: that answers conditions in which
    # this class reaches others, and nothing that is strict, for it may be a tie.
    if output[0] != np.round(output[0]) or condition.strict.any():
        return False
    return bool((condition.output_rows[:, int(output[0])] < 0).all())
