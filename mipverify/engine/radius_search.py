"""The radius of the closest violation between two proven numbers: proofs about balls raise the lower, sharpened
witnesses lower the upper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mipverify.attack.closest import ActivationRegion, closest_in, region_around
from mipverify.attack.gradient import values_and_gradient
from mipverify.attack.restarts import random_restarts
from mipverify.engine.activation_regions import nearest_condition, unstable_units, walk_regions
from mipverify.engine.bisection import CLOSE, Bisection
from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.distance_proof import ExcludedWithin
from mipverify.engine.judge import Judge, meets
from mipverify.engine.problem import Problem
from mipverify.engine.schedule import (
    CASCADE,
    CROWN_ONLY,
    DISTANCE,
    PROOF,
    RECORDED,
    RECORDED_PROOF,
    THOROUGH_ATTACK,
)
from mipverify.engine.stage import Stage
from mipverify.engine.verdict import Witness
from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.solvers import lp_session
from mipverify.specification import Case, Condition
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.sets import InputSet

PROBES = 6  # bisections with fast bounds
REGIONS = 40  # activation regions looked at while a witness is sharpened
KICKS = 40  # walks from a witness in one round
ROUNDS = 16  # at most, and as long as one of the last IDLE ones came closer
IDLE = 2
ENDS = 6  # regions solved after a round, of the walks that ended lowest
FIRST_STEP = 0.05  # by which a round of walks tries to come closer
INSIDE = 0.999  # of the best distance, for the ball in which the walks look
SLACK = 1e-6  # below zero, at which a margin is aimed: relative to the network's scores
MOST_SLACK = 1e-3  # below zero, up to which that is raised where the original disagrees
FURTHER_OUT = 1.25  # times the radius of one attack to the next, until there is a witness
NEAREST = 1e-9  # of the cap: where attacks begin at least
FARTHEST = 1 + 1e-3  # times the best distance, beyond which a region's closest point is of no use
CLOSER = 1e-7  # relative: by how much less far a region's closest point must be
IDLE_GAIN = 0.1  # of the gap: a round of walks that came less closer was idle


@dataclass(frozen=True, eq=False)
class _Watching:
    """Shows the points that a judge is asked about to `near` where none of them violates."""

    judge: Judge
    near: Callable[[np.ndarray], Witness | None]

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        found = self.judge.first_violation(points, conditions, entry)
        return found if found is not None else self.near(points)


class RadiusSearch(Bisection):
    """lower <= the smallest radius with a violation <= upper, for perturbations up to the radius `cap`."""

    def __init__(
        self,
        network: Network,
        perturbation: Perturbation,
        conditions: Sequence[Condition],
        cap: float,
        gap: float,
        clock: Clock,
        seed: int,
        solver: str,
        progress: Callable[[str, str], None] | None,
        record: bool = False,
    ):
        box = perturbation.within(cap).box
        super().__init__(network, box, clock, DISTANCE, seed=seed, solver=solver, progress=progress, record=record)
        self.perturbation, self.conditions = perturbation, tuple(conditions)
        self.cap, self.gap = cap, gap
        self.rng = np.random.default_rng(seed)
        self.lower = 0.0
        self.witness: Witness | None = None
        self.unstable: list[int] = []
        self.proven = np.zeros(len(self.conditions))  # the radius within which each condition is excluded
        self.excluded = ExcludedWithin()  # why, where that is recorded
        self.around: tuple[float, Bounds] | None = None  # bounds that hold up to a radius
        self.regions: set[bytes] = set()  # that walks ended in, and that were solved
        self.at_center = False  # the witness is the center, or the float32 that a network gets in its place
        self.watching = 0.0  # seconds of the question under way
        self._units_of = lru_cache(maxsize=2)(self._units)

    @property
    def closed(self) -> bool:
        """Whether the bounds have met."""
        return self.witness is not None and (self.at_center or self.upper - self.lower <= self.gap * self.upper)

    @property
    def empty(self) -> bool:
        """Whether no violation lies within the cap."""
        return self.witness is None and self.lower >= self.cap

    @property
    def done(self) -> bool:
        """Whether the bounds have met, or no violation lies within the cap."""
        return self.closed or self.empty

    def statistics(self) -> dict[str, object]:
        """What the search took."""
        gap = (self.upper - self.lower) / self.upper if 0 < self.upper < np.inf else None
        return {
            "gap": 0.0 if self.at_center else gap,
            "questions": self.questions,
            "nodes": self.nodes,
            "binaries": self.binaries,
            "unstable_relus": self.unstable,
            "seconds": self.seconds(),
        }

    def resume(self, lower: float, point: np.ndarray | None) -> None:
        """Go on from a lower bound that was proven before and a point (n,) that violated; the point is replayed."""
        self.proven[:] = self.lower = min(lower, self.cap)
        if point is not None:
            self._try(point)

    def close(self) -> None:
        """As `Bisection.close`."""
        if self._violated_at_center() or self.closed:
            return
        for radius in self._radii():
            if self.witness is not None or self.clock.over():
                break
            self.ask(radius, THOROUGH_ATTACK, self.deadline)
        self._probe()
        self.improve_witness()
        self.narrow()

    def aim(self) -> float:
        aim = self.cap if self.witness is None else self.upper * (1 - CLOSE * self.gap)
        return max(aim, self.lower)

    def stages(self) -> Sequence[Stage]:
        return self.stages_below() if self.witness is not None else RECORDED if self.record else CASCADE

    def stages_below(self) -> Sequence[Stage]:
        return RECORDED_PROOF if self.record else PROOF

    def middle(self) -> float:
        return 0.5 * self.lower + 0.5 * min(self.upper, self.cap)

    def ask(self, level: float, stages: Sequence[Stage], deadline: Deadline) -> None:
        """Whether a violation lies within the radius `level`; takes over what is found."""
        radius = min(level, self.cap)
        open_ = np.flatnonzero(self.proven < radius)
        if not len(open_):
            return
        case = Case(self.perturbation.within(radius), tuple(self.conditions[c] for c in open_))
        self.report("radius", f"{self.lower:.6g} <= distance <= {self.upper:.6g}; asking about {radius:.6g}")
        watched = self.witness is not None and stages is self.stages_below()
        judge = self._watching if watched else None
        course = self.run(case, stages, deadline, start=self.witness, judge=judge)
        state = course.state
        if state.bounds is not None:
            self.unstable = [int(v) for v in state.bounds.unstable_counts()[0][: len(self.network.relus)]]
            if self.around is None or radius <= self.around[0]:
                self.around = radius, state.bounds
        excluded = open_[state.lower > 0]
        if len(excluded):
            if self.record:
                shown = {int(open_[own]): state.grounds[own] for own in np.flatnonzero(state.lower > 0).tolist()}
                self.excluded.take(radius, course.problem, shown)
            self.proven[excluded] = radius
            self.lower = float(self.proven.min())
            self.trusted += state.trusted
        if state.witness is not None:
            self._take(state.witness)
            if stages is not THOROUGH_ATTACK:
                self._sharpen()
        elif len(state.open()):
            self.reason = state.reason

    def _watching(self, problem: Problem, clock: Clock) -> Judge:
        self.watching = 0.0
        return _Watching(problem.judge, lambda points: self._near_miss(problem, clock, points))

    def _violated_at_center(self) -> bool:
        """Whether the center itself, or else the nearest float32 of the domain, violates; that is the first witness."""
        center = self.perturbation.center
        if self._try(center) and self.witness is not None:
            with np.errstate(over="ignore"):
                self.at_center = bool((self.witness.input == center.astype(np.float32)).all())
        return self.at_center

    def _radii(self) -> Iterator[float]:
        """Where to look for the first witness: from what the gradient promises up to the cap."""
        radius = self._first_order()
        while radius < self.cap:
            yield radius
            radius *= FURTHER_OUT
        yield self.cap

    def _first_order(self) -> float:
        """The distance at which the margin would vanish if the network were as linear as it is at the center."""
        center = self.perturbation.center.astype(np.float64)
        best = self.cap
        values = self.network.forward(center.reshape(1, *self.network.input_shape)).reshape(-1)
        for condition in self.conditions:
            _, gradient = values_and_gradient(
                self.network, center.reshape(1, *self.network.input_shape), condition.output_rows[:1]
            )
            rate = float(self.perturbation.norm.dual_length(gradient.reshape(-1) * self.perturbation.scale))
            margin = float(condition.margin(values)[0])
            if rate > 0 and margin > 0:
                best = min(best, margin / rate)
        return max(best, NEAREST * self.cap)

    def improve_witness(self) -> None:
        """Lower the upper bound by walks around the witness, each ended by the closest point of its region."""
        if self.witness is None or self.upper == 0:
            return
        with self.clock.stage("attack"):
            idle, deadline, step = 0, self.deadline.within(share=self.shares.walks), FIRST_STEP
            for _ in range(ROUNDS):
                if self.closed or deadline.over() or idle == IDLE:
                    return
                before, inside = self.upper, min(INSIDE, 1 - step)
                self._restart(deadline, inside)
                if inside < INSIDE:  # still far: larger steps are cheaper than exact ones
                    step = step if self.upper < before else step / 4
                    if 1 - step >= INSIDE:
                        self._sharpen()
                    continue
                if self.upper < before:
                    self._sharpen()
                idle = idle + 1 if self.upper > before * (1 - IDLE_GAIN * self.gap) else 0

    def _restart(self, deadline: Deadline, inside: float) -> None:
        """One round of walks: half of them toward the witness's own condition, the others toward all that are open."""
        assert self.witness is not None
        radius = inside * self.upper
        inputs = self.perturbation.within(radius)
        low, high = inputs.box.float32_lower, inputs.box.float32_upper
        project = None if inputs.is_box else inputs.nearest_float32
        margins, open_ = self.margins, np.flatnonzero(self.proven < radius)
        own = nearest_condition(margins, self.witness.input)
        conditions = np.append(np.full(KICKS // 2, own), np.resize(open_, KICKS // 2)).astype(int)

        start = inputs.nearest_float32(self.witness.input[None])[0]
        points, values = random_restarts(margins, start, low, high, conditions, self.rng, project, deadline.over)
        hits = np.argsort(values)[:ENDS]
        met = [self._try(points[walk]) for walk in hits[values[hits] <= 0]]
        if inside < INSIDE and any(met):
            return
        units = self._units(radius)
        solved = 0
        for walk in np.argsort(values):
            solved += self._end(points[walk].astype(np.float64), int(conditions[walk]), units)
            if solved == ENDS or deadline.over():
                return

    def _end(self, point: np.ndarray, condition: int, units: dict[int, np.ndarray]) -> bool:
        """Try the closest point of the region around a point; whether it is a region that was not looked at before."""
        place = self.margins.values(point.reshape(1, *self.margins.input_shape))
        signs = [place[source].reshape(-1)[chosen] > 0 for source, chosen in units.items()]
        key = np.packbits(np.concatenate([*signs, np.arange(len(self.conditions)) == condition])).tobytes()
        if key in self.regions:
            return False
        self.regions.add(key)
        found = closest_in(
            region_around(self.margins, point, condition, units), self.perturbation, SLACK, lp_session, self.upper
        )
        if found is not None:
            self._try(found[0])
        return True

    def _near_miss(self, problem: Problem, clock: Clock, points: np.ndarray) -> Witness | None:
        """Minimizers of relaxed nodes lie in regions that are hard to exclude: one of them may hold a closer point."""
        begin = self.clock.elapsed()
        if self.watching > self.shares.watching * clock.elapsed():
            return None
        flat = points.reshape(len(points), -1)
        open_ = np.flatnonzero(self.proven < self.upper)
        margins = self.margins.forward(flat.reshape(-1, *self.margins.input_shape)).reshape(len(flat), -1)[:, open_]
        best, condition = np.unravel_index(int(margins.argmin()), margins.shape)
        before = self.upper
        units = self._units_of(self.upper)
        self._end(flat[best].astype(np.float64), int(open_[condition]), units)
        self.watching += self.clock.elapsed() - begin
        if self.upper == before or self.witness is None or not problem.inputs.contains(self.witness.input):
            return None
        return self.witness

    def _probe(self) -> None:
        """Raise the lower bound by bisection with fast bounds only."""
        low, high = self.lower, min(self.upper, self.cap)
        for _ in range(PROBES):
            if self.clock.over():
                return
            middle = 0.5 * low + 0.5 * high
            self.ask(middle, CROWN_ONLY, self.deadline)
            if self.lower >= middle:
                low = middle
            else:
                high = middle

    def _take(self, witness: Witness) -> bool:
        """Accept a replayed witness if it is the closest so far."""
        far = self.perturbation.distance(witness.input)
        if far >= self.upper:
            return False
        self.witness, self.upper = witness, far
        return True

    def _try(self, point: np.ndarray) -> bool:
        """Replay a point; whether it violates."""
        x = self._whole.nearest_float32(point[None])[0]
        output = self.replay.run(x[None])[0]
        if not (self._whole.contains(x) and any(meets(self.network, c, x, output) for c in self.conditions)):
            return False
        self._take(Witness(x, output))
        return True

    def _sharpen(self) -> None:
        """Walk from the witness through neighboring activation regions, each solved exactly, while they come closer."""
        if self.witness is None or self.upper == 0:
            return
        margins, point = self.margins, self.witness.input.astype(np.float64)
        units = self._units(self.perturbation.distance(point))
        shape = (1, *margins.input_shape)
        slack = SLACK * (1 + float(np.abs(self.network.forward(point.reshape(shape))).max()))
        best = np.inf

        def improve(region: ActivationRegion) -> Iterable[int] | None:
            nonlocal best, slack
            found = closest_in(region, self.perturbation, slack, lp_session, min(best, self.upper * FARTHEST))
            if found is None:
                return None
            nearest, tight = found
            far = self.perturbation.distance(nearest)
            if far >= best * (1 - CLOSER):
                return None
            while not self._try(nearest) and slack < MOST_SLACK:
                slack *= 10
                again = closest_in(region, self.perturbation, slack, lp_session)
                if again is None:
                    break
                nearest, tight = again
            best = far
            return tight

        walk_regions(margins, point, units, improve, REGIONS, self.deadline.within(share=self.shares.regions))

    @cached_property
    def margins(self) -> Network:
        """The network whose outputs are the margins of all conditions."""
        return self.margin_networks.of(self.conditions)

    @cached_property
    def _whole(self) -> InputSet:
        return self.perturbation.within(self.cap)

    def _units(self, radius: float) -> dict[int, np.ndarray]:
        """By pre-activation node, the units whose sign may change within a radius."""
        around = self.around[1] if self.around is not None and self.around[0] >= radius else None
        return unstable_units(self.margins, self.perturbation.within(radius), around)
