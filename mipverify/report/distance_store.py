"""Distances of samples on disk: each as soon as it is known, and never worse than it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mipverify.report.best_known import BestKnown
from mipverify.report.table import INTEGER, JSON, REAL, TEXT, TEXTS, Column, Table

SCHEMA = 2
ROUNDING = 1e-9  # relative, of a distance that is computed in float64


@dataclass(frozen=True)
class DistanceResult:
    """What is known about the distance of one sample, as in `Distortion`.

    witness: {"input": [...], "output": [...]} at distance `upper`, or None. adversarial_label: the class there.
    """

    index: int
    label: int
    status: str
    lower: float
    upper: float | None
    adversarial_label: int | None
    seconds: float
    questions: int
    nodes: int
    reason: str
    witness: Mapping[str, Any] | None = None
    trusted: tuple[str, ...] = ()

    open: ClassVar[bool] = False  # no answer is followed by more work
    hardness: ClassVar[float] = 0.0

    def improved_by(self, other: DistanceResult, gap: float) -> DistanceResult:
        """The better of both bounds with the closer witness; time and nodes of both.

        gap: relative, at which bounds have met. Raises RuntimeError if a proof of one contradicts the other's witness.
        """
        nearer = self if _far(self) <= _far(other) else other
        lower = max(self.lower, other.lower)
        if nearer.upper is not None and lower > nearer.upper:
            if lower > nearer.upper * (1 + ROUNDING):
                raise RuntimeError(
                    f"sample {self.index}: a witness at distance {nearer.upper!r} contradicts the proof of {lower!r}"
                )
            lower = nearer.upper
        status = nearer.status if nearer.status != "bounded" else other.status
        if nearer.upper is not None:
            status = "optimal" if nearer.upper - lower <= gap * nearer.upper else "bounded"
        return replace(
            other,
            status=status,
            lower=lower,
            upper=nearer.upper,
            witness=nearer.witness,
            adversarial_label=nearer.adversarial_label,
            seconds=self.seconds + other.seconds,
            questions=self.questions + other.questions,
            nodes=self.nodes + other.nodes,
            reason=other.reason if status == "bounded" else "",
            trusted=tuple(dict.fromkeys(self.trusted + other.trusted)),
        )


def _far(result: DistanceResult) -> float:
    return float("inf") if result.upper is None else result.upper


DISTANCES = Table[DistanceResult](
    "distances",
    (
        Column("index", INTEGER, stored_as="sample"),
        Column("label", INTEGER),
        Column("status", TEXT),
        Column("lower", REAL),
        Column("upper", REAL, nullable=True),
        Column("adversarial_label", INTEGER, nullable=True),
        Column("seconds", REAL),
        Column("questions", INTEGER),
        Column("nodes", INTEGER),
        Column("reason", TEXT),
        Column("witness", JSON, nullable=True, tabled=False),
        Column("trusted", TEXTS, tabled=False),
    ),
    DistanceResult,
)


class DistanceStore(BestKnown[DistanceResult]):
    """The distances of one run in `DIR/results.sqlite`. gap: as in `DistanceResult.improved_by`."""

    def __init__(self, directory: Path, question: dict[str, str], gap: float):
        about = {"schema": str(SCHEMA), **question}
        better = partial(DistanceResult.improved_by, gap=gap)
        super().__init__(directory, about, DISTANCES, better, "distance_run", "a run of distortion")
