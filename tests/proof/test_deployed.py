"""Bounds for float32 arithmetic hold for every float32 evaluation, whatever the order of summation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mipverify.presolve import interval

from mipverify.errors import InputError
from mipverify.network import Affine, Relu, load
from mipverify.network.deployed import deployed
from mipverify.proof.reduction import reduce
from tests.network.graphs import Graph, runtime
from tests.proof.float32 import at_neighbours, evaluations, in_float32, require_values, sides, stored
from tests.proof.test_partial_rows import convolutional

EVALUATIONS = 60


def cancelling(seed: int) -> tuple[Graph, str]:
    """A network whose sums are far smaller than their summands: what is left of them is mostly rounding."""
    graph = Graph([1, 6], seed)
    rng = graph.rng

    def pairs(before: int, after: int) -> str:
        weight = np.repeat(rng.normal(size=(before, after)) * 300, 2, axis=0)
        weight[1::2] *= -1 + 1e-4 * rng.normal(size=(before, after))
        return graph.constant(weight)

    x = graph.node("MatMul", ["x", pairs(3, 8)])
    x = graph.node("Add", [x, graph.constant(rng.normal(size=8) * 1e-3)])
    x = graph.node("Mul", [x, graph.constant(rng.normal(size=8))])
    x = graph.node("LeakyRelu", [x], alpha=0.1)
    x = graph.node("Gemm", [x, pairs(4, 6), graph.constant(rng.normal(size=6))], alpha=0.3, beta=1.7)
    y = graph.node("Clip", [x, graph.constant(np.float32(-0.3)), graph.constant(np.float32(0.4))])
    x = graph.node("Sub", [graph.node("Relu", [x]), y])
    return graph, graph.node("MatMul", [x, pairs(3, 2)])


@pytest.mark.parametrize("seed", range(8))
def test_no_evaluation_leaves_bounds_at_one_point(tmp_path: Path, seed: int) -> None:
    """At one point bounds of float32 are as wide as rounding alone makes them, and evaluations do differ."""
    graph, output = cancelling(seed)
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    x = np.repeat(graph.rng.normal(size=(1, 3)), 2, axis=1).astype(np.float32)
    bounds = interval(network, x.astype(np.float64), x.astype(np.float64))
    values = evaluations(network, np.repeat(x, EVALUATIONS, 0), graph.rng)
    require_values(bounds, values)
    scores = values[network.output]
    at_runtime = runtime((tmp_path / "net.onnx").read_bytes(), x).reshape(1, -1)
    for low, high in sides(bounds, network.output):
        assert (scores >= low).all()
        assert (scores <= high).all()
        assert (at_runtime >= low).all()
        assert (at_runtime <= high).all()
    real = load(tmp_path / "net.onnx")
    exact = interval(real, x.astype(np.float64), x.astype(np.float64))
    low, high = exact.lower[real.output], exact.upper[real.output]
    assert ((scores < low) | (scores > high)).any(), "evaluations that all are exact would show no fault"


@pytest.mark.parametrize("seed", range(6))
def test_no_evaluation_leaves_bounds_of_windows(seed: int) -> None:
    """Convolutions with sums and concatenations: rows on windows count rounding, too."""
    rng = np.random.default_rng(seed)
    network = in_float32(convolutional(rng))
    x = (rng.normal(size=(1, *network.input_shape)) * 10).astype(np.float32)
    for steps in (0, 3):
        at_neighbours(network, x, steps, rng)


def test_reduced_networks_keep_rounding(tmp_path: Path) -> None:
    """What multiplying out leaves of a network stands for its float32 evaluations."""
    graph, output = cancelling(3)
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    x = np.repeat(graph.rng.normal(size=(1, 3)), 2, axis=1).astype(np.float32)
    radius = 1e-5
    bounds = interval(network, x.astype(np.float64) - radius, x.astype(np.float64) + radius)
    small = reduce(bounds).bounds
    points = (x + graph.rng.uniform(-radius / 2, radius / 2, (EVALUATIONS, 6))).astype(np.float32)
    scores = evaluations(network, points, graph.rng)[network.output]
    low, high = (side[small.network.output] for side in (small.lower, small.upper))
    assert (scores >= low).all()
    assert (scores <= high).all()


def test_folded_constants_are_covered(tmp_path: Path) -> None:
    """A convolution into which a batch normalization was folded in float32, as runtimes do."""
    for seed in range(6):
        graph = Graph([1, 2, 5, 5], seed)
        weight = graph.rng.normal(size=(3, 2, 3, 3)).astype(np.float32)
        scale, offset, mean = (graph.rng.normal(size=3).astype(np.float32) * 50 for _ in range(3))
        var = graph.rng.uniform(0.5, 2, 3).astype(np.float32)
        x = graph.node("Conv", ["x", graph.constant(weight)])
        names = [graph.constant(v) for v in (scale, offset, mean, var)]
        output = graph.node("BatchNormalization", [x, *names])
        network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
        point = graph.rng.normal(size=(1, 2, 5, 5)).astype(np.float32)
        bounds = interval(network, point.astype(np.float64), point.astype(np.float64))
        low, high = bounds.lower[network.output], bounds.upper[network.output]
        factor = scale / np.sqrt(var + np.float32(1e-5))
        folded, bias = weight * factor[:, None, None, None], offset - mean * factor
        windows = np.lib.stride_tricks.sliding_window_view(point[0], (3, 3), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        products = (windows[None] * folded[:, None, None]).reshape(3, 3, 3, -1)
        for _ in range(20):
            first = np.broadcast_to(bias[:, None, None], (3, 3, 3)).copy()
            for k in graph.rng.permutation(products.shape[-1]):
                first = first + products[..., k]
            assert first.dtype == np.float32
            assert (first >= low[0]).all()
            assert (first <= high[0]).all()
        assert (runtime((tmp_path / "net.onnx").read_bytes(), point) >= low).all()


def test_bounds_of_float32_contain_those_of_real_numbers(tmp_path: Path) -> None:
    """Rounding only adds to what values there may be."""
    graph, output = cancelling(5)
    path = graph.save(tmp_path / "net.onnx", output)
    x = graph.rng.normal(size=(1, 6))
    real, rounded = load(path), deployed(load(path))
    one, other = (interval(network, x - 0.1, x + 0.1) for network in (real, rounded))
    assert (other.lower[rounded.output] <= one.lower[real.output]).all()
    assert (other.upper[rounded.output] >= one.upper[real.output]).all()


def test_movements_are_exact(tmp_path: Path) -> None:
    """Comparisons and movements of data round nothing: ReLUs read the input's own numbers."""
    graph = Graph([1, 2, 4, 4])
    x = graph.node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2])
    x = graph.node("Transpose", [x], perm=[0, 2, 3, 1])
    x = graph.node("Relu", [graph.node("Neg", [x])])
    output = graph.node("MatMul", [graph.node("Flatten", [x]), graph.random(8, 2)])
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    rounded = [node for node in network.nodes if isinstance(node, Affine) and node.inexact]
    assert rounded == [network.nodes[network.output]]


