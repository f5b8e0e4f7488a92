"""Many questions about one network: its original, processes and bounds are kept from one to the next.

Questions do not know of each other: what is kept is the network's, or proven of inputs whatever is asked about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from mipverify.engine.alike import MOST_CONDITIONS, Alike, Key, askable, condition_keys
from mipverify.engine.batch import BATCH, BATCH_ENTRIES
from mipverify.engine.budget import Clock
from mipverify.engine.driver import silent
from mipverify.engine.run import AtHand, Run, compared_at
from mipverify.engine.schedule import CASCADE
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import Original
from mipverify.parallel import ProcessPool
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.proof.bounds import Bounds
from mipverify.proof.input_minimum import lies_in
from mipverify.solvers.registry import require_choice
from mipverify.specification import Condition, Specification
from mipverify.specification.sets import InputSet

MOST_BYTES = 2**27  # of bounds that are kept
OF_MANY = 2  # points of each input set at which the network is compared with its original, where there are many

Answer: TypeAlias = Verdict | InputError


@dataclass(frozen=True)
class Limits:
    """How each question is asked; as in `verify`."""

    timeout: float = 300.0
    proof: bool = False
    progress: Callable[[str, str], None] | None = None


class Questions:
    """Answers questions about one network, one by one or many together.

    solver, seed, arithmetic: as in `verify`. workers: processes that share the work of one hard question; they start
    with the first, and stay. Raises InputError where the network cannot be asked about.
    """

    def __init__(
        self, network: Network, *, solver: str = "auto", seed: int = 0, workers: int = 1, arithmetic: str = "real"
    ):
        require_choice(solver)
        self.network = in_arithmetic(snapshot(network), arithmetic)
        self._solver, self._seed, self._workers = solver, seed, workers
        self._original = Original(self.network)
        self._pool, self._known = ProcessPool(workers), _Known()
        self._most = max(1, min(BATCH, BATCH_ENTRIES // sum(math.prod(node.shape) for node in self.network.nodes)))

    def close(self) -> None:
        """End the processes, and forget the bounds."""
        self._pool.close()
        self._known = _Known()

    def verify(self, specification: Specification, limits: Limits) -> Verdict:
        """The verdict on one question. Raises InputError where network and property do not fit."""
        specification.require_network(self.network)
        self._original.compare(compared_at(specification))
        return self._alone(specification, limits, limits.timeout, ())

    def unasked(self, specification: Specification) -> Verdict:
        """The verdict on a question that an interrupt came before."""
        return self._run(specification, Limits(), 0.0, ()).verdict("interrupted")

    def answers(self, specifications: Mapping[int, Specification], limits: Limits) -> Iterator[tuple[int, Answer]]:
        """The answers to many questions, by number, in the order they are reached: a verdict, or what is wrong with the
        question. After an interrupt what is known of the question under way comes, then KeyboardInterrupt."""
        refused = self._refusals(specifications)
        yield from refused.items()
        alone: list[tuple[int, float, tuple[Bounds, ...]]] = []
        for group in self._groups({p: s for p, s in specifications.items() if p not in refused}, limits):
            clock, settled = Clock(limits.timeout * len(group.places)), set[int]()
            for place, found in self._asked_together(group, clock):
                settled.add(place)
                if isinstance(found, Verdict):
                    yield place, found
                else:
                    left = limits.timeout - clock.elapsed() / len(group.places)
                    alone.append((place, max(0.0, left), () if found is None else (found,)))
            alone += [(place, limits.timeout, ()) for place in group.places if place not in settled]
        for place, timeout, bounds in alone:
            try:
                answer: Answer = self._alone(specifications[place], limits, timeout, bounds)
            except InputError as error:
                answer = error
            yield place, answer
            if isinstance(answer, Verdict) and answer.reason == "interrupted":
                raise KeyboardInterrupt

    def _asked_together(self, group: _Group, clock: Clock) -> Iterator[tuple[int, Verdict | Bounds | None]]:
        """By number what batched stages come to; nothing of what has to be asked by itself."""
        if len(group.places) < 2:
            return
        alike = Alike(self.network, group.asked, group.conditions, self._original.replay, self._seed)
        try:
            for entry, found in alike.answers(clock):
                yield group.places[entry], found
        except MemoryError:
            return

    def _refusals(self, specifications: Mapping[int, Specification]) -> dict[int, InputError]:
        """What is wrong with questions, by number: they do not fit the network, or it is not its original there."""
        refused: dict[int, InputError] = {}
        points: dict[int, np.ndarray] = {}
        held = 0
        for place, specification in specifications.items():
            try:
                specification.require_network(self.network)
            except InputError as error:
                refused[place] = error
                continue
            own = compared_at(specification, OF_MANY)
            if held + len(own) > self._original.at_once:
                refused |= self._differing(points)
                points, held = {}, 0
            points[place], held = own, held + len(own)
        return refused | self._differing(points)

    def _differing(self, points: dict[int, np.ndarray]) -> dict[int, InputError]:
        """Where the network is not its original, by the number of the question that the points are for."""
        if not points:
            return {}
        try:
            self._original.compare(np.concatenate(list(points.values())))
        except InputError as error:
            if len(points) == 1:
                return dict.fromkeys(points, error)
            each = [self._differing({place: own}) for place, own in points.items()]
            return {place: error for found in each for place, error in found.items()}
        return {}

    def _groups(self, specifications: dict[int, Specification], limits: Limits) -> list[_Group]:
        """Questions that are asked together; those that are not, each by itself."""
        found, last = list[_Group](), _Group()
        for place, specification in specifications.items():
            own = None if limits.proof else self._conditions(specification)
            if own is None:
                found.append(_Group([place]))
                continue
            if len(last.places) == self._most or len(last.union | own.keys()) > max(MOST_CONDITIONS, len(own)):
                found.append(last)
                last = _Group()
            last.places.append(place)
            last.asked.append(specification)
            last.conditions.append(own)
            last.union |= own.keys()
        return [*found, last]

    def _conditions(self, specification: Specification) -> dict[Key, Condition] | None:
        """Its conditions, where it can be asked together with others."""
        if not askable(specification):
            return None
        try:
            return condition_keys(self.network, specification)
        except InputError:  # as the question by itself will say
            return None

    def _alone(
        self, specification: Specification, limits: Limits, timeout: float, bounds: tuple[Bounds, ...]
    ) -> Verdict:
        """A question by itself. bounds: what is known over its input set."""
        run = self._run(specification, limits, timeout, bounds)
        try:
            verdict = run_within(run.clock, run.finish)
        except (KeyboardInterrupt, LeftBehindError) as end:
            # Whatever works on still has these processes: others take their place.
            self._pool.close()
            self._pool = ProcessPool(self._workers)
            return run.verdict("time" if isinstance(end, LeftBehindError) else "interrupted")
        for course in run.courses if not limits.proof else ():
            if course.state.bounds is not None:
                self._known.add(course.state.bounds)
        return verdict

    def _run(self, specification: Specification, limits: Limits, timeout: float, bounds: tuple[Bounds, ...]) -> Run:
        known = self._known
        at_hand = AtHand(self._original.replay, self._pool, lambda inputs: (*bounds, *known.around(inputs)))
        how = self._solver, self._seed, self._workers, limits.progress or silent, CASCADE, limits.proof
        return Run(self.network, specification, Clock(timeout), *how, at_hand=at_hand)


@dataclass(eq=False)
class _Group:
    """Questions that are asked together: their numbers, themselves, and their conditions; union: all of these."""

    places: list[int] = field(default_factory=list)
    asked: list[Specification] = field(default_factory=list)
    conditions: list[dict[Key, Condition]] = field(default_factory=list)
    union: set[Key] = field(default_factory=set)


class _Known:
    """Bounds over input sets, the newest ones, in bounded memory."""

    def __init__(self) -> None:
        self._bounds: list[Bounds] = []

    def add(self, bounds: Bounds) -> None:
        """Keep some, in place of those over the same set: the newer ones began with these."""
        others = [old for old in self._bounds if not (_within(old, bounds) and _within(bounds, old))]
        self._bounds, held = [], 0
        for one in (bounds, *others):
            held += sum(array.nbytes for array in (*one.lower, *one.upper))
            if held <= MOST_BYTES:
                self._bounds.append(one)

    def around(self, inputs: InputSet) -> tuple[Bounds, ...]:
        """Those over the smallest set that is seen to lie around, if there is one."""
        lower, upper = inputs.box.enclosure
        fitting = [
            one
            for one in self._bounds
            if (lower >= one.lower[0].reshape(-1)).all()
            and (upper <= one.upper[0].reshape(-1)).all()
            and lies_in(inputs, one.inputs)
        ]
        return tuple(sorted(fitting, key=lambda one: float((one.upper[0] - one.lower[0]).sum()))[:1])


def _within(one: Bounds, other: Bounds) -> bool:
    """Whether the input set of one lies in that of the other."""
    inside = (one.lower[0] >= other.lower[0]).all() and (one.upper[0] <= other.upper[0]).all()
    return bool(inside) and (one.inputs is not None and lies_in(one.inputs, other.inputs))
