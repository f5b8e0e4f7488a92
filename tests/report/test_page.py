"""The page in a real browser, with every kind of input and with hostile names."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest

from mipverify.report.images import image_layout, picture, png, signed_picture
from mipverify.report.page import breakable, embedded, write_page
from mipverify.report.summary import summarize
from tests.report.browser import browse, needs_browser

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u2028&\"'"

# Runs inside the page, after it: uses it as a reader would and notes what is to be seen.
PROBE = """
<script>
window.addEventListener("load", () => {
  const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];
  const column = (at) => $$("#rows tr").map((row) => row.cells[at]?.textContent);
  const click = (s) => $(s).click();
  const seen = { hacked: window.hacked ?? null, errors: window.errors, violations: window.violations };
  seen.start = { rows: $$("#rows tr").length, first: column(0)[0], status: $("#status").textContent };
  click('button[data-key="5"]');
  seen.slowest = { seconds: column(5), sort: $('th:nth-child(6)').getAttribute("aria-sort") };
  click('button[data-key="5"]');
  seen.quickest = { seconds: column(5), sort: $('th:nth-child(6)').getAttribute("aria-sort") };
  click('button[data-key="6"]');
  seen.margins = column(6);
  click('button[data-key="0"]');
  click('#table-pager [data-step="1"]');
  seen.second = { first: column(0)[0], status: $("#status").textContent };
  click('#chips [data-verdict="2"]');
  seen.violated = { verdicts: column(3), status: $("#status").textContent };
  click('#chips [data-verdict=""]');
  const search = $("#search");
  search.value = "17"; search.dispatchEvent(new Event("input"));
  seen.search = column(0);
  search.value = "no such thing"; search.dispatchEvent(new Event("input"));
  seen.nothing = $("#rows").textContent;
  search.value = ""; search.dispatchEvent(new Event("input"));
  const label = $("#label");
  label.value = "3"; label.dispatchEvent(new Event("change"));
  seen.label = column(1);
  label.value = ""; label.dispatchEvent(new Event("change"));
  const link = $("#rows .link");
  if (link) { link.click(); seen.focus = document.activeElement.id; }
  const images = $$("#cards img");
  Promise.all(images.map((image) => image.decode().catch(() => null))).then(() => {
    seen.images = images.map((image) => [image.naturalWidth, image.naturalHeight]);
    seen.alternatives = images.map((image) => image.alt);
    seen.cards = $$("#cards .card").length;
    seen.bars = $$("#cards svg.delta").length;
    seen.title = document.title;
    seen.heading = $("h1").textContent;
    seen.unlabelled = $$("button, input, select").filter(
      (node) => !(node.textContent.trim() || node.ariaLabel || node.closest("label"))).length;
    seen.resources = performance.getEntriesByType("resource").map((entry) => entry.name).filter(
      (name) => !name.startsWith("data:"));
    seen.overflow = document.documentElement.scrollWidth > window.innerWidth;
    const out = document.createElement("pre");
    out.id = "seen";
    out.textContent = "SEEN" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "SEEN";
    document.body.append(out);
  });
});
</script>
"""


@pytest.fixture
def make_page(tmp_path, configuration, make_results):
    def make(images, *, name="net.onnx", reason="", count=None):
        from dataclasses import replace

        results = make_results(len(images) if count is None else count, size=images[0].size)
        results = [replace(r, reason=reason, stage=reason or r.stage) if r.verdict == "unknown" else r for r in results]
        question = replace(configuration, network=name, data=name)
        summary = summarize(
            results,
            question,
            selection=range(len(results)),
            seconds=3.0,
            sessions=1,
            version="0",
            options={"timeout": 1.0, "workers": 1, "solver": name, "seed": 0},
        )
        page = tmp_path / "report.html"
        write_page(page, summary, results, images, images.shape[1:], preprocessing=name)
        return page

    return make


@needs_browser
def test_sorting_filtering_and_pictures(make_page):
    seen = browse(PROBE, make_page(np.random.default_rng(0).random((120, 1, 6, 5)).astype(np.float32)))
    assert seen["errors"] == []
    assert seen["violations"] == []
    assert seen["resources"] == []
    assert seen["start"] == {"rows": 50, "first": "0", "status": "Samples 1–50 of 120"}
    slowest, quickest = ([float(s) for s in seen[name]["seconds"]] for name in ("slowest", "quickest"))
    assert slowest == sorted(slowest, reverse=True)
    assert quickest == sorted(quickest)
    assert slowest[0] > quickest[-1] or len(slowest) < 120
    assert (seen["slowest"]["sort"], seen["quickest"]["sort"]) == ("descending", "ascending")
    margins = [float(margin) for margin in seen["margins"]]
    assert margins == sorted(margins)
    assert seen["second"] == {"first": "50", "status": "Samples 51–100 of 120"}
    assert seen["violated"]["verdicts"] == ["violated show"] * 2
    assert seen["violated"]["status"] == "Samples 1–2 of 2"
    assert seen["search"] == ["17"]
    assert "No sample matches" in seen["nothing"]
    assert set(seen["label"]) == {"3"}
    assert seen["focus"] == "sample-1"
    assert seen["images"] == [[5, 6]] * 6
    assert seen["alternatives"][2] == "Adversarial input, classified as 4"
    assert seen["unlabelled"] == 0


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_hostile_names_stay_text(make_page, width):
    page = make_page(np.zeros((12, 1, 4, 4)), name="dir/" + HOSTILE, reason=HOSTILE)
    seen = browse(PROBE, page, width=width)
    assert seen["hacked"] is None
    assert seen["errors"] == []
    assert seen["violations"] == []
    assert seen["heading"] in HOSTILE  # the part after the last slash
    assert not seen["overflow"]


@needs_browser
def test_colour_images(make_page):
    seen = browse(PROBE, make_page(np.random.default_rng(0).random((12, 3, 8, 9)).astype(np.float32)))
    assert seen["images"] == [[9, 8]] * 6
    assert seen["errors"] == []


@needs_browser
def test_inputs_that_are_no_images(make_page):
    seen = browse(PROBE, make_page(np.random.default_rng(0).random((12, 5)).astype(np.float32)))
    assert seen["images"] == []
    assert (seen["cards"], seen["bars"]) == (2, 10)
    assert seen["errors"] == []


@needs_browser
def test_nothing_violated(make_page):
    seen = browse(PROBE, make_page(np.zeros((1, 5)), count=1))
    assert seen["cards"] == 0
    assert seen["start"]["rows"] == 1
    assert seen["errors"] == []


def test_ten_thousand_samples_stay_small(make_page):
    page = make_page(np.zeros((10_000, 1, 2, 2), dtype=np.float32))
    assert page.stat().st_size < 1_500_000


def test_nothing_in_embedded_data_ends_the_script():
    text = str(embedded({"name": HOSTILE}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": HOSTILE}


def test_breakable_names_are_escaped():
    assert str(breakable("a_<b>")) == "a_<wbr>&lt;b&gt;"


def test_layouts():
    def layout(shape, stored=(), values=0.5):
        return image_layout(np.full((2, *shape), values), stored)

    assert layout((28, 28)).channels == 1
    assert layout((1, 1, 28, 28)).shape == (1, 28, 28)
    assert layout((3, 32, 32)).channels_first
    assert not layout((32, 32, 3)).channels_first
    assert layout((784,)).shape == (28, 28, 1)
    assert layout((784,), (28, 28)).shape == (28, 28, 1)
    assert layout((1, 12), (3, 4)).shape == (3, 4, 1)
    assert layout((784,), values=7.0) is None
    assert layout((5,)) is None
    assert layout((1, 1, 1, 5)) is None


def test_png_files_hold_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    data = png(pixels)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (4, 3)
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    rows = np.frombuffer(zlib.decompress(data[start : start + length]), dtype=np.uint8).reshape(3, 13)
    assert np.array_equal(rows[:, 1:].reshape(3, 4, 3), pixels)


def test_pictures_of_constant_inputs():
    layout = image_layout(np.zeros((1, 4, 4)), ())
    assert picture(np.zeros(16), layout).startswith("data:image/png;base64,")
    assert signed_picture(np.zeros(16), layout).startswith("data:image/png;base64,")
