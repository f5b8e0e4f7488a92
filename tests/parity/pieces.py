"""Small networks, one for each piece that MIPVerify.jl knows, and the least margin that brute force finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.formats.sources import outputs
from tests.network.graphs import Graph

SIZE = 4  # images of 1 x SIZE x SIZE
CLASSES = 3


def masked_relu(graph: Graph) -> str:
    """Units of a hidden layer that are zero, linear or rectified by a mask: MaskedReLU."""
    x = graph.node("Gemm", [graph.node("Flatten", ["x"]), graph.random(16, 9), graph.random(9)])
    mask = np.arange(9) % 3 - 1  # -1: zero, 0: rectified, 1: as it is
    rectified = graph.node("Relu", [graph.node("Mul", [x, graph.constant(mask == 0)])])
    passed = graph.node("Mul", [x, graph.constant(mask > 0)])
    masked = graph.node("Relu", [graph.node("Gemm", [graph.node("Add", [rectified, passed]), graph.random(9, 9)])])
    return _last(graph, masked, 9)


def skip_connections(graph: Graph) -> str:
    """Two residual blocks, the second with a convolution on its shortcut: SkipSequential, SkipBlock."""
    start = graph.node("Relu", [graph.node("Conv", ["x", graph.random(2, 1, 2, 2)], strides=[2, 2])])
    inner = graph.node("Relu", [graph.node("Conv", [start, graph.random(2, 2, 3, 3)], pads=[1, 1, 1, 1])])
    first = graph.node("Relu", [graph.node("Add", [inner, start])])
    main = graph.node("Conv", [first, graph.random(2, 2, 3, 3)], pads=[1, 1, 1, 1])
    side = graph.node("Conv", [first, graph.random(2, 2, 1, 1)])
    return _last(graph, graph.node("Relu", [graph.node("Add", [main, side])]), 8)


def overlapping_max_pooling(graph: Graph) -> str:
    """Windows of 3 with stride 1 and a border, then ragged ones of 2: Pool, and beyond it."""
    x = graph.node("Conv", ["x", graph.random(1, 1, 3, 3)], pads=[1, 1, 1, 1])
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 0, 0, 1])
    x = graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return _last(graph, x, 4)


def average_pooling(graph: Graph) -> str:
    """Means over blocks between ReLUs: Pool with a mean."""
    x = graph.node("Relu", [graph.node("Conv", ["x", graph.random(2, 1, 3, 3)], pads=[1, 1, 1, 1])])
    x = graph.node("AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    return _last(graph, graph.node("Relu", [x]), 8)


def normalization(graph: Graph) -> str:
    """(x - mean) / std at the input, and a batch normalization inside: Normalize."""
    x = graph.node("Div", [graph.node("Sub", ["x", graph.constant(0.3)]), graph.constant(0.4)])
    x = graph.node("Conv", [x, graph.random(2, 1, 2, 2)], strides=[2, 2])
    statistics = [graph.random(2), graph.random(2), graph.random(2), graph.constant(graph.rng.uniform(0.5, 2, 2))]
    return _last(graph, graph.node("Relu", [graph.node("BatchNormalization", [x, *statistics])]), 8)


def zero_layers(graph: Graph) -> str:
    """A branch that is always zero, a product with zero and a layer of zero weights: Zero."""
    x = graph.node("Flatten", ["x"])
    hidden = graph.node("Relu", [graph.node("Gemm", [x, graph.random(16, 6), graph.random(6)])])
    nothing = graph.node("Mul", [hidden, graph.constant(0.0)])
    none = graph.node("Relu", [graph.node("MatMul", [x, graph.constant(np.zeros((16, 6)))])])
    cancelled = graph.node("Sub", [hidden, hidden])
    total = hidden
    for zero in (nothing, none, cancelled):
        total = graph.node("Add", [total, zero])
    return _last(graph, graph.node("Relu", [total]), 6)


PIECES: dict[str, Callable[[Graph], str]] = {
    made.__name__: made
    for made in (masked_relu, skip_connections, overlapping_max_pooling, average_pooling, normalization, zero_layers)
}


def build(name: str, seed: int, path: Path) -> Path:
    """The network `name` with random weights as an ONNX file for any batch size."""
    graph = Graph(["N", 1, SIZE, SIZE], seed)
    return graph.save(path, PIECES[name](graph))


def box(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends (16,) of a set of images: three pixels free, two in a small range, the others fixed."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0.2, 0.8, 16).astype(np.float32).astype(np.float64)
    radius = np.zeros(16)
    places = rng.permutation(16)
    radius[places[:3]] = 0.125
    return center - radius, center + radius


def least_margin(path: Path, lower: np.ndarray, upper: np.ndarray, better: int, worse: int) -> tuple[float, np.ndarray]:
    """The least y[better] - y[worse] on a grid of the box that is refined twice, and where it lies, by ONNX Runtime."""
    start, end = lower, upper
    least, place = np.inf, lower
    for _ in range(4):
        free = np.flatnonzero(end > start)
        axes = np.meshgrid(*(np.linspace(start[i], end[i], 17) for i in free), indexing="ij")
        points = np.repeat(start[None], axes[0].size, axis=0)
        points[:, free] = np.stack([axis.reshape(-1) for axis in axes], axis=1)
        y = outputs(path, points.reshape(-1, 1, SIZE, SIZE)).astype(np.float64)
        margins = y[:, better] - y[:, worse]
        if margins.min() < least:
            least, place = float(margins.min()), points[margins.argmin()]
        width = (end - start) / 8
        start, end = np.maximum(place - width, lower), np.minimum(place + width, upper)
    return least, place


def property_text(lower: np.ndarray, upper: np.ndarray, better: int, worse: int, margin: float) -> str:
    """A VNN-LIB property that is violated where y[better] - y[worse] <= margin."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(lower))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(CLASSES)]
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{i} {low:.25f}))", f"(assert (<= X_{i} {high:.25f}))"]
    return "\n".join([*lines, f"(assert (<= (- Y_{better} Y_{worse}) {margin:.25f}))", ""])


def _last(graph: Graph, value: str, size: int) -> str:
    return str(graph.node("Gemm", [graph.node("Flatten", [value]), graph.random(size, CLASSES), graph.random(CLASSES)]))
