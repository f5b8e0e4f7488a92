"""A ReLU whose values are seen in another shape than what it reads is bounded, attacked and proven like others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify.network import Network, Relu
from mipverify.network.pair import pair
from tests.network.graphs import Graph, agrees

IMAGE = np.array([0.9, 0.1, 0.2, 0.3], np.float32)


def _reshaped(g: Graph, x: str, *shape: int) -> str:
    return str(g.node("Reshape", [x, g.constant(shape, np.int64)]))


MAKERS: dict[str, Callable[[Graph], str]] = {
    "transposed before": lambda g: g.node("Relu", [g.node("Transpose", ["x"])]),
    "reshaped behind": lambda g: _reshaped(g, g.node("Relu", ["x"]), 2, 2),
    "squeezed behind": lambda g: _reshaped(g, g.node("Relu", ["x"]), 4),
    "one axis more": lambda g: g.node("Unsqueeze", [g.node("Relu", ["x"]), g.constant([1], np.int64)]),
    "reshaped by a sum with nothing": lambda g: g.node("Relu", [g.node("Sum", [_reshaped(g, "x", 4, 1)])]),
    "both ways": lambda g: _reshaped(g, g.node("Relu", [_reshaped(g, "x", 2, 2)]), 4, 1),
}


def _network(name: str, path: Path, shape: tuple[int, ...] = (1, 4)) -> Network:
    graph = Graph(shape, opset=18)
    return agrees(graph, MAKERS[name](graph), path)


@pytest.mark.parametrize("name", MAKERS)
def test_questions_are_answered(name: str, tmp_path: Path) -> None:
    """Three conditions at once: their rows must not be mistaken for an axis of the layer."""
    network = _network(name, tmp_path / "net.onnx")
    for eps, expected in ((0.25, "holds"), (0.31, "violated")):
        verdict = mipverify.verify(network, mipverify.robustness(IMAGE, 0, eps, num_classes=4))
        assert verdict.verdict == expected


@pytest.mark.parametrize("name", MAKERS)
def test_a_relu_has_the_shape_of_what_it_reads(name: str, tmp_path: Path) -> None:
    one, two = _network(name, tmp_path / "one.onnx"), _network("reshaped behind", tmp_path / "two.onnx", (4,))
    for network in (one, pair(one, two).network):
        for node in network.nodes:
            assert not isinstance(node, Relu) or node.shape == network.nodes[node.source].shape
