"""The search for the smallest margin inside an input set: proofs raise what it is at least, witnesses what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mipverify.attack.closest import ActivationRegion, closest_in
from mipverify.engine.activation_regions import unstable_units, walk_regions
from mipverify.engine.bisection import CLOSE, Bisection
from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.schedule import CASCADE, LP_TIGHTENING, MARGIN, THOROUGH_ATTACK, TIGHTENED, TIGHTENING
from mipverify.engine.stage import Stage
from mipverify.engine.verdict import Witness
from mipverify.network import Network
from mipverify.presolve.inequalities import differences
from mipverify.proof.bounds import Bounds
from mipverify.solvers import lp_session
from mipverify.specification import Case, Condition
from mipverify.specification.exact import exact_number
from mipverify.specification.perturbation import Perturbation

ONCE: tuple[Stage, ...] = (TIGHTENING, LP_TIGHTENING)  # of intermediate bounds, which the level does not touch
HALVINGS = 20  # while an activation region is searched for its smallest margin,
EXACT = 0.1  # of the gap that is allowed: to which that is found
REGIONS = 20  # activation regions looked at after a witness


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the margin is of which the smallest is looked for.

    conditions: given a level, what is met where a margin is at most that. margin: of an output of the original.
    allowed: how far the bounds may be apart at the end, given the smallest margin found. begin: the level of the first
    question, given the margin in the middle of the set, and first: its stages. descents: halvings with attacks only.
    cascade: the stages of proofs; once: those of them that make intermediate bounds, which the level does not touch.
    """

    conditions: Callable[[Fraction], tuple[Condition, ...]]
    margin: Callable[[np.ndarray], float]
    allowed: Callable[[float], float]
    begin: Callable[[float], float] = lambda upper: upper
    descents: int = 6
    first: Sequence[Stage] = TIGHTENED
    cascade: Sequence[Stage] = CASCADE
    once: Sequence[Stage] = ONCE


class LowestMargin(Bisection):
    """Problems about whether some margin is at most a level: a proof raises `lower` to it, a witness lowers `upper`.

    `goal` says what the margin is; the input set is that of a perturbation within `eps`. Other arguments as in
    `worst_margin`.
    """

    def __init__(
        self,
        network: Network,
        perturbation: Perturbation,
        eps: object,
        goal: Goal,
        clock: Clock,
        *,
        seed: int,
        solver: str,
        progress: Callable[[str, str], None] | None,
    ):
        self.perturbation, self.goal = perturbation, goal
        self.inputs = perturbation.within(eps)
        super().__init__(network, self.inputs.box, clock, MARGIN, seed=seed, solver=solver, progress=progress)
        self.radius = float(exact_number(eps, "eps"))
        self.around: Bounds | None = None  # the level is about the output only
        self.cascade = goal.cascade
        self.at_zero = self._case(0.0)
        center = self.inputs.nearest_float32(perturbation.center[None])[0]
        self.witness = Witness(center, self.replay.run(center[None])[0])
        self.upper = goal.margin(self.witness.output)

    @property
    def closed(self) -> bool:
        return self.upper - self.lower <= self._allowed()

    done = closed

    def aim(self) -> float:
        return self.upper - CLOSE * self._allowed()

    def stages(self) -> Sequence[Stage]:
        return self.cascade

    stages_below = stages

    def close(self) -> None:
        """As `Bisection.close`."""
        self.ask(self.goal.begin(self.upper), self.goal.first, self.deadline)
        if not np.isfinite(self.lower):
            self.reason = "bounds overflow"
            return
        self._descend()
        self.narrow()

    def ask(self, level: float, stages: Sequence[Stage], deadline: Deadline) -> None:
        """Whether some margin is at most `level`."""
        self.report("margin", f"{self.lower:.6g} <= margin <= {self.upper:.6g}; asking about {level:.6g}")
        course = self.run(self._case(level), stages, deadline, around=self.around, start=self.witness)
        state = course.state
        if state.bounds is not None:
            self.around = state.bounds
            self.cascade = tuple(s for s in self.cascade if s not in self.goal.once or s not in course.ran)
        # What is proven of every margin less the level, be it positive or not, bounds the smallest margin.
        proven = float(np.nextafter(level + float(state.lower.min()), -np.inf))
        if state.witness is None and not len(state.open()):
            proven = max(proven, level)
        if proven > self.lower:
            self.lower = min(proven, self.upper)
            self.trusted += state.trusted
        if state.witness is not None:
            self._take(state.witness.input)
            if stages is not THOROUGH_ATTACK:
                self._sharpen()
        self.reason = state.reason

    def _case(self, level: float) -> Case:
        return Case(self.inputs, self.goal.conditions(Fraction(level)))

    def _allowed(self) -> float:
        return self.goal.allowed(self.upper)

    def _take(self, point: np.ndarray) -> bool:
        """Replay a point of the set; whether it has the smallest margin so far."""
        x = self.inputs.nearest_float32(point[None])[0]
        if not self.inputs.contains(x):
            return False
        output = self.replay.run(x[None])[0]
        margin = self.goal.margin(output)
        if not margin < self.upper:
            return False
        self.witness, self.upper = Witness(x, output), margin
        return True

    def _descend(self) -> None:
        """Lower the upper bound by bisection with attacks only, then in activation regions."""
        low = self.lower
        for _ in range(self.goal.descents):
            if self.clock.over() or self.closed or self.upper - low <= self._allowed():
                break
            middle = 0.5 * low + 0.5 * self.upper
            self.ask(middle, THOROUGH_ATTACK, self.deadline)
            if self.upper > middle:
                low = middle
        self._sharpen()

    def _sharpen(self) -> None:
        """Walk from the witness to its region's smallest margin, and on to neighboring regions while that lowers it."""
        if not np.isfinite(self.lower):
            return
        margins = self.margin_networks.of(self.at_zero.conditions)
        units = unstable_units(margins, self.inputs, self.around)
        redundant = differences(margins)
        units = {node: own for node, own in units.items() if node not in redundant}
        point = self.witness.input.astype(np.float64)
        deadline = self.deadline.within(share=self.shares.regions)

        def improve(region: ActivationRegion) -> Iterable[int] | None:
            # The smallest margin -s for which the closest input of the region is near enough.
            low, high, best = -self.upper, -self.lower, None
            for _ in range(HALVINGS):
                if high - low <= EXACT * self._allowed() or deadline.over():
                    break
                middle = 0.5 * low + 0.5 * high
                found = closest_in(region, self.perturbation, middle, lp_session)
                if found is not None and self.perturbation.distance(found[0]) <= self.radius:
                    low, best = middle, found
                else:
                    high = middle
            return best[1] if best is not None and self._take(best[0]) else None

        walk_regions(margins, point, units, improve, REGIONS, deadline)
