"""Small questions with proofs of every rule: the network, the property, and a writer that holds the proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tests.checker.making import Writer, below, dense, property_text, vnnlib_question

VIOLATED = "0.26"  # output 0 comes down to 0.2505… on the box: a proof that it is above this must be rejected
BOX = [("-0.5", "0.5")] * 3


@dataclass(frozen=True)
class Example:
    """Files of a question, and a proof of it."""

    network: Path
    property: Path | None
    writer: Writer

    def save(self, path: Path) -> Path:
        path.write_bytes(self.writer.content())
        return path


def started(folder: Path, level: str = "0.1", output: int = 0) -> Example:
    """A dense network; its output is never at most `level`. The proof has its case, its sites and interval bounds."""
    network, asked = folder / "net.onnx", folder / "property.vnnlib"
    onnx.save(dense(np.random.default_rng(1), [3, 8, 8, 2]), network)
    asked.write_text(property_text(3, 2, BOX, f"(<= Y_{output} {level})"))
    writer = Writer(network, vnnlib_question(asked))
    writer.case([[-0.5, 0.5]] * 3, [below(output, level)])
    writer.header["sites"] = [["r1", 0], ["r2", 0]]
    writer.fact("interval", case=0)
    return Example(network, asked, writer)


def tightened(folder: Path, level: str = "0.1") -> Example:
    found = started(folder, level)
    writer = found.writer
    writer.fact("tighten", of=0, site=1, units=writer.array(np.arange(8), np.uint8), side="both", lines="parallel")
    return found


def by_passes(folder: Path, level: str = "0.1") -> Example:
    """Bounds tightened by passes with slopes and multipliers, then an exclusion."""
    found = tightened(folder, level)
    writer, rng = found.writer, np.random.default_rng(0)
    slopes = {"0": [writer.array([1, 4], np.uint8), writer.array(rng.integers(0, 256, (1, 2)), np.uint8)]}
    multipliers = {"0": [writer.array([2], np.uint8), writer.array([[0.01]], np.float32)]}
    writer.fact(
        "exclude",
        of=1,
        conditions=writer.array([0], np.uint8),
        lines="adaptive",
        slopes=slopes,
        multipliers=multipliers,
    )
    return found


def by_phases(folder: Path, level: str = "0.115") -> Example:
    """A tree on two ReLUs of different layers; a unit bounded by a tree before."""
    found = tightened(folder, level)
    writer = found.writer
    small = writer.array([[0, 3], [-1, -1], [-1, -1]], np.int8)
    writer.fact("phases", of=1, tree=small, site=1, unit=2, side="lower", lines="adaptive")
    tree = writer.array([[0, 0], [-1, -1], [1, 2], [-1, -1], [-1, -1]], np.int8)
    writer.fact("phases", of=2, condition=0, tree=tree, lines="adaptive")
    return found


def some_cuts(writer: Writer, rows: int, multipliers: float) -> dict[str, object]:
    """Two cuts of the second layer at two points, for each of some rows."""
    rng = np.random.default_rng(3)
    points = [writer.array(rng.integers(0, 256, (2, size)), np.uint8) for size in (3, 8)]
    cuts = {
        "units": writer.array([2, 5], np.uint8),
        "points": writer.array([0, 1], np.uint8),
        "phases": writer.array([120, 200], np.uint8),
        "rows": writer.array(np.repeat(np.arange(rows), 2), np.uint8),
        "cuts": writer.array(np.tile([0, 1], rows), np.uint8),
        "multipliers": writer.array(np.full(2 * rows, multipliers), np.float32),
    }
    positions = {"0": [writer.array(np.arange(8), np.uint8), points[1]]}
    return {"inputs": points[0], "positions": positions, "sites": {"1": cuts}}


def by_cuts(folder: Path, level: str = "0.1") -> Example:
    """A condition excluded by a tree and by a pass, both with cuts."""
    found = tightened(folder, level)
    writer = found.writer
    tree = writer.array([[0, 0], [-1, -1], [-1, -1]], np.int8)
    writer.fact("phases", of=1, condition=0, tree=tree, lines="adaptive", cuts=some_cuts(writer, 2, 0.003))
    zero = writer.array([0], np.uint8)
    writer.fact("exclude", of=1, conditions=zero, lines="adaptive", cuts=some_cuts(writer, 1, 0.003))
    return found


def by_clips(folder: Path, level: str = "0.115") -> Example:
    """A tree of which some leaves have clipped bounds, and of these some that were clipped before."""
    found = tightened(folder, level)
    writer = found.writer

    def layers(planes: int) -> list[dict[str, object]]:
        units = writer.array(np.tile(np.arange(8), 2), np.uint8)
        signs = writer.array(np.repeat([1, -1], 8), np.int8)
        mu = writer.array(np.full((16, planes), 0.125), np.float32)
        return [{"site": 1, "units": units, "signs": signs, "multipliers": mu}]

    none, split = writer.array(np.zeros((0, 3)), np.int8), writer.array([[0, 0, 1]], np.int8)
    whole = {"of": 1, "condition": 0, "level": 0.001, "lines": "adaptive"}
    writer.fact("clip", **whole, splits=none, planes=none, layers=layers(1))
    writer.fact("clip", **whole, **{"from": 2}, splits=split, planes=split, layers=layers(2))
    tree = writer.array([[0, 0], [-1, -1], [1, 2], [-1, -1], [-1, -1]], np.int8)
    writer.fact("phases", of=1, condition=0, tree=tree, lines="adaptive", clips=[3, 2, None])
    return found


def by_hidden_clips(folder: Path, level: str = "0.1") -> Example:
    """A unit bounded by a tree within clipped bounds of itself, then an exclusion."""
    found = tightened(folder, level)
    writer = found.writer
    goal = {"site": 1, "unit": 2, "side": "lower"}
    none, split = writer.array(np.zeros((0, 3)), np.int8), writer.array([[0, 3, 1]], np.int8)
    layers = [
        {
            "site": 0,
            "units": writer.array(np.arange(8), np.uint8),
            "signs": writer.array(np.ones(8), np.int8),
            "multipliers": writer.array(np.full((8, planes), 0.125), np.float32),
        }
        for planes in (1, 2)
    ]
    whole = {"of": 1, **goal, "lines": "adaptive"}
    writer.fact("clip", **whole, level=0.25, splits=none, planes=none, layers=layers[:1])
    writer.fact("clip", **whole, **{"from": 2}, level=0.5, splits=split, planes=split, layers=layers[1:])
    tree = writer.array([[0, 3], [-1, -1], [-1, -1]], np.int8)
    writer.fact("phases", of=1, **goal, tree=tree, lines="adaptive", clips=[3, 2])
    writer.fact("exclude", of=4, conditions=writer.array([0], np.uint8), lines="adaptive")
    return found


def by_boxes(folder: Path, level: str = "0.17") -> Example:
    """The box in four parts."""
    found = started(folder, level)
    writer = found.writer
    axis = writer.array([0, 1, -1, -1, 1, -1, -1], np.int8)
    at = writer.array([0.0, 0.125, 0, 0, -0.25, 0, 0], np.float64)
    closed = writer.array([[2, 0], [3, 0], [5, 0], [6, 0]], np.uint8)
    writer.fact(
        "boxes",
        of=0,
        conditions=writer.array([0], np.uint8),
        axis=axis,
        at=at,
        closed=closed,
        sites=[0, 1],
        lines="adaptive",
    )
    return found


def about_an_image(folder: Path, eps: str = "1/8", targets: tuple[int, ...] = (1,), seed: int = 1) -> Example:
    """Three pixels, a label and a radius; only the first target is excluded."""
    network = folder / "net.onnx"
    onnx.save(dense(np.random.default_rng(seed), [3, 8, 8, 1 + len(targets)]), network)
    image = [0.25, 0.5, 0.75]
    writer = Writer(network, {})
    writer.header["question"] = {
        "kind": "robustness",
        "image": writer.packed(image),
        "label": 0,
        "targets": list(targets),
        "eps": eps,
        "norm": "linf",
        "domain": ["0", "1"],
        "normalization": None,
        "data": {"sha256": "", "index": 7},
    }
    row = {"outputs": [[0, "1"], [1, "-1"]], "offset": "0"}
    writer.case([[v - 0.125, v + 0.125] for v in image], [[row]])
    writer.header["sites"] = [["r1", 0], ["r2", 0]]
    writer.fact("interval", case=0)
    writer.fact("exclude", of=0, conditions=writer.array([0], np.uint8), lines="adaptive")
    return Example(network, None, writer)


def about_radii(folder: Path, eps: str = "1/16") -> Example:
    """A distance: of one target excluded within 1/8, of another within 1/16."""
    found = about_an_image(folder, eps, (1, 2), 17)
    writer = found.writer
    other = {"outputs": [[0, "1"], [2, "-1"]], "offset": "0"}
    writer.case([[v - 0.0625, v + 0.0625] for v in (0.25, 0.5, 0.75)], [[other]])
    writer.fact("interval", case=1)
    writer.fact("exclude", of=2, conditions=writer.array([0], np.uint8), lines="adaptive")
    return found


EXAMPLES: dict[str, Callable[[Path], Example]] = {
    "passes": by_passes,
    "phases": by_phases,
    "cuts": by_cuts,
    "clips": by_clips,
    "hidden clips": by_hidden_clips,
    "boxes": by_boxes,
    "image": about_an_image,
    "radii": about_radii,
}
