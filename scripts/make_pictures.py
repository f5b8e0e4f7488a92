#!/usr/bin/env python
"""Draw the pictures of docs/gallery.md anew, from the networks and digits that come with the package.

    python scripts/make_pictures.py [--out docs/pictures] [--pages]

Needs the extras `plots` and, with --pages, Chromium, which takes the pictures of the report's page.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import mipverify

ZOO = files("mipverify.models.zoo")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    print(path)


def draw(out: Path) -> None:
    """Counterexamples, times, confusion and the curve over the radius."""
    from matplotlib import pyplot

    network = mipverify.load(str(ZOO / "mnist_stable_linf0.2.onnx"))
    data = mipverify.load_dataset(str(ZOO / "mnist_100.npz")).fit_to(network.input_shape)
    options: dict[str, Any] = {"workers": 0, "timeout": 30}
    result = mipverify.adversarial_accuracy(network, data.images, data.labels, eps="0.2", **options)
    save(result.plot_counterexamples(8), out / "counterexamples.png")
    save(result.plot_curve(pyplot.subplots(figsize=(5, 3.2))[1]).figure, out / "times.png")

    radii = ["0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
    curve = mipverify.adversarial_accuracy(network, data.images[:50], data.labels[:50], eps=radii, **options)
    save(curve.plot_curve(pyplot.subplots(figsize=(5, 3.2))[1]).figure, out / "curve.png")

    worst = mipverify.adversarial_accuracy(network, data.images[:50], data.labels[:50], eps="0.3", **options)
    save(worst.plot_confusion(pyplot.subplots(figsize=(4, 4))[1]).figure, out / "confusion.png")


def photograph(out: Path) -> None:
    """The page of a report in light, in dark, and on a phone."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("no Chromium was found")
    network, images = str(ZOO / "mnist_stable_linf0.2.onnx"), str(ZOO / "mnist_100.npz")
    with tempfile.TemporaryDirectory() as folder:
        data = mipverify.load_dataset(images)
        mipverify.adversarial_accuracy(network, data.images, data.labels, eps="0.2", out=f"{folder}/run", timeout=30)
        for name, width, height, dark in (("light", 1280, 1500, 0), ("dark", 1280, 1500, 1), ("phone", 500, 1500, 0)):
            picture = out / f"page-{name}.png"
            subprocess.run(
                [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                 f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={folder}/{name}",
                 f"--window-size={width},{height}", "--virtual-time-budget=5000", f"--screenshot={picture.resolve()}",
                 Path(folder, "run", "report.html").as_uri()],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            print(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    parser.add_argument("--pages", action="store_true", help="also of the report's page, by Chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out)
    if options.pages:
        photograph(options.out)


if __name__ == "__main__":
    main()
