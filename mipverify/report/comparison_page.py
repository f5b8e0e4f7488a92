"""The page of a comparison of two networks: one HTML file that asks nothing of the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from mipverify.report.comparison_store import COMPARISONS, VERDICTS, ComparisonResult
from mipverify.report.files import Replacing
from mipverify.report.page import LARGEST_GALLERY, TEMPLATES, embedded, environment

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.report.comparisons import Comparisons
    from mipverify.specification.dataset import Dataset

ORDER = ("optimal", "holds", "violated", "bounded", "unknown")  # in the legend


def write_page(path: Path, found: Comparisons, data: Dataset, network: Network) -> None:
    """Write the page. Names and reasons may hold anything: all of it stays text."""
    table = COMPARISONS.shown(found.results)
    env = environment()
    env.globals["page_script"] = Markup((TEMPLATES / "comparison.js").read_text(encoding="utf-8"))
    summary = found.summary
    words = [word for word in ORDER if word in summary]
    html = env.get_template("comparison.html").render(
        summary=summary,
        headline=_headline(summary),
        words=words,
        all_verdicts=list(VERDICTS),
        preprocessing=found.preprocessing,
        columns=table["columns"],
        data=embedded({**table, "gallery": _gallery(found.results, data, network), "names": []}),
    )
    with Replacing(path) as file:
        file.write(html)


def _headline(summary: dict[str, Any]) -> dict[str, str]:
    """The answer for all samples in the words of the page."""
    if "difference" in summary:
        worst = summary["difference"]
        upper = "no bound" if worst["upper"] is None else f"{worst['upper']:.4g}"
        return {"kind": "Largest difference of an output", "text": f"{worst['lower']:.4g} to {upper}"}
    kind = "Same class" if summary["same_class"] else f"Within {summary['within']}"
    return {"kind": f"{kind} at samples", "text": f"{summary.get('holds', 0)} of {summary['samples']}"}


def _gallery(results: tuple[ComparisonResult, ...], data: Dataset, network: Network) -> list[dict[str, Any]]:
    """Pictures of the worst inputs, the worst sample first; none where inputs are no images."""
    from mipverify.report.images import image_layout, picture, signed_picture
    from mipverify.specification.normalization import Normalization

    fitted = data.fit_to(network.input_shape)
    layout = image_layout(fitted.images, data.image_shape)
    if layout is None:
        return []
    normalization = Normalization.of(fitted.mean, fitted.std, fitted.image_shape)
    shown: list[dict[str, Any]] = []
    size = 0
    for result in sorted(results, key=lambda one: -(one.difference or 0.0)):
        if result.witness is None:
            continue
        point = np.asarray(result.witness["input"], np.float64)
        point = point if normalization is None else np.asarray(normalization.undone(point), np.float64)
        original = fitted.images[result.index].reshape(-1).astype(np.float64)
        low, high = min(0.0, float(original.min())), max(1.0, float(original.max()))
        entry = {
            "index": result.index,
            "original": picture(original, layout, low, high),
            "change": signed_picture(point - original, layout),
            "worst": picture(point, layout, low, high),
            "difference": float(f"{result.difference or 0.0:.4g}"),
            "output": result.output,
            "first": result.first,
            "second": result.second,
        }
        size += sum(len(value) for value in entry.values() if isinstance(value, str))
        if size > LARGEST_GALLERY:
            break
        shown.append(entry)
    return shown
