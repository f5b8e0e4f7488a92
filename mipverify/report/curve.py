"""Adversarial accuracy as a function of the radius: what a run with several radii has come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.engine.sample import SampleResult
from mipverify.engine.shown import html_table
from mipverify.errors import InputError
from mipverify.report.columns import AT_RADII
from mipverify.report.configuration import RunConfiguration, canonical_eps
from mipverify.report.radii import Ladder
from mipverify.report.result import AccuracyResult
from mipverify.report.summary import proofs, summarize, write_tables
from mipverify.report.table import INTEGER, REAL, SECONDS, TEXT, Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mipverify.specification.dataset import Dataset

# What the summaries of all radii have in common stands in that of the run.
COMMON = (
    *("samples", "misclassified", "clean_error", "sessions", "peak_memory_of_a_worker", "first", "last"),
    *("network", "data", "norm", "threat", "arithmetic", "preprocessing", "options", "version"),
)


def _error(side: str) -> Any:
    return lambda point: point.summary["adversarial_error"][side]


def _count(name: str) -> Any:
    return lambda point: point.summary[name]


def _share(*verdicts: str) -> Any:
    return lambda point: sum(point.summary[verdict] for verdict in verdicts) / (point.summary["samples"] or 1)


# The file curve.csv, and the data frame of a curve: one row a radius.
CURVE = Table[AccuracyResult](
    "curve",
    (
        Column("eps", TEXT, value=_count("eps")),
        *(
            Column(name, INTEGER, value=_count(name))
            for name in ("samples", "misclassified", "holds", "violated", "unknown")
        ),
        Column("adversarial_error_lower", REAL, value=_error("lower")),
        Column("adversarial_error_upper", REAL, value=_error("upper")),
        Column("adversarial_accuracy_lower", REAL, value=_share("holds")),
        Column("adversarial_accuracy_upper", REAL, value=_share("holds", "unknown")),
        Column("asked", INTEGER, value=lambda point: sum(not sample.decided_at for sample in point.samples)),
        Column("seconds", SECONDS, value=_count("seconds_of_samples")),
    ),
    AccuracyResult,
)


@dataclass(frozen=True)
class AccuracyCurve:
    """What is known about a test set at several radii.

    summary: as in summary.json. points: of each radius, the smallest first. Each is a result by itself, with a verdict
    about every sample, whether that radius was asked about or the verdict follows from another one (`decided_at`).
    Other fields as in `AccuracyResult`.
    """

    summary: dict[str, Any]
    points: tuple[AccuracyResult, ...]
    directory: Path | None = None
    preprocessing: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def radii(self) -> tuple[str, ...]:
        """As text, the smallest first."""
        return tuple(point.summary["eps"] for point in self.points)

    @property
    def samples(self) -> tuple[SampleResult, ...]:
        """The verdicts about all samples at all radii, by radius."""
        return tuple(sample for point in self.points for sample in point.samples)

    def at(self, eps: object) -> AccuracyResult:
        """The result at a radius. Raises InputError where the curve has no such point."""
        wanted = canonical_eps(str(eps))
        for point in self.points:
            if point.summary["eps"] == wanted:
                return point
        raise InputError(f"the curve has no point at {wanted}: it has {', '.join(self.radii)}")

    def to_dataframe(self) -> Any:
        """The curve as a pandas DataFrame, one row a radius. Raises ImportError if pandas is not installed."""
        return CURVE.dataframe(self.points)

    def plot_curve(self, ax: Any = None) -> Any:
        """Adversarial accuracy over the radius, with the band that is open, on axes of matplotlib, which are returned.

        Raises InputError if matplotlib is not installed.
        """
        from mipverify.report.figures import accuracy_curve

        return accuracy_curve(self, ax)

    def __repr__(self) -> str:
        points = ", ".join(f"{p.summary['eps']}: {_interval(p.summary['adversarial_error'])}" for p in self.points)
        return f"AccuracyCurve({self.summary['samples']} samples, adversarial error {points})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {
            f"adversarial error at {p.summary['eps']}": _interval(p.summary["adversarial_error"]) for p in self.points
        }
        rows |= {"clean error": f"{self.summary['clean_error']:.2%}", "seconds": f"{self.summary['seconds']:.1f}"}
        return html_table(f"{self.summary['samples']} samples, {len(self.points)} radii", rows)


def _interval(error: dict[str, float]) -> str:
    exact = error["lower"] == error["upper"]
    return f"{error['lower']:.2%}" + ("" if exact else f" to {error['upper']:.2%}")


def result_of(
    answers: Sequence[SampleResult],
    configuration: RunConfiguration,
    about: dict[str, Any],
    directory: Path,
    preprocessing: str,
    data: Dataset,
    class_names: tuple[str, ...],
) -> AccuracyResult | AccuracyCurve:
    """What a run has come to, of its stored answers. about: other arguments of `summarize`, of the whole run."""
    if not configuration.curve:
        summary = summarize(answers, configuration, **about)
        return AccuracyResult(summary, tuple(answers), directory, preprocessing, data, class_names)
    ladder = Ladder(configuration.radii)
    for answer in answers:
        ladder.learn(answer.index, answer)
    points, shown = [], (None, preprocessing, data, class_names)
    for eps, rows in zip(configuration.radii, ladder.rows(about["selection"]), strict=True):
        summary = summarize(rows, replace(configuration, eps=eps), **about)
        points.append(AccuracyResult({**summary, "seconds": summary["seconds_of_samples"]}, tuple(rows), *shown))
    return AccuracyCurve(_summary(points, about["seconds"]), tuple(points), directory, preprocessing, class_names)


def _summary(points: Sequence[AccuracyResult], seconds: float) -> dict[str, Any]:
    """Of a whole run: what all radii have in common, and what each has for itself."""
    summaries = [point.summary for point in points]
    each = [
        {name: value for name, value in summary.items() if name not in (*COMMON, "seconds")} for summary in summaries
    ]
    own = [sample for point in points for sample in point.samples if not sample.decided_at]
    return {
        **{name: summaries[0][name] for name in COMMON},
        "proofs": proofs(own),
        "eps": [summary["eps"] for summary in summaries],
        "seconds": seconds,
        "seconds_of_samples": sum(summary["seconds_of_samples"] for summary in summaries),
        "radii": [{"eps": summary.pop("eps"), **summary} for summary in each],
    }


def write_curve(
    curve: AccuracyCurve, shown: Sequence[SampleResult], images: NDArray[Any], stored_shape: tuple[int, ...]
) -> None:
    """Write the tables and the page of a curve into its directory. Arguments as of `write_page`."""
    from mipverify.report.curve_page import write_curve_page

    assert curve.directory is not None
    write_tables(curve.directory, curve.summary, curve.samples, AT_RADII)
    CURVE.write_csv(curve.directory / "curve.csv", curve.points)
    write_curve_page(curve.directory / "report.html", curve, shown, images, stored_shape)
