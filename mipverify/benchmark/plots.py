"""Plots of benchmarks as inline SVG: shapes stretch with the page, every text is HTML beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mipverify.benchmark.columns import SOLVED, Outcome
from mipverify.benchmark.others import Tool
from mipverify.benchmark.score import Scores, within
from mipverify.report.plots import POINTS, Tick, round_step, seconds_of

SHORTEST = 0.01  # seconds, where a logarithmic scale begins
COLOURS = 8  # tools that can be told apart


@dataclass(frozen=True)
class Plot:
    """A plot: shapes, labels of both axes, and the curves' names with the class that colours each."""

    svg: Markup
    horizontal: list[Tick]
    vertical: list[Tick]
    keys: list[tuple[str, str]]
    name: str = ""


def colour_of(number: int) -> str:
    """The style class of a tool; those beyond the palette share the last one."""
    return f"tool{min(number, COLOURS - 1)}"


def cactus(scores: Scores) -> Plot | None:
    """How many instances each tool solves within which time each."""
    times = {tool: sorted(max(t, SHORTEST) for t in scores.standings[tool, ""].times) for tool in scores.tools}
    if not any(times.values()):
        return None
    most = max(map(len, times.values()))
    low, high = _decades([value for values in times.values() for value in values])
    curves, keys = [], []
    for number, (tool, values) in enumerate(times.items()):
        keys.append((colour_of(number), tool))
        if not values:
            continue
        chosen = sorted({round(i * (len(values) - 1) / (POINTS - 1)) for i in range(POINTS)})
        points = [f"{100 * (at + 1) / most:.3f},{_at(values[at], low, high):.3f}" for at in chosen]
        first = points[0].split(",")[1]
        curves.append(f'<polyline class="{colour_of(number)}" points="0,{first} {" ".join(points)}"/>')
    horizontal = [Tick(100.0 * count / most, f"{count:,}") for count in range(0, most + 1, round_step(most / 4))]
    return Plot(_svg(_grid(low, high) + "".join(curves)), horizontal, _ticks(low, high), keys)


def scatter(outcomes: Sequence[Outcome], tool: Tool, number: int) -> Plot | None:
    """Our time against another tool's, a point for each instance that one of both decides; the edge is its limit."""
    pairs = []
    for outcome in outcomes:
        answer = within(tool.answers.get(outcome.index), outcome.limit)
        if outcome.verdict not in SOLVED and answer.verdict not in SOLVED:
            continue
        mine = outcome.seconds if outcome.verdict in SOLVED else outcome.limit
        theirs = answer.seconds if answer.verdict in SOLVED else outcome.limit
        pairs.append((max(mine, SHORTEST), max(theirs, SHORTEST), outcome.verdict))
    if not pairs:
        return None
    low, high = _decades([time for mine, theirs, _ in pairs for time in (mine, theirs)])
    points = "".join(
        # A line of no length with round ends is a point that stays round however the plot is stretched.
        f'<path class="point {verdict}" d="M{100 - _at(theirs, low, high):.3f} {_at(mine, low, high):.3f}h0"/>'
        for mine, theirs, verdict in pairs
    )
    diagonal = '<line class="grid" x1="0" y1="100" x2="100" y2="0"/>'
    keys = [(verdict, verdict) for verdict in dict.fromkeys(verdict for _, _, verdict in pairs)]
    horizontal = [Tick(100 - tick.at, tick.text) for tick in _ticks(low, high)]
    return Plot(_svg(_grid(low, high) + diagonal + points), horizontal, _ticks(low, high), keys, tool.name)


def _decades(times: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(times)))
    return low, max(math.ceil(math.log10(max(times))), low + 1)


def _at(seconds: float, low: int, high: int) -> float:
    """Percent of the height from above."""
    return 100.0 * (high - math.log10(seconds)) / (high - low)


def _ticks(low: int, high: int) -> list[Tick]:
    return [Tick(100.0 * (high - power) / (high - low), seconds_of(power)) for power in range(low, high + 1)]


def _grid(low: int, high: int) -> str:
    heights = (tick.at for tick in _ticks(low, high))
    return "".join(f'<line class="grid" x1="0" x2="100" y1="{y:.3f}" y2="{y:.3f}"/>' for y in heights)


def _svg(inner: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{inner}</svg>')
