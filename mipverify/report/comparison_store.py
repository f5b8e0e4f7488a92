"""Comparisons of two networks on disk: what is known of each sample, as soon as it is known, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mipverify.report.best_known import BestKnown
from mipverify.report.table import INTEGER, JSON, REAL, SECONDS, TEXT, TEXTS, Column, Shown, Table

SCHEMA = 1
VERDICTS = ("optimal", "bounded", "holds", "violated", "unknown")
OPEN = ("bounded", "unknown")  # runs again


@dataclass(frozen=True)
class ComparisonResult:
    """What is known of two networks around one sample.

    verdict: of a largest difference `optimal` or `bounded`, of the other questions as in `Verdict`. lower, upper: of
    the largest difference; None where another question was asked, upper also where no bound is finite. output: which
    one differs most at the witness, and difference by how much there; first, second: the classes that the networks
    name there; None without one. witness: {"input": [...], "output": [...]}, the outputs of both.
    """

    index: int
    label: int
    verdict: str
    lower: float | None
    upper: float | None
    output: int | None
    difference: float | None
    first: int | None
    second: int | None
    stage: str
    seconds: float
    nodes: int
    reason: str
    witness: Mapping[str, Any] | None = None
    trusted: tuple[str, ...] = ()

    open: ClassVar[bool] = False  # no answer is followed by more work
    hardness: ClassVar[float] = 0.0

    def improved_by(self, other: ComparisonResult, gap: float, least: float) -> ComparisonResult:
        """The better of both answers, with the time and the nodes of both.

        gap: relative, at which bounds have met; least: of differences below it that of this one. Raises RuntimeError if
        a proof of one contradicts the other's witness.
        """
        whole: dict[str, Any] = {"seconds": self.seconds + other.seconds, "nodes": self.nodes + other.nodes}
        if other.lower is None or self.lower is None:
            return replace(self if other.verdict in OPEN else other, **whole)
        far, near = (self, other) if self.lower >= other.lower else (other, self)
        bounds = [bound for bound in (self.upper, other.upper) if bound is not None]
        upper = min(bounds, default=None)
        if upper is not None and far.lower is not None and upper < far.lower:
            raise RuntimeError(
                f"sample {self.index}: a witness at difference {far.lower!r} contradicts the proof of {upper!r}"
            )
        met = upper is not None and far.lower is not None and upper - far.lower <= gap * max(least, far.lower)
        trusted = tuple(dict.fromkeys(self.trusted + other.trusted))
        word = "optimal" if met else "bounded"
        reason = "" if met else other.reason or near.reason
        return replace(far, verdict=word, upper=upper, trusted=trusted, reason=reason, stage=other.stage, **whole)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


COMPARISONS = Table[ComparisonResult](
    "comparisons",
    (
        Column("index", INTEGER, stored_as="sample", shown=Shown("Index")),
        Column("label", INTEGER, shown=Shown("Label", wide_only=True)),
        Column("verdict", TEXT, allowed=VERDICTS, shown=Shown("Verdict")),
        Column("lower", REAL, nullable=True, shown=Shown("Difference at least", lambda result: _short(result.lower))),
        Column("upper", REAL, nullable=True, shown=Shown("Difference at most", lambda result: _short(result.upper))),
        Column("output", INTEGER, nullable=True, shown=Shown("Output")),
        Column(
            "difference", REAL, nullable=True, shown=Shown("At the witness", lambda result: _short(result.difference))
        ),
        Column("first", INTEGER, nullable=True, stored_as="first_class", shown=Shown("First class")),
        Column("second", INTEGER, nullable=True, stored_as="second_class", shown=Shown("Second class")),
        Column("stage", TEXT, shown=Shown("Stage", wide_only=True)),
        Column("seconds", SECONDS, shown=Shown("Seconds", lambda result: round(result.seconds, 4), digits=2)),
        Column("nodes", INTEGER),
        Column("reason", TEXT, shown=Shown("Reason", wide_only=True)),
        Column("witness", JSON, nullable=True, tabled=False),
        Column("trusted", TEXTS),
    ),
    ComparisonResult,
)


class ComparisonStore(BestKnown[ComparisonResult]):
    """The comparisons of one run in `DIR/results.sqlite`. gap, least: as in `ComparisonResult.improved_by`."""

    def __init__(self, directory: Path, question: dict[str, str], gap: float, least: float):
        about = {"schema": str(SCHEMA), **question}
        better = partial(ComparisonResult.improved_by, gap=gap, least=least)
        super().__init__(directory, about, COMPARISONS, better, "comparison_run", "a run of compare")
