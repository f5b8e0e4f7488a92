"""Networks so small that their linear pieces can be counted: dense, with skips, convolutional, with pooling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mipverify.network import Network, load
from tests.network.graphs import Graph
from tests.presolve import nets


def dense(seed: int, folder: Path) -> Network:
    return nets.dense(np.random.default_rng(seed), (3, 4, 3, 3))


def skips(seed: int, folder: Path) -> Network:
    return nets.dense(np.random.default_rng(seed), (3, 3, 3, 3), skip=True)


def convolutional(seed: int, folder: Path) -> Network:
    """A convolution with a stride, and a dense layer with a ReLU."""
    graph = Graph(["N", 1, 3, 3], seed)
    x = graph.node("Relu", [graph.node("Conv", ["x", graph.random(1, 1, 2, 2), graph.random(1)])])
    x = graph.node("Relu", [graph.node("Gemm", [graph.node("Flatten", [x]), graph.random(4, 2), graph.random(2)])])
    return load(graph.save(folder / f"conv{seed}.onnx", graph.node("Gemm", [x, graph.random(2, 3), graph.random(3)])))


def pooling(seed: int, folder: Path) -> Network:
    """Overlapping maxima of a convolution, then averages."""
    graph = Graph(["N", 1, 2, 3], seed)
    x = graph.node("Conv", ["x", graph.random(2, 1, 2, 1), graph.random(2)])
    x = graph.node("MaxPool", [x], kernel_shape=[1, 2], strides=[1, 1])
    x = graph.node("Relu", [graph.node("AveragePool", [x], kernel_shape=[1, 2])])
    x = graph.node("Flatten", [x])
    return load(graph.save(folder / f"pool{seed}.onnx", graph.node("Gemm", [x, graph.random(2, 3), graph.random(3)])))


KINDS: dict[str, Callable[[int, Path], Network]] = {
    made.__name__: made for made in (dense, skips, convolutional, pooling)
}


def image_of(network: Network, seed: int) -> tuple[np.ndarray, int]:
    """A float32 input of the network's shape, and its class."""
    image = np.random.default_rng(seed).uniform(0.2, 0.8, network.input_shape).astype(np.float32)
    return image, int(network.forward(image[None].astype(np.float64)).argmax())
