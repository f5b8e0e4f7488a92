"""The page of a benchmark in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipverify.benchmark.columns import Outcome
from mipverify.benchmark.others import Answer, Tool
from mipverify.benchmark.page import write_page
from mipverify.benchmark.run import BenchmarkResult, summary_of
from mipverify.benchmark.score import score
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
  seen.contradictions = texts($$("#contradictions li"));
  seen.tools = $$("section[aria-labelledby=tools] tbody tr").map((row) => texts([...row.cells]));
  seen.curves = $$("polyline").length;
  seen.points = $$("path.point").length;
  seen.resources = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
  seen.overflow = document.documentElement.scrollWidth > window.innerWidth;
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
    def make(name: str = "other") -> Path:
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
        answers = {index: Answer("holds", 1.0 + index) for index in range(0, 60, 5)} | {1: Answer("holds", 1.0)}
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
    assert seen["contradictions"] == [
        "mipverify: violated in 1.50 s; its counterexample: correct",
        "other: holds in 1.00 s — wrong",
    ]
    assert [row[:2] for row in seen["tools"]] == [["mipverify", "240"], ["other", "-30"]]
    assert (seen["curves"], seen["points"]) == (2, 24)
    assert seen["unlabelled"] == 0


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_hostile_names_stay_text(make_page, width):
    seen = browse(PROBE, make_page(HOSTILE), width=width)
    assert seen["hacked"] is None
    assert seen["errors"] == seen["violations"] == []
    assert not seen["overflow"]
