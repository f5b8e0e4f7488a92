"""The page of a run: one HTML file that asks nothing of the network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.engine.verdict import ABOUT
from mipverify.report import plots
from mipverify.report.columns import SAMPLES
from mipverify.report.files import Replacing
from mipverify.report.live import duration
from mipverify.report.result import class_name, confused

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATES = Path(__file__).parent / "templates"

# Pictures beyond this size stay in the store: a page of more than some 20 MB is slow to open on a phone.
LARGEST_GALLERY = 16 * 1024 * 1024

# Pairs of a class and what it is taken for, the most frequent ones.
MOST_CONFUSED = 12

# Of an input that is not an image, so many values are shown, those that change most.
VALUES_SHOWN = 24


def write_page(
    path: Path,
    summary: dict[str, Any],
    results: Sequence[SampleResult],
    images: NDArray[Any],
    stored_shape: tuple[int, ...],
    *,
    preprocessing: str,
    class_names: tuple[str, ...] = (),
) -> None:
    """Write `report.html`. `images` (N, ...) are all inputs of the data set, found by the index of a sample.

    `stored_shape` is the shape of an image in the data file, which tells more where the network takes a flat input.
    `preprocessing` is what was done to stored values, in words; `class_names` what classes are called.
    """
    shown, kind, missing = gallery(results, images, stored_shape)
    table = SAMPLES.shown(results)
    classes = plots.by_class(results)
    html = (
        environment()
        .get_template("report.html")
        .render(
            summary=summary,
            preprocessing=preprocessing,
            about=ABOUT[summary["arithmetic"]],
            headline=headline(summary),
            counts={verdict: summary[verdict] for verdict in VERDICTS},
            classes=classes,
            confused=[(*pair, number) for pair, number in confused(list(results)).most_common(MOST_CONFUSED)],
            name_of=partial(class_name, class_names),
            largest_class=max((sum(counts.values()) for _, counts in classes), default=1),
            cactus=plots.cactus(results),
            spreads=plots.unstable_spreads(results),
            violated=summary["violated"],
            missing=missing,
            columns=table["columns"],
            data=embedded({**table, "gallery": shown, "kind": kind, "names": list(class_names)}),
        )
    )
    with Replacing(path) as file:
        file.write(html)


def environment(*folders: Path) -> Any:
    """Templates of reports, and of other folders, with everything escaped that does not come from this package."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader([TEMPLATES, *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["duration"] = duration
    env.filters["percent"] = percent
    env.filters["breakable"] = breakable
    env.globals["stacked"] = plots.stacked
    env.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    env.globals["table_script"] = Markup((TEMPLATES / "table.js").read_text(encoding="utf-8"))
    env.globals["script"] = Markup((TEMPLATES / "report.js").read_text(encoding="utf-8"))
    env.globals["verdicts"] = VERDICTS
    return env


def embedded(data: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def headline(summary: dict[str, Any]) -> dict[str, str]:
    """The interval of the adversarial error in the words of the page."""
    lower, upper = summary["adversarial_error"]["lower"], summary["adversarial_error"]["upper"]
    exact = summary["unknown"] == 0
    return {
        "kind": "Exact adversarial error" if exact else "Adversarial error, proven interval",
        "text": percent(lower) if exact else f"{percent(lower)[:-2]} to {percent(upper)}",
    }


def percent(fraction: float) -> str:
    """4.38 %; the space does not break."""
    return f"{100 * fraction:.2f}\u00a0%"


def breakable(name: str) -> Markup:
    """The name, escaped, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[_./-])", name))


def gallery(
    results: Sequence[SampleResult], images: NDArray[Any], stored_shape: tuple[int, ...]
) -> tuple[list[dict[str, Any]], str, int]:
    """What the page shows of each counterexample, `image` or `values`, and how many did not fit."""
    from mipverify.report.images import image_layout

    layout = image_layout(images, stored_shape)
    found = [result for result in results if result.verdict == "violated" and result.adversarial is not None]
    shown: list[dict[str, Any]] = []
    size = 0
    for result in found:
        entry = _pictures(result, images, layout) if layout is not None else _values(result, images)
        size += sum(len(value) for value in entry.values() if isinstance(value, str))
        if size > LARGEST_GALLERY:
            break
        shown.append(entry)
    return shown, "values" if layout is None else "image", len(found) - len(shown)


def _pictures(result: SampleResult, images: NDArray[Any], layout: Any) -> dict[str, Any]:
    from mipverify.report.images import picture, signed_picture

    original, point = _pair(result, images)
    low, high = min(0.0, float(original.min())), max(1.0, float(original.max()))
    return {
        **_labels(result),
        "original": picture(original, layout, low, high),
        "change": signed_picture(point - original, layout),
        "adversarial": picture(point, layout, low, high),
        "largest": round(float(abs(point - original).max()), 6),
    }


def _values(result: SampleResult, images: NDArray[Any]) -> dict[str, Any]:
    original, point = _pair(result, images)
    change = abs(point - original)
    chosen = sorted(sorted(range(len(point)), key=lambda at: -change[at])[:VALUES_SHOWN])
    return {
        **_labels(result),
        "values": [[at, round(float(original[at]), 6), round(float(point[at]), 6)] for at in chosen],
        "of": len(point),
        "largest": round(float(change.max()), 6),
    }


def _pair(result: SampleResult, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    assert result.adversarial is not None
    return images[result.index].reshape(-1).astype(np.float64), result.adversarial.astype(np.float64)


def _labels(result: SampleResult) -> dict[str, Any]:
    return {"index": result.index, "label": result.label, "predicted": result.adversarial_label}
