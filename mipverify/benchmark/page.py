"""The page of a benchmark: one HTML file that asks nothing of the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from mipverify.benchmark import plots
from mipverify.benchmark.check import CORRECT
from mipverify.benchmark.columns import OUTCOMES, VERDICTS, short
from mipverify.benchmark.score import MINE, Contradiction, Scores
from mipverify.report.files import Replacing
from mipverify.report.page import embedded, environment

if TYPE_CHECKING:
    from mipverify.benchmark.run import BenchmarkResult

TEMPLATES = Path(__file__).parent / "templates"
ORDER = ("holds", "violated", "timeout", "unknown", "error")  # of a bar
SHOWN_AT_ONCE = 5  # contradictions; the others unfold
_INPUTS_SHOWN = 400  # characters of a witness


@dataclass(frozen=True)
class Row:
    """A line of the table of tools: its standing on some instances, and the percentage of the best score there."""

    name: str
    colour: str
    standing: object
    percent: float


def write_page(path: Path, result: BenchmarkResult) -> None:
    """Write the page. Names and reasons may hold anything: all of it stays text."""
    scores = result.scores
    table = OUTCOMES.shown(result.outcomes)
    env = environment(TEMPLATES)
    env.globals["page_script"] = Markup((TEMPLATES / "benchmark.js").read_text(encoding="utf-8"))
    env.globals["page_style"] = Markup((TEMPLATES / "benchmark.css").read_text(encoding="utf-8"))
    env.filters["short"] = short
    html = env.get_template("benchmark.html").render(
        summary=result.summary,
        whole=scores.standings[MINE, ""],
        rows=tool_rows(scores, ""),
        benchmarks=[(name, tool_rows(scores, name)) for name in scores.benchmarks],
        cactus=plots.cactus(scores),
        scatters=[
            found
            for number, tool in enumerate(result.tools, 1)
            if (found := plots.scatter(result.outcomes, tool, number)) is not None
        ],
        # Those that say that we are wrong first.
        contradictions=[
            _contradiction(one) for one in sorted(scores.contradictions, key=lambda one: MINE not in one.wrong)
        ],
        shown_at_once=SHOWN_AT_ONCE,
        order=ORDER,
        all_verdicts=VERDICTS,
        columns=table["columns"],
        names=next(column["texts"] for column in table["columns"] if column["name"] == "benchmark"),
        data=embedded(table),
    )
    with Replacing(path) as file:
        file.write(html)


def tool_rows(scores: Scores, benchmark: str) -> list[Row]:
    """The tools on a benchmark, or on all for an empty name, the best score first."""
    found = [(scores.standings[tool, benchmark], number, tool) for number, tool in enumerate(scores.tools)]
    best = max(standing.score for standing, _, _ in found)
    rows = [
        Row(tool, plots.colour_of(number), standing, 100 * max(standing.score, 0) / best if best > 0 else 0.0)
        for standing, number, tool in found
    ]
    return sorted(rows, key=lambda row: -row.percent)


def _contradiction(one: Contradiction) -> dict[str, object]:
    given = {tool: answer for tool, answer in one.answers.items() if answer.counterexample}
    # One that counts settles the matter; else what was given says why it does not count.
    whose = next((tool for tool, answer in given.items() if answer.witness == CORRECT), next(iter(given), ""))
    witness = given[whose].counterexample if whose else ""
    return {
        "outcome": one.outcome,
        "truth": one.truth,
        "answers": [
            (tool, answer, tool in one.wrong) for tool, answer in one.answers.items() if answer.verdict != "unknown"
        ],
        "whose": whose,
        "witness": witness if len(witness) <= _INPUTS_SHOWN else witness[:_INPUTS_SHOWN] + " …",
    }
