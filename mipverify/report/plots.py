"""Plots of a run as inline SVG. Shapes stretch with the page; every text is HTML beside them and stays readable."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mipverify.engine.sample import VERDICTS, SampleResult

# Order in a stacked bar: what counts as an error first, so that the bar reads like the headline interval.
STACK = ("misclassified", "violated", "unknown", "holds")

SHORTEST, POINTS = 1e-4, 300


@dataclass(frozen=True)
class Tick:
    """A label on an axis, `at` percent of its length."""

    at: float
    text: str


@dataclass(frozen=True)
class Cactus:
    """How many samples were decided within which time each."""

    svg: Markup
    horizontal: list[Tick]
    vertical: list[Tick]
    verdicts: list[str]


@dataclass(frozen=True)
class Spread:
    """The distribution of a count over the samples."""

    name: str
    svg: Markup
    low: int
    median: int
    high: int


def stacked(counts: dict[str, int], total: int | None = None, order: Sequence[str] = STACK) -> Markup:
    """A horizontal bar of verdicts; `total` is the count that fills it."""
    whole = total or sum(counts.values()) or 1
    parts, at = [], 0.0
    for verdict in order:
        width = 100.0 * counts.get(verdict, 0) / whole
        if width > 0:
            # A sliver stays visible: half a percent is two pixels on a phone.
            shown = max(width, 0.5)
            parts.append(f'<rect class="{verdict}" x="{at:.3f}%" y="0" width="{shown:.3f}%" height="100%"/>')
            at += width
    return Markup(f'<svg class="bar" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def cactus(results: Sequence[SampleResult]) -> Cactus | None:
    """Sorted times of the decided samples, one curve a verdict, on a logarithmic scale."""
    times = {
        verdict: sorted(max(r.seconds, SHORTEST) for r in results if r.verdict == verdict)
        for verdict in ("holds", "violated")
    }
    times = {verdict: values for verdict, values in times.items() if values}
    if not times:
        return None
    most = max(map(len, times.values()))
    low = math.floor(math.log10(min(values[0] for values in times.values())))
    high = max(math.ceil(math.log10(max(values[-1] for values in times.values()))), low + 1)
    lines = "".join(
        f'<line class="grid" x1="0" x2="100" y1="{y:.3f}" y2="{y:.3f}"/>'
        for y in (100.0 * (high - power) / (high - low) for power in range(low, high + 1))
    )
    curves = "".join(_curve(verdict, values, most, low, high) for verdict, values in times.items())
    svg = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{lines}{curves}</svg>'
    step = round_step(most / 4)
    return Cactus(
        Markup(svg),
        [Tick(100.0 * count / most, f"{count:,}") for count in range(0, most + 1, step)],
        [Tick(100.0 * (high - power) / (high - low), seconds_of(power)) for power in range(low, high + 1)],
        list(times),
    )


def unstable_spreads(results: Sequence[SampleResult]) -> list[Spread]:
    """For each layer the number of unstable ReLUs a sample has: 5 to 95 percent, quartiles and median."""
    layers: dict[int, list[int]] = defaultdict(list)
    for result in results:
        for layer, count in enumerate(result.unstable):
            layers[layer].append(count)
    largest = max((max(counts) for counts in layers.values()), default=0) or 1
    spreads = []
    for layer in sorted(layers):
        counts = sorted(layers[layer])
        p5, q1, median, q3, p95 = (_quantile(counts, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
        at = [100.0 * value / largest for value in (p5, q1, median, q3, p95)]
        svg = (
            f'<svg class="spread" aria-hidden="true" focusable="false">'
            f'<line class="whisker" x1="{at[0]:.2f}%" x2="{at[4]:.2f}%" y1="50%" y2="50%"/>'
            f'<rect class="box" x="{at[1]:.2f}%" y="15%" width="{max(at[3] - at[1], 0.4):.2f}%" height="70%" rx="2"/>'
            f'<line class="median" x1="{at[2]:.2f}%" x2="{at[2]:.2f}%" y1="0" y2="100%"/></svg>'
        )
        spreads.append(Spread(f"Layer {layer + 1}", Markup(svg), counts[0], median, counts[-1]))
    return spreads


def by_class(results: Sequence[SampleResult]) -> list[tuple[int, dict[str, int]]]:
    """Counts of the verdicts for each label."""
    table: dict[int, dict[str, int]] = {}
    for result in results:
        counts = table.setdefault(result.label, dict.fromkeys(VERDICTS, 0))
        counts[result.verdict] += 1
    return sorted(table.items())


def _curve(verdict: str, values: list[float], most: int, low: int, high: int) -> str:
    chosen = sorted({round(i * (len(values) - 1) / (POINTS - 1)) for i in range(POINTS)})
    points = [
        f"{100.0 * (at + 1) / most:.3f},{100.0 * (high - math.log10(values[at])) / (high - low):.3f}" for at in chosen
    ]
    first = points[0].split(",")[1]
    return f'<polyline class="{verdict}" points="0,{first} {" ".join(points)}"/>'


def _quantile(ordered: list[int], q: float) -> int:
    return ordered[round(q * (len(ordered) - 1))]


def round_step(wanted: float) -> int:
    """The largest of 1, 2, 5, 10, 20, … that is not above `wanted`, or 1."""
    power = 10 ** math.floor(math.log10(max(wanted, 1.0)))
    return max(int(next(factor * power for factor in (5, 2, 1) if factor * power <= max(wanted, 1.0))), 1)


def seconds_of(power: int) -> str:
    """Ten to a power seconds, in words."""
    return {-4: "0.1 ms", -3: "1 ms", -2: "10 ms", -1: "0.1 s", 0: "1 s"}.get(power, f"{10**power:,} s")
