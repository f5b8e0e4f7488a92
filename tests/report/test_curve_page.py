"""The page of a curve, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from mipverify.cli.main import main
from tests.report.browser import browse, needs_browser
from tests.report.test_curve import RADII, data_in, network_in

PROBE = """
<script>
window.addEventListener("load", () => {
  const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];
  const heads = $$("#table thead button").map((node) => node.textContent);
  const column = (name) => $$("#rows tr").map((row) => row.cells[heads.indexOf(name)]?.textContent);
  const seen = { heads, errors: window.errors, violations: window.violations };
  const svg = $(".area svg"), box = svg.getBoundingClientRect();
  seen.size = [box.width, box.height];
  seen.strokes = ["holds", "violated"].map((name) => getComputedStyle($(`.area polyline.${name}`)).stroke);
  seen.holds = $(".area polyline.holds").getAttribute("points");
  seen.ticks = $$(".area .x").map((node) => node.textContent);
  seen.label = $(".plot").getAttribute("aria-label");
  seen.radii = $$("section[aria-labelledby=radii] tbody th").map((node) => node.textContent);
  seen.holds_to = column("Holds up to"); seen.violated_from = column("Violated from");
  $('#chips [data-verdict="1"]').click();
  seen.held = column("Verdict");
  seen.overflow = document.documentElement.scrollWidth > window.innerWidth;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = "SEEN" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "SEEN";
  document.body.append(out);
});
</script>
"""


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_shows_the_curve_and_the_radii_of_every_sample(
    tmp_path: Path,
    width: int,
) -> None:
    run, network, data = tmp_path / "run", network_in(tmp_path), data_in(tmp_path)
    assert main(
        ["report", network, "--data", data, "--out", str(run), "--workers", "0", "-q", "--eps", ",".join(RADII)]
    ) == 0  # fmt: skip
    seen = browse(PROBE, run / "report.html", width=width)
    assert seen["errors"] == seen["violations"] == []
    assert not seen["overflow"]
    assert min(seen["size"]) > 100
    assert len(set(seen["strokes"])) == 2
    assert "none" not in seen["strokes"]
    ends = [float(point.split(",")[1]) for point in seen["holds"].split()]
    assert ends == pytest.approx([100 * (1 - share) for share in (5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)], abs=0.01)
    assert seen["ticks"] == ["0", *RADII]
    assert "At radius 0.2: 33.33" in seen["label"]
    assert seen["radii"] == list(RADII)
    assert seen["holds_to"][:6] == ["–", "0.0500", "0.1000", "0.2000", "0.3000", "–"]
    assert seen["violated_from"][:6] == ["0.0500", "0.1000", "0.2000", "0.3000", "–", "–"]
    assert seen["held"] == ["holds"] * 4
