"""Resize and Upsample in every mode and way to find coordinates mean what ONNX Runtime computes, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mipverify.errors import InputError
from mipverify.network import load
from tests.network.graphs import Graph, agrees, runtime

TRANSFORMATIONS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = np.array([0.3, 0.5, 0.6, 0.75, 1, 1.3, 1.5, 2, 2.5, 3, 1 / 3], np.float32)


def resize_graph(rng: np.random.Generator, mode: str, transformation: str) -> tuple[Graph, str]:
    """A random node: image, sequence or volume; scales or sizes; for some or all axes; with a region or without."""
    opset, rank = int(rng.choice([11, 13, 18, 19])), int(rng.choice([2, 3, 4, 4, 5]))
    outer = 2 if rank >= 4 else 0
    shape = [1, 2][:outer] + [int(size) for size in rng.integers(1, 7, size=rank - outer)]
    g = Graph(shape, opset=opset, seed=int(rng.integers(1000)))
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        options["nearest_mode"] = str(rng.choice(NEAREST))
    inner = list(range(outer, rank))
    some = opset >= 18 and bool(rng.integers(2))
    if some:
        options["axes"] = inner
    given = inner if some else list(range(rank))
    resized = np.array([axis in inner for axis in given])
    region = np.zeros(0)
    if transformation == "tf_crop_and_resize":
        start, end = rng.uniform(-0.2, 0.5, len(given)), rng.uniform(0.5, 1.3, len(given))
        region = np.concatenate([np.where(resized, start, 0), np.where(resized, end, 1)])
        options["extrapolation_value"] = 2.5
    if rng.integers(2):
        scales = np.where(resized, rng.choice(SCALES, len(given)), 1)
        return g, g.node("Resize", ["x", g.constant(region), g.constant(scales)], **options)
    if opset >= 18 and rng.integers(2):
        options["keep_aspect_ratio_policy"] = str(rng.choice(["not_larger", "not_smaller"]))
    sizes = np.where(resized, rng.integers(1, 13, len(given)), [shape[axis] for axis in given])
    inputs = ["x", g.constant(region), g.constant([]), g.constant(sizes, np.int64)]
    return g, g.node("Resize", inputs, **options)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize(mode: str, transformation: str, tmp_path: Path) -> None:
    onnxruntime.set_default_logger_severity(4)
    rng, path, equal = np.random.default_rng(11), tmp_path / "net.onnx", 0
    for _ in range(150):
        graph, output = resize_graph(rng, mode, transformation)
        graph.save(path, output)
        x = rng.normal(size=graph.shape).astype(np.float32)
        try:
            network = load(path)
        except InputError:
            continue
        theirs = runtime(path.read_bytes(), x)
        np.testing.assert_allclose(
            network.forward(x[None].astype(float))[0], theirs, atol=2e-6, err_msg=str(graph.nodes)
        )
        equal += 1
    assert equal > 75


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("operator", ["Upsample-7", "Upsample-9", "Resize-10"])
def test_older_operators(operator: str, mode: str, tmp_path: Path) -> None:
    name, opset = operator.split("-")
    rng = np.random.default_rng(3)
    for _ in range(40):
        g = Graph([1, 2, *(int(size) for size in rng.integers(1, 7, size=2))], opset=int(opset))
        scales = [1.0, 1.0, *(float(s) for s in rng.choice([1, 1.3, 1.5, 2, 2.5, 3], size=2))]
        given = ["x"] if opset == "7" else ["x", g.constant(scales)]
        options = {"scales": scales} if opset == "7" else {}
        agrees(g, g.node(name, given, mode=mode, **options), tmp_path / "net.onnx", samples=1)


REFUSED: dict[str, tuple[list[float], dict[str, Any], str]] = {
    "cubic": ([1, 1, 2, 2], {"mode": "cubic"}, "mode 'cubic'"),
    "antialias": ([1, 1, 0.5, 0.5], {"mode": "linear", "antialias": 1}, "antialias"),
    "empty": ([1, 1, 0.1, 1], {}, "empty"),
    "too few": ([2, 2], {}, "2 scales for 4 axes"),
    "negative": ([1, 1, -2, 2], {}, "a scale is -2"),
    "corners": ([1, 1, 0.6, 1], {"coordinate_transformation_mode": "align_corners"}, "corners cannot be aligned"),
    "decided by rounding": (
        [1, 1, 0.75, 1],
        {"coordinate_transformation_mode": "half_pixel_symmetric"},
        "rounding decides",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    scales, options, message = REFUSED[name]
    g = Graph([1, 1, 6, 4], opset=18)
    y = g.node("Resize", ["x", "", g.constant(scales)], **options)
    with pytest.raises(InputError, match=f"operator Resize .*{message}"):
        load(g.save(tmp_path / "net.onnx", y))


def test_weights_stay_sparse(tmp_path: Path) -> None:
    g = Graph([1, 1, 64, 64])
    y = g.node("Resize", ["x", "", g.constant([1, 1, 2, 2])], mode="linear")
    network = agrees(g, y, tmp_path / "net.onnx", samples=1)
    assert sum(p.size for node in network.nodes[1:] for t in node.terms for p in t.operator.parameters()) < 2**17
