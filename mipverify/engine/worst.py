"""The smallest margin inside an input set: proofs that no input has less, and replayed inputs that have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mipverify.attack.closest import closest_in, piece_around
from mipverify.attack.pgd import Attack
from mipverify.engine.bounding import unstable_units
from mipverify.engine.budget import Clock
from mipverify.engine.question import Question
from mipverify.engine.stages import CASCADE, Stage, attack
from mipverify.engine.verdict import Witness
from mipverify.engine.verify import run_cascade
from mipverify.errors import InputError
from mipverify.formulation import margin_network
from mipverify.network import Network
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import points_of, validated
from mipverify.parallel import ALONE, Crew, Hands
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.proof.bounds import Bounds
from mipverify.solvers import lp_session
from mipverify.specification import Case
from mipverify.specification.exact import exact_number
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified

GAP = 1e-4
ATTACK = (Stage("attack", attack(Attack(restarts=4, steps=40))),)
FAST = tuple(stage for stage in CASCADE if stage.name in ("interval", "crown", "optimized crown", "tightening"))
TIGHTENINGS = ("tightening", "lp tightening")  # of hidden units, which the level does not touch: once is enough
DESCENTS = 6  # halvings with attacks only
HALVINGS = 20  # while a linear piece is searched for its smallest margin
PIECES = 20  # linear pieces looked at after a witness
SHARE = 0.6  # of the time left, for one proof


@dataclass(frozen=True)
class WorstMargin:
    """lower <= the smallest margin in the set <= upper; the margin is the label's score less the best other score.

    status: "optimal" where the bounds meet within the gap, else "bounded". witness: a replayed input with margin
    `upper`; it is adversarial where that is not positive. trusted: as in `Verdict`.
    """

    status: Literal["optimal", "bounded"]
    lower: float
    upper: float
    witness: Witness
    seconds: float
    trusted: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def worst_margin(
    network: Network,
    image: ArrayLike,
    label: int,
    eps: object,
    *,
    norm: str = "linf",
    targets: Iterable[int] | None = None,
    domain: tuple[object, object] | None = (0, 1),
    scale: ArrayLike | None = None,
    constraints: Sequence[tuple[ArrayLike, object]] = (),
    mean: object = 0,
    std: object = 1,
    gap: float = GAP,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
) -> WorstMargin:
    """The smallest margin y[label] - max over targets of y[target] within `eps` of `image`.

    gap: the bounds may differ by this much, or by this share of a margin above one. workers: processes that share the
    work of one question. Other arguments as in
    `minimum_distortion`.

    Raises:
        InputError: arguments out of range, an image that does not fit, or a network that gives classes, not scores.
    """
    started = time.perf_counter()
    network = snapshot(network)
    perturbation = Perturbation.around(
        image, norm=norm, scale=scale, domain=domain, constraints=constraints, mean=mean, std=std
    )
    if perturbation.size != network.input_size:
        raise InputError(f"the image has {perturbation.size} values, the network {network.input_size} inputs")
    if not 0 < gap < np.inf:
        raise InputError(f"gap must be positive, not {gap:g}")
    if network.order_only:
        raise InputError(f"{network.path or 'the network'}: gives an order of classes, of which there is no margin")
    chosen = None if targets is None else list(targets)
    search = _Search(network, perturbation, label, chosen, eps, gap, Clock(timeout), seed, solver, progress)
    reason = ""
    try:
        run_within(search.clock, partial(search.close, workers))
    except LeftBehindError:
        reason = "time"
    except KeyboardInterrupt:
        reason = "interrupted"
    except MemoryError:
        reason = "out of memory"
    # What was left behind may bring the bounds closer yet: `upper` before the witness, whose margin is no larger.
    closed, lower, upper = search.closed and not reason, search.lower, search.upper
    return WorstMargin(
        "optimal" if closed else "bounded",
        lower,
        upper,
        search.witness,
        time.perf_counter() - started,
        tuple(dict.fromkeys(search.trusted)),
        {
            "gap": upper - lower,
            "questions": search.questions,
            "nodes": search.nodes,
            "seconds": {name: round(seconds, 4) for name, seconds in search.clock.stages.items()},
        },
        "" if closed else (reason or search.reason or "time"),
    )


class _Search:
    """Questions whether some margin is at most a level: a proof raises `lower` to it, a witness lowers `upper`."""

    def __init__(
        self,
        network: Network,
        perturbation: Perturbation,
        label: int,
        targets: Sequence[int] | None,
        eps: object,
        gap: float,
        clock: Clock,
        seed: int,
        solver: str,
        progress: Callable[[str, str], None] | None,
    ):
        self.network, self.perturbation, self.label, self.targets = network, perturbation, label, targets
        self.inputs = perturbation.within(eps)
        self.radius = float(exact_number(eps, "eps"))
        self.gap, self.clock, self.solver = gap, clock, solver
        self.rng = np.random.default_rng(seed)
        self.replay = validated(network, points_of([(self.inputs.box.float32_lower, self.inputs.box.float32_upper)]))
        self.report = progress or (lambda stage, text: None)
        self.hands: Hands = ALONE
        self.around: Bounds | None = None  # the level is about the output only
        self.lower, self.trusted, self.reason = -np.inf, list[str](), ""
        self.questions = self.nodes = 0
        self.stages = CASCADE
        case = self._case(0.0)
        center = case.inputs.nearest_float32(perturbation.center[None])[0]
        self.witness = Witness(center, self.replay.run(center[None])[0])
        self.upper = self._margin(self.witness.output)

    @property
    def closed(self) -> bool:
        return self.upper - self.lower <= self._allowed()

    def close(self, workers: int = 1) -> None:
        """Narrow the bounds until they meet or time is over. workers: processes that share the work."""
        with Crew(workers) as self.hands:
            self._close()

    def _close(self) -> None:
        self.ask(self.upper, FAST, self.clock.left())
        if not np.isfinite(self.lower):
            self.reason = "bounds overflow"
            return
        self._descend()
        while not (self.closed or self.clock.over()):
            before = self.lower, self.upper
            self.ask(self.upper - 0.9 * self._allowed(), self.stages, SHARE * self.clock.left())
            if (self.lower, self.upper) == before:
                self.ask(0.5 * self.lower + 0.5 * self.upper, self.stages, SHARE * self.clock.left())
            if (self.lower, self.upper) == before:
                return

    def ask(self, level: float, stages: Sequence[Stage], seconds: float) -> None:
        """Whether some margin is at most `level`."""
        case = self._case(level)
        clock = Clock(seconds, stages=self.clock.stages)
        self.report("margin", f"{self.lower:.6g} <= margin <= {self.upper:.6g}; asking about {level:.6g}")
        question = Question(self.network, case, self.replay, clock, self.rng, self.solver, self.report, self.hands)
        question.hints, question.around = self.witness.input[None].astype(np.float64), self.around
        run_cascade(question, stages)
        self.questions += 1
        self.nodes += question.nodes
        if question.bounds is not None:
            self.around = question.bounds
            ran = {stage.name for stage in stages if stage.name in clock.stages}
            self.stages = tuple(s for s in self.stages if s.name not in TIGHTENINGS or s.name not in ran)
        # What is proven of every margin less the level, be it positive or not, bounds the smallest margin.
        proven = float(np.nextafter(level + float(question.lower.min()), -np.inf))
        if question.witness is None and not len(question.open()):
            proven = max(proven, level)
        if proven > self.lower:
            self.lower = min(proven, self.upper)
            self.trusted += question.trusted
        if question.witness is not None:
            self._take(question.witness.input)
            if stages is not ATTACK:
                self._sharpen()
        self.reason = question.reason

    def _case(self, level: float) -> Case:
        conditions = misclassified(
            self.label,
            self.network.output_size,
            self.network.input_size,
            targets=self.targets,
            margin=-Fraction(level),
        )
        return Case(self.inputs, conditions)

    def _allowed(self) -> float:
        return self.gap * max(1.0, abs(self.upper))

    def _margin(self, output: np.ndarray) -> float:
        scores = output.reshape(-1).astype(np.float64)
        others = [k for k in range(len(scores)) if k != self.label] if self.targets is None else self.targets
        return float(scores[self.label] - max(scores[k] for k in others))

    def _take(self, point: np.ndarray) -> bool:
        """Replay a point of the set; whether it has the smallest margin so far."""
        x = self.inputs.nearest_float32(point[None])[0]
        if not self.inputs.contains(x):
            return False
        output = self.replay.run(x[None])[0]
        margin = self._margin(output)
        if not margin < self.upper:
            return False
        self.witness, self.upper = Witness(x, output), margin
        return True

    def _descend(self) -> None:
        """Lower the upper bound by bisection with attacks only, then in linear pieces."""
        low = self.lower
        for _ in range(DESCENTS):
            if self.clock.over() or self.closed or self.upper - low <= self._allowed():
                break
            middle = 0.5 * low + 0.5 * self.upper
            self.ask(middle, ATTACK, self.clock.left())
            if self.upper > middle:
                low = middle
        self._sharpen()

    def _sharpen(self) -> None:
        """Walk from the witness to its piece's smallest margin, and on to neighboring pieces while that lowers it."""
        if not np.isfinite(self.lower):
            return
        margins = margin_network(self.network, self._case(0.0).conditions)
        units = unstable_units(margins, self.inputs, self.around)
        point = self.witness.input.astype(np.float64)
        condition = int(np.argmin(margins.forward(point.reshape(1, *margins.input_shape)).reshape(-1)))
        flipped: frozenset[tuple[int, int]] = frozenset()
        tried, waiting = {flipped}, [flipped]
        end = self.clock.elapsed() + 0.1 * self.clock.left()
        while waiting and len(tried) < PIECES and self.clock.elapsed() < end:
            flipped = waiting.pop(0)
            piece = piece_around(margins, point, condition, units, flipped)
            # The smallest margin -s for which the closest input of the piece is near enough.
            low, high, best = -self.upper, -self.lower, None
            for _ in range(HALVINGS):
                if high - low <= 0.1 * self._allowed() or self.clock.elapsed() > end:
                    break
                middle = 0.5 * low + 0.5 * high
                found = closest_in(piece, self.perturbation, middle, lp_session)
                if found is not None and self.perturbation.distance(found[0]) <= self.radius:
                    low, best = middle, found
                else:
                    high = middle
            if best is None or not self._take(best[0]):
                continue
            waiting = []
            for row in best[1]:
                other = flipped ^ {piece.units[row]}
                if other not in tried:
                    tried.add(other)
                    waiting.append(other)
