"""The page of a benchmark in a real browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from mipverify.benchmark.columns import Outcome
from mipverify.benchmark.others import Answer, Tool
from mipverify.benchmark.page import write_page
from mipverify.benchmark.run import BenchmarkResult, summary_of
from mipverify.benchmark.score import score
from mipverify.cli.main import main
from tests.report.browser import browse, needs_browser

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u2028&\"'"

PROBE = """
<script>
window.addEventListener("load", () => {
  const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];
  const column = (at) => $$("#rows tr").map((row) => row.cells[at]?.textContent);
  const seen = { hacked: window.hacked ?? null, errors: window.errors, violations: window.violations };
  const texts = (nodes) => nodes.map((node) => node.textContent.trim());
  seen.start = { status: $("#status").textContent, heads: texts($$("#table thead th")) };
  $('button[data-key="5"]').click();
  seen.slowest = column(5);
  $('#chips [data-verdict="1"]').click();
  seen.violated = column(4);
  $('#chips [data-verdict=""]').click();
  $("#benchmark").value = "1"; $("#benchmark").dispatchEvent(new Event("change"));
  seen.benchmark = column(1);
  $("#benchmark").value = ""; $("#benchmark").dispatchEvent(new Event("change"));
  $("#search").value = "net_7"; $("#search").dispatchEvent(new Event("input"));
  seen.search = column(2);
  $("#search").value = "no such thing"; $("#search").dispatchEvent(new Event("input"));
  seen.nothing = $("#rows").textContent;
  seen.contradictions = texts($$("#contradictions li"));
  seen.settled = texts($$("#contradictions article > p"));
  seen.folded = $$("#contradictions details article").length;
  seen.tools = $$("section[aria-labelledby=tools] tbody tr").map((row) => texts([...row.cells]));
  seen.benchmarks = Object.fromEntries($$(".columns section:has(table)").map((one) => [
    one.ariaLabel, [...one.querySelectorAll("tbody tr")].map((row) => texts([...row.cells]))]));
  seen.curves = $$("polyline").length;
  seen.points = $$("path.point").length;
  const colours = (nodes, name) => Object.fromEntries(
    nodes.map((node) => [[...node.classList].at(-1), getComputedStyle(node)[name]]));
  seen.colours = [colours($$("path.point"), "stroke"), colours($$(".scatter .swatch"), "backgroundColor")];
  seen.resources = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
  seen.overflow = document.documentElement.scrollWidth > window.innerWidth;
  seen.cut = $$(".scroll:has(.plain)").filter((node) => node.scrollWidth > node.clientWidth).length;
  seen.unlabelled = $$("button, input, select").filter(
    (node) => !(node.textContent.trim() || node.ariaLabel || node.closest("label"))).length;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = "SEEN" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "SEEN";
  document.body.append(out);
});
</script>
"""


@pytest.fixture
def make_page(tmp_path):
    def make(name: str = "other", more: Mapping[int, Answer] = MappingProxyType({})) -> Path:
        verdicts = ("holds", "violated", "timeout", "unknown", "error")
        outcomes = []
        for index in range(60):
            verdict = verdicts[index % 5]
            outcomes.append(
                Outcome(
                    index,
                    ("acasxu", "zoo")[index % 2] if name == "other" else name,
                    f"onnx/net_{index}.onnx",
                    f"vnnlib/{name}.vnnlib",
                    "",
                    "",
                    verdict,
                    0.5 + index,
                    100.0,
                    reason=name if verdict == "error" else "",
                    replay="correct" if verdict == "violated" else "",
                    witness=f"((X_0 {name}))" if verdict == "violated" else None,
                )
            )
        answers = {index: Answer("holds", 1.0 + index) for index in range(0, 60, 5)} | {1: Answer("holds", 1.0)} | more
        tools = [Tool(name, None, answers)]
        scores = score(outcomes, tools)
        page = tmp_path / "benchmark.html"
        result = BenchmarkResult(tuple(outcomes), scores, tuple(tools), tmp_path, summary_of(name, outcomes, scores))
        write_page(page, result)
        return page

    return make


@needs_browser
def test_sorting_filtering_and_what_is_told(make_page):
    seen = browse(PROBE, make_page())
    assert seen["errors"] == seen["violations"] == seen["resources"] == []
    assert seen["start"]["status"] == "Instances 1–50 of 60"
    assert seen["start"]["heads"][:6] == ["Index", "Benchmark", "Network", "Property", "Verdict", "Seconds"]
    slowest = [float(text) for text in seen["slowest"]]
    assert slowest == sorted(slowest, reverse=True)
    assert slowest[0] == 59.5
    assert set(seen["violated"]) == {"violated"}
    assert len(seen["violated"]) == 12
    assert set(seen["benchmark"]) == {"zoo"}
    assert seen["search"] == ["net_7"]
    assert "No instance matches" in seen["nothing"]
    assert seen["contradictions"] == [
        "mipverify: violated in 1.50 s; its counterexample: correct",
        "other: holds in 1.00 s — wrong",
    ]
    assert seen["settled"] == ["Counterexample of mipverify: ((X_0 other))"]
    assert [row[:2] for row in seen["tools"]] == [["mipverify", "240"], ["other", "-30"]]
    assert {name: [row[:2] for row in rows] for name, rows in seen["benchmarks"].items()} == {
        "acasxu": [["mipverify", "120"], ["other", "60"]],
        "zoo": [["mipverify", "120"], ["other", "-90"]],
    }
    assert (seen["curves"], seen["points"]) == (2, 24)
    points, legend = seen["colours"]
    assert points == legend, "points have the colours of their names below"
    assert seen["cut"] == 0
    assert seen["unlabelled"] == 0


@needs_browser
def test_what_the_command_writes_beside_other_tools(make_benchmark, tmp_path):
    """Of a folder of benchmarks, with one tool that is right and one that contradicts counterexamples."""
    make_benchmark([0.5, 2, 3], "tiny")
    make_benchmark([0.25, 4], "wee")
    for name, says in (
        ("careful", lambda threshold: "sat" if threshold <= 1 else "unsat"),
        ("hasty", lambda _: "unsat"),
    ):
        rows = [("tiny", 0.5), ("tiny", 2), ("tiny", 3), ("wee", 0.25), ("wee", 4)]
        place = tmp_path / "tools" / name
        place.mkdir(parents=True)
        (place / "results.csv").write_text(
            "".join(
                f"{benchmark},onnx/net.onnx,vnnlib/above_{threshold:g}.vnnlib,0,{says(threshold)},0.2\n"
                for benchmark, threshold in rows
            )
        )
    out, against = tmp_path / "run", str(tmp_path / "tools")
    assert main(["benchmark", str(tmp_path / "benchmarks"), "--out", str(out), "--against", against, "--quiet"]) == 0
    seen = browse(PROBE, out / "benchmark.html")
    assert seen["errors"] == seen["violations"] == seen["resources"] == []
    assert seen["start"]["status"] == "Instances 1–5 of 5"
    scores = {row[0]: row[1] for row in seen["tools"]}
    assert scores == {"mipverify": "50", "careful": "50", "hasty": "-270"}
    assert {name: {row[0]: row[1] for row in rows} for name, rows in seen["benchmarks"].items()} == {
        "tiny": {"mipverify": "30", "careful": "30", "hasty": "-130"},
        "wee": {"mipverify": "20", "careful": "20", "hasty": "-140"},
    }
    assert (seen["curves"], seen["points"]) == (3, 10)
    assert [line.split(" in ")[0] for line in seen["contradictions"]] == [
        "mipverify: violated",
        "careful: violated",
        "hasty: holds",
    ] * 2
    for text in seen["settled"]:
        assert text.startswith("Counterexample of mipverify: ((X_0 ")
        assert "(X_1 0.1)" in text
    assert seen["violated"] == ["violated"] * 2


@needs_browser
def test_of_many_contradictions_those_against_us_come_first(make_page):
    """And the others unfold; a counterexample of another tool is shown, also one that came after our limit."""
    refuting = Answer("violated", 200.0, "correct", "((X_0 0.75))")
    page = make_page(more={50: refuting} | {index: Answer("holds", 1.0) for index in range(1, 41, 5)})
    seen = browse(PROBE, page)
    assert seen["contradictions"][:2] == [
        "mipverify: holds in 50.50 s — wrong",
        "other: violated in 200.00 s, after the limit; its counterexample: correct",
    ]
    assert seen["settled"][0] == "Counterexample of other: ((X_0 0.75))"
    assert (len(seen["settled"]), seen["folded"]) == (9, 4)


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_hostile_names_stay_text(make_page, width):
    seen = browse(PROBE, make_page(HOSTILE), width=width)
    assert seen["hacked"] is None
    assert seen["errors"] == seen["violations"] == []
    assert not seen["overflow"]