def test_large_numbers_are_not_bounded(tmp_path: Path) -> None:
    """Where sums may overflow, nothing is concluded."""
    graph = Graph([1, 2])
    output = graph.node("MatMul", ["x", graph.constant(np.full((2, 1), 1e15))])
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    bounds = interval(network, np.full((1, 2), -1e30), np.full((1, 2), 1e30))
    assert np.isneginf(bounds.lower[network.output]).all()
    assert np.isposinf(bounds.upper[network.output]).all()


def test_flushing_to_zero_is_covered(tmp_path: Path) -> None:
    """Products below the smallest normal number may vanish."""
    graph = Graph([1, 2])
    x = graph.node("MatMul", ["x", graph.constant(np.full((2, 1), 1e-20))])
    output = graph.node("Mul", [x, graph.constant(np.float32(1e18))])
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    point = np.full((1, 2), 1e-19)
    bounds = interval(network, point, point)
    assert bounds.lower[network.output].item() < 0 < bounds.upper[network.output].item()


def refused(graph: Graph, output: str, path: Path) -> str:
    """Why a network cannot be verified in float32."""
    with pytest.raises(InputError, match="float32 arithmetic cannot be verified") as caught:
        deployed(load(graph.save(path, output)))
    return str(caught.value)


def test_unknown_rounding_is_refused(tmp_path: Path) -> None:
    """Operators whose roundings are not derived are named, and what is not float32 is refused."""
    path = tmp_path / "net.onnx"
    graph = Graph([1, 3])
    positive = graph.node("Greater", ["x", graph.constant(0)])
    assert "Where" in refused(graph, graph.node("Where", [positive, "x", graph.constant(np.zeros(3))]), path)
    graph = Graph([1, 3])
    assert "CumSum" in refused(graph, graph.node("CumSum", ["x", graph.constant(1, np.int64)]), path)
    graph = Graph([1, 3], dtype=np.float64)
    assert "float64" in refused(graph, graph.node("MatMul", ["x", graph.random(3, 2)]), path)
    graph = Graph([1, 3])
    wide = graph.node("Cast", ["x"], to=11)
    wide = graph.node("MatMul", [wide, graph.constant(np.ones((3, 2)), np.float64)])
    assert "Cast" in refused(graph, graph.node("Cast", [wide], to=1), path)
    graph = Graph([1, 3])
    assert "Softmax" in refused(graph, graph.node("Softmax", [graph.node("MatMul", ["x", graph.random(3, 2)])]), path)
    graph = Graph([1, 3])
    assert "above" in refused(graph, graph.node("Mul", ["x", graph.constant(1e30)]), path)


def test_values_read_by_several_are_stored(tmp_path: Path) -> None:
    """A block ends where a value is read more than once, by a ReLU, or where the network ends."""
    graph = Graph([1, 4])
    a = graph.node("MatMul", ["x", graph.random(4, 4)])
    b = graph.node("MatMul", [a, graph.random(4, 4)])
    output = graph.node("Add", [graph.node("Relu", [b]), graph.node("MatMul", [a, graph.random(4, 4)])])
    network = deployed(load(graph.save(tmp_path / "net.onnx", output)))
    assert network.relus
    assert isinstance(network.nodes[network.relus[0]], Relu)
    open_ = [k for k in range(len(network.nodes)) if k not in stored(network)]
    assert not open_
