"""The smallest margin inside an input set: proofs that no input has less, and replayed inputs that have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mipverify.engine.budget import Clock
from mipverify.engine.lowest import Goal, LowestMargin
from mipverify.engine.shown import html_table, number, seconds, vector
from mipverify.engine.verdict import Witness
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.snapshot import snapshot
from mipverify.specification import Condition
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified

GAP = 1e-4


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
    goal = _goal(network, label, chosen, gap)
    clock = Clock(timeout)
    search = LowestMargin(network, perturbation, eps, goal, clock, seed=seed, solver=solver, progress=progress)
    reason = search.finish(workers)
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


def _goal(network: Network, label: int, targets: Sequence[int] | None, gap: float) -> Goal:
    """The label's score less the best other one of the targets."""

    def conditions(level: Fraction) -> tuple[Condition, ...]:
        return misclassified(label, network.output_size, network.input_size, targets=targets, margin=-level)

    def margin(output: np.ndarray) -> float:
        scores = output.reshape(-1).astype(np.float64)
        others = [k for k in range(len(scores)) if k != label] if targets is None else targets
        return float(scores[label] - max(scores[k] for k in others))

    return Goal(conditions=conditions, margin=margin, allowed=lambda upper: gap * max(1.0, abs(upper)))
