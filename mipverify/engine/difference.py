"""Two networks on one input set: how far their outputs are apart at most, and whether they name the same class.

Both are one network here, whose outputs are those of the first and, behind them, those of the second; where they have
the same form, it knows their differences layer by layer (`mipverify.network.pair`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.lowest import ONCE, Goal, LowestMargin
from mipverify.engine.schedule import COMPARISON, DIFFERENCES, FIRST_DIFFERENCES, WORST_DIFFERENCE
from mipverify.engine.shown import html_table, number, seconds, vector
from mipverify.engine.verdict import Verdict, Witness
from mipverify.engine.verify import verify
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.pair import pair, with_inequalities
from mipverify.network.snapshot import snapshot
from mipverify.presolve import crown
from mipverify.proof.interval import interval_over
from mipverify.specification import Case, Condition, Specification
from mipverify.specification.conditions import Row
from mipverify.specification.exact import exact_number
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.sets import InputSet

GAP = 1e-2  # relative, between the proven bounds of an optimal difference
LEAST = 1e-4  # differences below it are told apart up to the gap of this one: float32 computes little more
DESCENTS = 2  # halvings with attacks only: bounds are close from the start
MOST_CLASSES = 32  # conditions grow with their square, and each by their number


@dataclass(frozen=True)
class WorstDifference:
    """lower <= the largest difference of an output of two networks in the set <= upper.

    status: "optimal" where the bounds meet within the gap, else "bounded". witness: a replayed input with difference
    `lower`, and the outputs of the first network there with those of the second behind them. output: which one differs
    so much. trusted: as in `Verdict`.
    """

    status: Literal["optimal", "bounded"]
    lower: float
    upper: float
    witness: Witness
    output: int
    seconds: float
    trusted: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __repr__(self) -> str:
        why = f", {self.reason}" if self.reason else ""
        between = f"{number(self.lower)} to {number(self.upper)}"
        return f"WorstDifference({self.status}, {between}, {seconds(self.seconds)}{why})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"difference at least": number(self.lower), "difference at most": number(self.upper)}
        first, second = np.split(self.witness.output, 2)
        rows |= {"worst input": vector(self.witness.input), "differs most": f"output {self.output}"}
        rows |= {"first network there": vector(first), "second network there": vector(second)}
        rows |= {"seconds": f"{self.seconds:.3g}", "why not": self.reason, "trusted": ", ".join(self.trusted)}
        return html_table(self.status, rows)

    def to_json(self) -> dict[str, Any]:
        """The object that `mipverify compare --json` prints."""
        return {
            "status": self.status,
            "difference": {"lower": self.lower, "upper": self.upper if np.isfinite(self.upper) else None},
            "output": self.output,
            "witness": {
                "input": [float(v) for v in self.witness.input.reshape(-1)],
                "output": [float(v) for v in self.witness.output.reshape(-1)],
            },
            "seconds": round(self.seconds, 4),
            "trusted": list(self.trusted),
            "statistics": self.statistics,
            "reason": self.reason,
        }


def compare(
    first: Network,
    second: Network,
    perturbation: Perturbation,
    eps: object,
    within: object = None,
    same: bool = False,
    gap: float = GAP,
    **how: Any,
) -> WorstDifference | Verdict:
    """One of the three questions: `differ_within` a distance, `same_class`, or else `worst_difference`."""
    if within is not None:
        return differ_within(first, second, perturbation, eps, within, **how)
    if same:
        return same_class(first, second, perturbation, eps, **how)
    return worst_difference(first, second, perturbation, eps, gap=gap, **how)


def worst_difference(
    first: Network,
    second: Network,
    perturbation: Perturbation,
    eps: object,
    *,
    gap: float = GAP,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
) -> WorstDifference:
    """The largest difference |first[k](x) - second[k](x)| of any output k, over the inputs x of a set.

    The set is that of a perturbation within `eps`. gap: relative, at which the bounds count as one; of differences
    below 1e-4, that of 1e-4. Other arguments as in `worst_margin`.

    Raises InputError where the networks do not fit each other or the set, or do not give what they compute.
    """
    started = time.perf_counter()
    if not 0 < gap < 1:
        raise InputError(f"gap must lie between 0 and 1, not {gap:g}")
    together = _Together(first, second, perturbation, eps)
    together.require_values()
    count, size, clock = together.outputs, perturbation.size, Clock(timeout)
    goal = Goal(
        conditions=lambda level: _apart(count, size, -level, strict=False),
        margin=lambda output: -_farthest(output)[0],
        allowed=lambda upper: gap * max(LEAST, abs(upper)),
        first=FIRST_DIFFERENCES,
        begin=lambda upper: 2 * upper - LEAST,  # where no input may be found, so that bounds are made in full
        descents=DESCENTS,
        cascade=WORST_DIFFERENCE,
        once=(*ONCE, DIFFERENCES),
    )
    network = together.network()
    search = LowestMargin(network, perturbation, eps, goal, clock, seed=seed, solver=solver, progress=progress)
    reason = search.finish(workers)
    # What was left behind may bring the bounds closer yet: the margin that is met before the witness, which has it.
    closed, upper, lower, witness = search.closed and not reason, -search.lower, -search.upper, search.witness
    return WorstDifference(
        "optimal" if closed else "bounded",
        lower,
        upper,
        witness,
        _farthest(witness.output)[1],
        time.perf_counter() - started,
        tuple(dict.fromkeys(search.trusted)),
        {"gap": upper - lower, "questions": search.questions, "nodes": search.nodes, "seconds": search.seconds()},
        "" if closed else (reason or search.reason or "time"),
    )


def differ_within(
    first: Network, second: Network, perturbation: Perturbation, eps: object, distance: object, **how: Any
) -> Verdict:
    """Whether no output of two networks differs by more than `distance` anywhere in the set of a perturbation.

    distance: read as exactly as `eps`. how: as in `verify`. Raises InputError as `worst_difference`.
    """
    most = exact_number(distance, "within")
    if most < 0:
        raise InputError(f"within must not be negative: {distance}")
    together = _Together(first, second, perturbation, eps)
    together.require_values()
    return together.verify(_apart(together.outputs, perturbation.size, most, strict=True), **how)


def same_class(first: Network, second: Network, perturbation: Perturbation, eps: object, **how: Any) -> Verdict:
    """Whether two networks name the same class everywhere in the set of a perturbation; a tie violates.

    how: as in `verify`. Raises InputError where the networks do not fit each other or the set, or are no classifiers.
    """
    together = _Together(first, second, perturbation, eps)
    for network in (first, second):
        if network.output_size < 2 or "ArgMax" in network.dropped:
            raise InputError(
                f"{network.path or 'the network'}: classes are compared by the scores of two or more of them"
            )
    if together.outputs > MOST_CLASSES:
        raise InputError(f"{together.outputs} classes: networks of up to {MOST_CLASSES} are compared by their class")
    return together.verify(_other_class(together.outputs, perturbation.size), **how)


class _Together:
    """Two networks and a set of inputs of both."""

    def __init__(self, first: Network, second: Network, perturbation: Perturbation, eps: object):
        self.first, self.second = snapshot(first), snapshot(second)
        self.pair, self.outputs = pair(self.first, self.second), first.output_size
        if perturbation.size != first.input_size:
            raise InputError(f"the input has {perturbation.size} values, the networks {first.input_size}")
        self.inputs: InputSet = perturbation.within(eps)

    def require_values(self) -> None:
        """Raise InputError where an output is not what is computed of it here."""
        for network in (self.first, self.second):
            if network.dropped:
                raise InputError(
                    f"{network.path or 'the network'}: {'; '.join(network.notes)}: "
                    "outputs of such networks have no differences that can be bounded, but --same-class compares them"
                )

    def network(self) -> Network:
        """Both as one, with inequalities for the units that CROWN leaves unstable in both."""
        if not self.pair.alike:
            return self.pair.network
        bounds = crown(interval_over(self.pair.network, self.inputs))
        units = []
        for layer in self.pair.layers:
            unstable = bounds.unstable(layer.before[0]) & bounds.unstable(layer.before[1])
            units.append(np.flatnonzero(np.asarray(unstable).reshape(-1)))
        return with_inequalities(self.pair, units)

    def verify(self, conditions: tuple[Condition, ...], **how: Any) -> Verdict:
        """Whether none of some conditions on all outputs is met anywhere in the set."""
        specification = Specification((Case(self.inputs, conditions),), "comparison")
        return verify(self.network(), specification, stages=COMPARISON, **how)


def _apart(outputs: int, inputs: int, distance: Fraction, *, strict: bool) -> tuple[Condition, ...]:
    """One condition for each output and direction: both networks' are at least so far apart, or farther if strict."""
    rows = [
        [Row({k: Fraction(-sign), outputs + k: Fraction(sign)}, {}, -distance, strict)]
        for sign in (1, -1)
        for k in range(outputs)
    ]
    names = [f"output {k} {word}" for word in ("falls", "rises") for k in range(outputs)]
    return tuple(Condition.many(rows, inputs, 2 * outputs, names))


def _other_class(outputs: int, inputs: int) -> tuple[Condition, ...]:
    """One condition for each pair of classes: one wins in the first network, the other in the second."""
    rows, names = [], []
    for one in range(outputs):
        for other in range(outputs):
            if one == other:
                continue
            first = [Row({k: Fraction(1), one: Fraction(-1)}, {}, Fraction(0)) for k in range(outputs) if k != one]
            second = [
                Row({outputs + k: Fraction(1), outputs + other: Fraction(-1)}, {}, Fraction(0))
                for k in range(outputs)
                if k != other
            ]
            rows.append(first + second)
            names.append(f"class {one} and class {other}")
    return tuple(Condition.many(rows, inputs, 2 * outputs, names))


def _farthest(output: np.ndarray) -> tuple[float, int]:
    """The largest difference of outputs (2 k,) of two networks, and which it is."""
    first, second = np.split(np.asarray(output, np.float64).reshape(-1), 2)
    apart = np.abs(first - second)
    return float(apart.max()), int(apart.argmax())
