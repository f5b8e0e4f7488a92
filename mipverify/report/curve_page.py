"""The page of a run with several radii: the curve, what each radius came to, and the radii of every sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mipverify.engine.sample import VERDICTS, SampleResult, SampleVerdict
from mipverify.engine.verdict import ABOUT
from mipverify.report.columns import predicted
from mipverify.report.curve import CURVE, AccuracyCurve
from mipverify.report.files import Replacing
from mipverify.report.page import embedded, environment, gallery, percent
from mipverify.report.plots import Tick
from mipverify.report.result import class_name
from mipverify.report.table import INTEGER, REAL, SECONDS, TEXT, Column, Shown, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Radii:
    """What is known of one sample at all radii. holds_at, violated_at: the largest and the smallest that is."""

    index: int
    label: int
    predicted: int | None
    verdict: SampleVerdict
    holds_at: float | None
    violated_at: float | None
    stage: str
    seconds: float
    nodes: int
    reason: str

    @classmethod
    def of(cls, rows: Sequence[SampleResult]) -> Radii:
        """Of the verdicts about one sample, the smallest radius first."""
        first = rows[0]
        holds = [row for row in rows if row.verdict == "holds"]
        violated = [row for row in rows if row.verdict == "violated"]
        open_ = [row for row in rows if row.verdict == "unknown"]
        verdict: SampleVerdict = "unknown" if open_ else rows[-1].verdict
        decisive = (open_ or violated or holds or [first])[0]
        return cls(
            first.index,
            first.label,
            predicted(first),
            verdict,
            _number(holds[-1].eps) if holds else None,
            _number(violated[0].eps) if violated else None,
            decisive.stage,
            sum(row.seconds for row in rows),
            sum(row.nodes for row in rows),
            decisive.reason,
        )


SAMPLES = Table[Radii](
    "samples",
    (
        Column("index", INTEGER, shown=Shown("Index")),
        Column("label", INTEGER, shown=Shown("Label")),
        Column("predicted", INTEGER, shown=Shown("Predicted")),
        Column("verdict", TEXT, allowed=VERDICTS, shown=Shown("Verdict")),
        Column("holds_at", REAL, nullable=True, shown=Shown("Holds up to", digits=4)),
        Column("violated_at", REAL, nullable=True, shown=Shown("Violated from", digits=4)),
        Column("stage", TEXT, shown=Shown("Stage")),
        Column("seconds", SECONDS, shown=Shown("Seconds", lambda sample: round(sample.seconds, 4), digits=3)),
        Column("nodes", INTEGER, shown=Shown("Nodes", wide_only=True)),
        Column("reason", TEXT, shown=Shown("Reason", wide_only=True)),
    ),
    Radii,
)


@dataclass(frozen=True)
class CurvePlot:
    """Accuracy over the radius, as stretching shapes and the labels beside them."""

    svg: Markup
    horizontal: list[Tick]
    vertical: list[Tick]


def curve_plot(curve: AccuracyCurve) -> CurvePlot:
    """Between two radii accuracy lies between what is proven at the larger one and what is not refuted at the other."""
    clean = 1 - curve.summary["clean_error"]
    errors = [point.summary["adversarial_error"] for point in curve.points]
    at = [0.0, *(_number(eps) for eps in curve.radii)]
    lower, upper = ([clean, *(1 - error[side] for error in errors)] for side in ("upper", "lower"))
    across = [100.0 * radius / (at[-1] or 1.0) for radius in at]
    down = [[100.0 * (1 - share) for share in side] for side in (lower, upper)]
    stairs_up = [f"{x:.3f},{y:.3f}" for k, y in enumerate(down[1]) for x in across[k : k + 2]]
    stairs_down = [f"{across[k]:.3f},{down[0][k + step]:.3f}" for k in range(len(at) - 1) for step in (0, 1)]
    whole = [*stairs_up, *reversed([*stairs_down, f"{across[-1]:.3f},{down[0][-1]:.3f}"])]
    lines = "".join(f'<line class="grid" x1="0" x2="100" y1="{y}" y2="{y}"/>' for y in range(0, 101, 25))
    bars = "".join(
        f'<line class="open" x1="{x:.3f}" x2="{x:.3f}" y1="{a:.3f}" y2="{b:.3f}"/>'
        for x, a, b in zip(across, *down, strict=True)
        if a > b
    )
    points = "".join(
        f'<line class="point" x1="{x:.3f}" x2="{x:.3f}" y1="{y:.3f}" y2="{y:.3f}"/>'
        for x, y in zip(across, down[0], strict=True)
    )
    band = f'<polygon class="between" points="{" ".join(whole)}"/>'
    curves = _line("violated", across, down[1]) + _line("holds", across, down[0])
    shapes = f"{lines}{band}{curves}{bars}{points}"
    svg = Markup(f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>')
    texts = ["0", *curve.radii]
    ticks, last = list[Tick](), -100.0
    for x, text in zip(across, texts, strict=True):
        if x - last >= 6 or x == 100.0:  # labels that would lie on each other are left out
            ticks.append(Tick(x, text))
            last = x
    return CurvePlot(svg, ticks, [Tick(float(y), f"{100 - y} %") for y in range(0, 101, 25)])


def write_curve_page(
    path: Path,
    curve: AccuracyCurve,
    shown: Sequence[SampleResult],
    images: NDArray[Any],
    stored_shape: tuple[int, ...],
) -> None:
    """Write `report.html`. shown: the samples at all radii, with counterexamples as pixels; images, stored_shape: as of
    `write_page`."""
    by_sample: dict[int, list[SampleResult]] = {}
    for row in shown:
        by_sample.setdefault(row.index, []).append(row)
    samples = [Radii.of(rows) for _, rows in sorted(by_sample.items())]
    closest = [_closest(by_sample[sample.index]) for sample in samples]
    cards, kind, missing = gallery([row for row in closest if row is not None], images, stored_shape)
    table, counts = SAMPLES.shown(samples), Counter(sample.verdict for sample in samples)
    points = [
        {
            **CURVE.record(point),
            "accuracy": _accuracy(point.summary["adversarial_error"]),
            "counts": {verdict: point.summary[verdict] for verdict in VERDICTS},
        }
        for point in curve.points
    ]
    html = (
        environment()
        .get_template("curve.html")
        .render(
            summary=curve.summary,
            preprocessing=curve.preprocessing,
            about=ABOUT[curve.summary["arithmetic"]],
            headline=f"{points[0]['accuracy']} to {points[-1]['accuracy']}",
            undecided=counts["unknown"],
            points=points,
            plot=curve_plot(curve),
            trusted=Counter(name for row in shown for name in row.trusted if not row.decided_at),
            counts={verdict: counts[verdict] for verdict in VERDICTS},
            classes=[(label, {}) for label in sorted({sample.label for sample in samples})],
            name_of=partial(class_name, curve.class_names),
            violated=len(cards) + missing,
            missing=missing,
            columns=table["columns"],
            data=embedded({**table, "gallery": cards, "kind": kind, "names": list(curve.class_names)}),
        )
    )
    with Replacing(path) as file:
        file.write(html)


def _closest(rows: Sequence[SampleResult]) -> SampleResult | None:
    """The counterexample at the smallest radius, if there is one."""
    return next((row for row in rows if row.verdict == "violated"), None)


def _accuracy(error: dict[str, float]) -> str:
    lower, upper = 1 - error["upper"], 1 - error["lower"]
    return percent(lower) if lower == upper else f"{percent(lower)[:-2]}–{percent(upper)}"


def _line(kind: str, across: Sequence[float], down: Sequence[float]) -> str:
    points = " ".join(f"{x:.3f},{y:.3f}" for x, y in zip(across, down, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _number(eps: str) -> float:
    return float(Fraction(eps))
