"""A radius between two proven numbers: questions about balls raise the lower, sharpened witnesses lower the upper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from mipverify.attack.closest import closest_in, piece_around
from mipverify.attack.gradient import values_and_gradient
from mipverify.attack.nearby import kicked
from mipverify.attack.pgd import Attack
from mipverify.engine.bounding import unstable_units
from mipverify.engine.budget import Clock
from mipverify.engine.question import Question, meets
from mipverify.engine.stages import CASCADE, Stage, attack
from mipverify.engine.verdict import Witness
from mipverify.engine.verify import run_cascade
from mipverify.formulation import margin_network
from mipverify.network import Network
from mipverify.network.validation import points_of, validated
from mipverify.parallel import ALONE, Crew, Hands
from mipverify.proof.bounds import Bounds
from mipverify.solvers import lp_session
from mipverify.specification import Case, Condition
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.sets import InputSet

FAST = tuple(stage for stage in CASCADE if stage.name in ("interval", "crown", "optimized crown"))
PROOF = tuple(stage for stage in CASCADE if stage.name not in ("attack", "long attack"))
ATTACK = (Stage("attack", attack(Attack(restarts=4, steps=40))),)
PROBES = 6  # bisections with fast bounds
PIECES = 40  # linear pieces looked at while a witness is sharpened
SHARPENING = 0.1  # share of the time left that one witness may take
KICKS = 40  # walks from a witness in one round
ROUNDS = 16  # at most, and as long as one of the last IDLE ones came closer
IDLE = 2
ENDS = 6  # pieces solved after a round, of the walks that ended lowest
FIRST_STEP = 0.05  # by which a round of walks tries to come closer
INSIDE = 0.999  # of the best distance, for the ball in which the walks look
SEARCHING = 0.25  # share of the time left that walks may take
SLACK = 1e-6  # below zero, at which a margin is aimed: relative to the network's scores
WATCHING = 0.15  # share of the time spent on points that proofs come across
SHARE = 0.8  # of the time left, for one proof


class _Watched(Question):
    """A question whose tried points are shown to `near` where none of them violates."""

    near: Callable[[Question, np.ndarray], Witness | None] | None = None

    def try_points(self, points: np.ndarray) -> Witness | None:
        found = super().try_points(points)
        return found if found is not None or self.near is None else self.near(self, points)


class Bracket:
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
    ):
        self.network, self.perturbation, self.conditions = network, perturbation, tuple(conditions)
        self.cap, self.gap, self.clock = cap, gap, clock
        self.solver = solver
        self.rng = np.random.default_rng(seed)
        box = perturbation.within(cap).box
        self.replay = validated(network, points_of([(box.float32_lower, box.float32_upper)]))
        self.report = progress or (lambda stage, text: None)
        self.hands: Hands = ALONE
        self.lower, self.upper = 0.0, float("inf")
        self.witness: Witness | None = None
        self.trusted: list[str] = []
        self.questions = self.nodes = self.binaries = 0
        self.unstable: list[int] = []
        self.reason = ""
        self.proven = np.zeros(len(self.conditions))  # the radius within which each condition is excluded
        self.around: tuple[float, Bounds] | None = None  # bounds that hold up to a radius
        self.pieces: set[bytes] = set()  # that walks ended in, and that were solved
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

    def statistics(self) -> dict[str, object]:
        """What the search took."""
        gap = (self.upper - self.lower) / self.upper if 0 < self.upper < np.inf else None
        return {
            "gap": 0.0 if self.at_center else gap,
            "questions": self.questions,
            "nodes": self.nodes,
            "binaries": self.binaries,
            "unstable_relus": self.unstable,
            "seconds": {name: round(seconds, 4) for name, seconds in self.clock.stages.items()},
        }

    def resume(self, lower: float, point: np.ndarray | None) -> None:
        """Go on from a lower bound that was proven before and a point (n,) that violated; the point is replayed."""
        self.proven[:] = self.lower = min(lower, self.cap)
        if point is not None:
            self._try(point)

    def close(self, workers: int = 1) -> None:
        """Narrow the bracket until it is closed, empty or out of time. workers: processes that share the work."""
        with Crew(workers) as self.hands:
            self._close()

    def _close(self) -> None:
        if self._violated_at_center() or self.closed:
            return
        for radius in self._radii():
            if self.witness is not None or self.clock.over():
                break
            self.ask(radius, ATTACK, self.clock.left())
        self._probe()
        self._descend()
        while not (self.closed or self.empty or self.clock.over()):
            aim = self.cap if self.witness is None else self.upper * (1 - 0.9 * self.gap)
            stages = CASCADE if self.witness is None else PROOF
            before = self.lower, self.upper
            self.ask(max(aim, self.lower), stages, SHARE * self.clock.left())
            if (self.lower, self.upper) == before:
                # Too hard so close to the witness: a smaller radius may still be proven.
                self.ask(0.5 * self.lower + 0.5 * min(self.upper, self.cap), PROOF, 0.5 * self.clock.left())
                if (self.lower, self.upper) == before:
                    return
            elif self.upper < before[1]:
                self._descend()

    def ask(self, radius: float, stages: Sequence[Stage], seconds: float) -> None:
        """Whether a violation lies within a radius; takes over what is found."""
        radius = min(radius, self.cap)
        open_ = np.flatnonzero(self.proven < radius)
        if not len(open_):
            return
        clock = Clock(seconds, stages=self.clock.stages)
        case = Case(self.perturbation.within(radius), tuple(self.conditions[c] for c in open_))
        self.report("radius", f"{self.lower:.6g} <= distance <= {self.upper:.6g}; asking about {radius:.6g}")
        question = _Watched(self.network, case, self.replay, clock, self.rng, self.solver, self.report, self.hands)
        if self.witness is not None and stages is PROOF:
            question.near, self.watching = self._near_miss, 0.0
        if self.witness is not None:
            question.hints = self.witness.input[None].astype(np.float64)
        run_cascade(question, stages)
        self.questions += 1
        self.nodes += question.nodes
        self.binaries = max(self.binaries, question.binaries)
        if question.bounds is not None:
            self.unstable = [int(v) for v in question.bounds.unstable_counts()[0][: len(self.network.relus)]]
            if self.around is None or radius <= self.around[0]:
                self.around = radius, question.bounds
        excluded = open_[question.lower > 0]
        if len(excluded):
            self.proven[excluded] = radius
            self.lower = float(self.proven.min())
            self.trusted += question.trusted
        if question.witness is not None:
            self._take(question.witness)
            if stages is not ATTACK:
                self._sharpen()
        elif len(question.open()):
            self.reason = question.reason

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
            radius *= 1.25
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
        return max(best, 1e-9 * self.cap)

    def _descend(self) -> None:
        """Lower the upper bound by walks around the witness, each ended by the closest point of its linear piece."""
        if self.witness is None or self.upper == 0:
            return
        with self.clock.stage("attack"):
            idle, end, step = 0, self.clock.elapsed() + SEARCHING * self.clock.left(), FIRST_STEP
            for _ in range(ROUNDS):
                if self.closed or self.clock.elapsed() > end or idle == IDLE:
                    return
                before, inside = self.upper, min(INSIDE, 1 - step)
                self._kick(end, inside)
                if inside < INSIDE:  # still far: larger steps are cheaper than exact ones
                    step = step if self.upper < before else step / 4
                    if 1 - step >= INSIDE:
                        self._sharpen()
                    continue
                if self.upper < before:
                    self._sharpen()
                idle = idle + 1 if self.upper > before * (1 - 0.1 * self.gap) else 0

    def _kick(self, end: float, inside: float) -> None:
        """One round of walks: half of them toward the witness's own condition, the others toward all that are open."""
        assert self.witness is not None
        radius = inside * self.upper
        inputs = self.perturbation.within(radius)
        low, high = inputs.box.float32_lower, inputs.box.float32_upper
        project = None if inputs.is_box else inputs.nearest_float32
        margins, open_ = self.margins, np.flatnonzero(self.proven < radius)
        own = self._condition(self.witness.input)
        conditions = np.append(np.full(KICKS // 2, own), np.resize(open_, KICKS // 2)).astype(int)

        def stop() -> bool:
            return self.clock.elapsed() > end

        start = inputs.nearest_float32(self.witness.input[None])[0]
        points, values = kicked(margins, start, low, high, conditions, self.rng, project, stop)
        hits = np.argsort(values)[:ENDS]
        met = [self._try(points[walk]) for walk in hits[values[hits] <= 0]]
        if inside < INSIDE and any(met):
            return
        units = self._units(radius)
        solved = 0
        for walk in np.argsort(values):
            solved += self._end(points[walk].astype(np.float64), int(conditions[walk]), units)
            if solved == ENDS or stop():
                return

    def _end(self, point: np.ndarray, condition: int, units: dict[int, np.ndarray]) -> bool:
        """Try the closest point of the piece around a point; whether it is a piece that was not looked at before."""
        place = self.margins.values(point.reshape(1, *self.margins.input_shape))
        signs = [place[source].reshape(-1)[chosen] > 0 for source, chosen in units.items()]
        key = np.packbits(np.concatenate([*signs, np.arange(len(self.conditions)) == condition])).tobytes()
        if key in self.pieces:
            return False
        self.pieces.add(key)
        piece = piece_around(self.margins, point, condition, units)
        found = closest_in(piece, self.perturbation, SLACK, lp_session, self.upper)
        if found is not None:
            self._try(found[0])
        return True

    def _near_miss(self, question: Question, points: np.ndarray) -> Witness | None:
        """Minimizers of relaxed nodes lie in pieces that are hard to exclude: one of them may hold a closer point."""
        begin = self.clock.elapsed()
        if self.watching > WATCHING * question.clock.elapsed():
            return None
        flat = points.reshape(len(points), -1)
        open_ = np.flatnonzero(self.proven < self.upper)
        margins = self.margins.forward(flat.reshape(-1, *self.margins.input_shape)).reshape(len(flat), -1)[:, open_]
        best, condition = np.unravel_index(int(margins.argmin()), margins.shape)
        before = self.upper
        units = self._units_of(self.upper)
        self._end(flat[best].astype(np.float64), int(open_[condition]), units)
        self.watching += self.clock.elapsed() - begin
        if self.upper == before or self.witness is None or not question.case.inputs.contains(self.witness.input):
            return None
        question.witness = self.witness
        return self.witness

    def _probe(self) -> None:
        """Raise the lower bound by bisection with fast bounds only."""
        low, high = self.lower, min(self.upper, self.cap)
        for _ in range(PROBES):
            if self.clock.over():
                return
            middle = 0.5 * low + 0.5 * high
            self.ask(middle, FAST, self.clock.left())
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
        """Walk from the witness through neighboring linear pieces, each solved exactly, while they come closer."""
        if self.witness is None or self.upper == 0:
            return
        margins, point = self.margins, self.witness.input.astype(np.float64)
        units = self._units(self.perturbation.distance(point))
        condition = self._condition(point)
        shape = (1, *margins.input_shape)
        slack = SLACK * (1 + float(np.abs(self.network.forward(point.reshape(shape))).max()))
        flipped: frozenset[tuple[int, int]] = frozenset()
        best, tried, waiting = np.inf, {flipped}, [flipped]
        end = self.clock.elapsed() + SHARPENING * self.clock.left()
        while waiting and len(tried) < PIECES and self.clock.elapsed() < end:
            flipped = waiting.pop(0)
            piece = piece_around(margins, point, condition, units, flipped)
            found = closest_in(piece, self.perturbation, slack, lp_session, min(best, self.upper * (1 + 1e-3)))
            if found is None:
                continue
            nearest, tight = found
            far = self.perturbation.distance(nearest)
            if far >= best * (1 - 1e-7):
                continue
            while not self._try(nearest) and slack < 1e-3:
                slack *= 10
                again = closest_in(piece, self.perturbation, slack, lp_session)
                if again is None:
                    break
                nearest, tight = again
            best = far
            waiting = []
            for row in tight:
                other = flipped ^ {piece.units[row]}
                if other not in tried:
                    tried.add(other)
                    waiting.append(other)

    @cached_property
    def margins(self) -> Network:
        """The network whose outputs are the margins of all conditions."""
        return margin_network(self.network, self.conditions)

    @cached_property
    def _whole(self) -> InputSet:
        return self.perturbation.within(self.cap)

    def _condition(self, point: np.ndarray) -> int:
        """The condition that is nearest to being met at a point (n,)."""
        shape = (1, *self.margins.input_shape)
        return int(np.argmin(self.margins.forward(point.astype(np.float64).reshape(shape)).reshape(-1)))

    def _units(self, radius: float) -> dict[int, np.ndarray]:
        """By pre-activation node, the units whose sign may change within a radius."""
        around = self.around[1] if self.around is not None and self.around[0] >= radius else None
        return unstable_units(self.margins, self.perturbation.within(radius), around)
