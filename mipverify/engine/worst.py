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

from mipverify.attack.closest import ActivationRegion, closest_in
from mipverify.engine.activation_regions import unstable_units, walk_regions
from mipverify.engine.bisection import CLOSE, Bisection
from mipverify.engine.budget import Clock, Deadline
from mipverify.engine.schedule import CASCADE, LP_TIGHTENING, MARGIN, THOROUGH_ATTACK, TIGHTENED, TIGHTENING
from mipverify.engine.shown import html_table, number, seconds, vector
from mipverify.engine.stage import Stage
from mipverify.engine.verdict import Witness
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.snapshot import snapshot
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.proof.bounds import Bounds
from mipverify.solvers import lp_session
from mipverify.specification import Case
from mipverify.specification.exact import exact_number
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified

GAP = 1e-4
ONCE = (TIGHTENING, LP_TIGHTENING)  # of intermediate bounds, which the level does not touch
DESCENTS = 6  # halvings with attacks only
HALVINGS = 20  # while a activation region is searched for its smallest margin,
EXACT = 0.1  # of the gap that is allowed: to which that is found
REGIONS = 20  # activation regions looked at after a witness


@dataclass(frozen=True, eq=False)
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

    def __repr__(self) -> str:
        why = f", {self.reason}" if self.reason else ""
        between = f"{number(self.lower)} to {number(self.upper)}"
        return f"WorstMargin({self.status}, {between}, {seconds(self.seconds)}{why})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"margin at least": number(self.lower), "margin at most": number(self.upper)}
        rows |= {"worst input": vector(self.witness.input), "output there": vector(self.witness.output)}
        rows |= {"seconds": f"{self.seconds:.3g}", "why not": self.reason, "trusted": ", ".join(self.trusted)}
        return html_table(self.status, rows)


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
    work of one question. Other arguments as in `minimum_distortion`.

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
        run_within(search.clock, partial(search.close_with, workers))
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
            "seconds": search.seconds(),
        },
        "" if closed else (reason or search.reason or "time"),
    )


class _Search(Bisection):
    """Problems about whether some margin is at most a level: a proof raises `lower` to it, a witness lowers `upper`."""

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
        self.perturbation, self.label, self.targets, self.gap = perturbation, label, targets, gap
        self.inputs = perturbation.within(eps)
        super().__init__(network, self.inputs.box, clock, MARGIN, seed=seed, solver=solver, progress=progress)
        self.radius = float(exact_number(eps, "eps"))
        self.around: Bounds | None = None  # the level is about the output only
        self.cascade = CASCADE
        self.at_zero = self._case(0.0)
        center = self.inputs.nearest_float32(perturbation.center[None])[0]
        self.witness = Witness(center, self.replay.run(center[None])[0])
        self.upper = self._margin(self.witness.output)

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
        self.ask(self.upper, TIGHTENED, self.deadline)
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
            self.cascade = tuple(s for s in self.cascade if s not in ONCE or s not in course.ran)
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
        """Lower the upper bound by bisection with attacks only, then in activation regions."""
        low = self.lower
        for _ in range(DESCENTS):
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
