"""What is asked: an input set or several, their margins and how to look for an answer. Nothing in here changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mipverify.engine.judge import Judge, Replaying
from mipverify.formulation.margin import condition_parts, margin_network
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval, interval_over, narrowed, tighten
from mipverify.proof.subadditive import subadditive
from mipverify.specification import Case, Condition
from mipverify.specification.sets import InputSet

KEPT = 8  # margin networks


class MarginNetworks:
    """The margin networks of one network by conditions, each made once while it is in use."""

    def __init__(self, network: Network):
        self.network = network
        self._made: OrderedDict[tuple[int, ...], tuple[tuple[Condition, ...], Network]] = OrderedDict()

    def of(self, conditions: Sequence[Condition]) -> Network:
        """The network whose outputs (k,) are the margins of some conditions."""
        key = tuple(id(condition) for condition in conditions)  # kept beside it, so that no other takes its identity
        if key not in self._made:
            self._made[key] = tuple(conditions), margin_network(self.network, conditions)
        self._made.move_to_end(key)
        while len(self._made) > KEPT:
            self._made.popitem(last=False)
        return self._made[key][1]


@dataclass(frozen=True, eq=False)
class Problem:
    """Whether any of the conditions is met inside an input set; `Problem.of` makes it of a case.

    margins: the network whose outputs (k,) are the conditions' margins; the property holds where all are positive.
    entries: how many input sets of the network are asked about together, each by itself; `inputs` is then the box of
    all of them, one after the other. asked: mask (entries, k) of the conditions that each is asked about; else None.
    judge: who accepts a counterexample. solver: auto, bab or the name of a MILP solver. seed, turn: of all random
    choices; several problems of one question have turns of their own. around: bounds over input sets around it, of
    networks that may differ in their last nodes; they are where interval arithmetic starts. record: whether a proof is
    to be written: what has no derivation counts as nothing then.
    """

    network: Network
    conditions: tuple[Condition, ...]
    inputs: InputSet
    margins: Network
    judge: Judge
    solver: str = "auto"
    seed: int = 0
    turn: int = 0
    around: tuple[Bounds, ...] = ()
    record: bool = False
    entries: int = 1
    asked: np.ndarray | None = None

    @staticmethod
    def of(
        network: Network,
        case: Case,
        replay: Replay,
        *,
        judged: tuple[Condition, ...] = (),
        margins: MarginNetworks | None = None,
        solver: str = "auto",
        seed: int = 0,
        turn: int = 0,
        around: tuple[Bounds, ...] = (),
        record: bool = False,
    ) -> Problem:
        """The problem of a case.

        judged: the conditions on what the original gives that the case's stand for, if it is not the network's output.
        margins: where its margin network is looked up, if several problems share one.
        """
        of_margins = (margins or MarginNetworks(network)).of(case.conditions)
        judge = Replaying(network, of_margins, case, replay, judged or case.conditions)
        return Problem(network, case.conditions, case.inputs, of_margins, judge, solver, seed, turn, around, record)

    def judged_by(self, judge: Judge) -> Problem:
        """The same with another judge."""
        return replace(self, judge=judge)

    @property
    def together(self) -> bool:
        """Whether this is about several input sets, be they as many as they may."""
        return self.asked is not None

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """The box that proofs are about, two arrays (entries, *input_shape): that of all inputs, float32 or not."""
        shape, (lower, upper) = (self.entries, *self.network.input_shape), self.inputs.box.enclosure
        return lower.reshape(shape), upper.reshape(shape)

    @property
    def float_box(self) -> tuple[np.ndarray, np.ndarray]:
        """The float32 box that counterexamples lie in, two arrays (n,); (entries, n) where several are asked about."""
        sides = self.inputs.box.float32_lower, self.inputs.box.float32_upper
        if not self.together:
            return sides
        return sides[0].reshape(self.entries, -1), sides[1].reshape(self.entries, -1)

    def start(self) -> Bounds:
        """Interval bounds over the input sets, with what is known of one around and of differences of two networks."""
        if self.together:
            return interval(self.margins, *self.box, record=self.record)
        if not self.around or self.record:
            found = interval_over(self.margins, self.inputs, record=self.record)
        else:
            found = narrowed(self.margins, self.inputs, *self.around)
        held = [self.margins.relu_source(node) for node in self.margins.inequalities]
        return tighten(found, [subadditive(found, node) for node in held]) if held else found

    @property
    def project(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Moves float32 points (R, n) of the box into the input set, if that is less."""
        return None if self.inputs.is_box else self.inputs.nearest_float32

    @property
    def middle(self) -> np.ndarray:
        """A point of the input set (1, *input_shape)."""
        return self.inputs.center.reshape(1, *self.network.input_shape)

    @cached_property
    def parts(self) -> list[tuple[int, list[int]]]:
        """For each condition the node of `margins`, and the units there, whose maximum its margin is."""
        return condition_parts(self.network, self.conditions)

    @cached_property
    def condition_of(self) -> dict[tuple[int, tuple[int, ...]], int]:
        """Which condition's margin is the largest of some units of a node."""
        return {(node, tuple(sorted(units))): c for c, (node, units) in enumerate(self.parts)}

    @cached_property
    def strict_rows(self) -> dict[int, list[int]]:
        """The conditions of which each unit of the node of rows is a strict row."""
        found: dict[int, list[int]] = {}
        for c, (condition, (_, units)) in enumerate(zip(self.conditions, self.parts, strict=True)):
            for unit in np.asarray(units)[condition.strict].tolist() if condition.strict.any() else ():
                found.setdefault(unit, []).append(c)
        return found

    @property
    def row_node(self) -> int:
        """The node of `margins` whose units are the rows of all conditions."""
        return len(self.network.nodes)

    def generator(self, stage: str) -> np.random.Generator:
        """The random numbers of a stage: the same whatever ran before it."""
        return np.random.default_rng([self.seed, self.turn, *stage.encode()])
