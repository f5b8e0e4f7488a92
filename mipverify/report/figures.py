"""Figures of a run, with matplotlib."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.engine.sample import SampleResult
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.report.curve import AccuracyCurve
    from mipverify.report.result import AccuracyResult

SHORTEST = 1e-4  # seconds, the least that is told apart
MOST_CLASSES = 30  # that have room for numbers and names


def curve(samples: tuple[SampleResult, ...], ax: Any = None) -> Any:
    """Sorted times of the decided samples, one curve a verdict, with a logarithmic axis of time."""
    ax = _pyplot().subplots()[1] if ax is None else ax
    for verdict in ("holds", "violated"):
        times = np.sort([max(s.seconds, SHORTEST) for s in samples if s.verdict == verdict])
        if len(times):
            ax.step(times, np.arange(1, len(times) + 1), where="post", label=verdict)
    ax.set(xscale="log", xlabel="seconds a sample", ylabel="samples decided")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def accuracy_curve(found: AccuracyCurve, ax: Any = None) -> Any:
    """Adversarial accuracy over the radius, from the clean accuracy at 0: what is proven, and up to what is open."""
    ax = _pyplot().subplots()[1] if ax is None else ax
    errors = [point.summary["adversarial_error"] for point in found.points]
    clean = 1 - found.summary["clean_error"]
    radii = [0.0, *(float(Fraction(eps)) for eps in found.radii)]
    lower, upper = ([clean, *(1 - error[side] for error in errors)] for side in ("upper", "lower"))
    (line,) = ax.plot(radii, lower, marker="o", label="proven")
    if lower != upper:
        ax.plot(radii, upper, marker="o", linestyle="--", color=line.get_color(), label="not refuted")
        ax.fill_between(radii, lower, upper, alpha=0.2, color=line.get_color())
        ax.legend()
    ax.set(xlabel="radius", ylabel="adversarial accuracy", ylim=(0.0, 1.02))
    return ax


def confusion(result: AccuracyResult, ax: Any = None) -> Any:
    """Classes of samples by the classes that they are, or can be, taken for; the diagonal, what is proven, is grey.

    It has a colour of its own because it holds most samples of a robust network: the rest would look alike.
    """
    counts = result.confusion()
    if not counts.any():
        raise InputError("there is no decided sample to show")
    ax = _pyplot().subplots()[1] if ax is None else ax
    proven = np.eye(len(counts), dtype=bool)
    others = np.ma.masked_where(proven, counts)
    most = max(int(others.max()), 1) if len(counts) > 1 else 1
    ax.imshow(np.where(proven, 0.08, np.nan), cmap="Greys", vmin=0.0, vmax=1.0)
    ax.imshow(others, cmap="Reds", vmin=0, vmax=most)
    if len(counts) <= MOST_CLASSES:
        for row, column in np.argwhere(counts):
            light = row != column and counts[row, column] > most / 2
            ax.text(column, row, counts[row, column], ha="center", va="center", color="white" if light else "black")
        names = [result.name_of(label) for label in range(len(counts))]
        ax.set_xticks(range(len(counts)), names, rotation=45 if result.class_names else 0, parse_math=False)
        ax.set_yticks(range(len(counts)), names, parse_math=False)
    ax.set(xlabel="is, or can be made", ylabel="class")
    return ax


def counterexamples(result: AccuracyResult, count: int) -> Any:
    """Images, what was changed, and what became of them, one column each."""
    from mipverify.report.images import image_layout
    from mipverify.specification.normalization import Normalization

    found = [s for s in result.samples if s.verdict == "violated" and s.adversarial is not None][: max(1, count)]
    if not found or result.data is None:
        raise InputError("there is no counterexample to show")
    data = result.data
    layout = image_layout(data.images, data.stored.shape[1:])
    if layout is None:
        raise InputError(f"inputs of shape {data.image_shape} are no images")
    normalization = Normalization.of(data.mean, data.std, data.image_shape)
    figure, grid = _pyplot().subplots(3, len(found), squeeze=False, figsize=(1.4 * len(found) + 0.6, 4.6))
    for sample, axes in zip(found, grid.T, strict=True):
        assert sample.adversarial is not None
        point = sample.adversarial if normalization is None else normalization.undone(sample.adversarial)
        before, after = (layout.pixels(v) for v in (data.image(sample.index), point))
        span = {"cmap": "gray", "vmin": min(0.0, before.min()), "vmax": max(1.0, before.max())}
        change = after - before
        largest = float(np.abs(change).max()) or 1.0
        axes[0].imshow(_squeezed(before), **span)
        axes[1].imshow(_squeezed(0.5 + 0.5 * change / largest), cmap="RdBu_r", vmin=0.0, vmax=1.0)
        axes[2].imshow(_squeezed(after), **span)
        axes[0].set_title(result.name_of(sample.label), fontsize=9)
        axes[1].set_title(f"±{largest:.3g}", fontsize=9)
        axes[2].set_title(result.name_of(int(sample.adversarial_label or 0)), fontsize=9)
        for ax in axes:
            ax.set_axis_off()
    figure.tight_layout()
    return figure


def _squeezed(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels.clip(0.0, 1.0)


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InputError("plots need matplotlib: pip install 'mipverify[plots]'") from None
    return pyplot
