"""Two networks in one have the outputs of both, exactly, whatever their forms are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mipverify import InputError, load
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.network.pair import pair, with_inequalities
from mipverify.network.replay import replay_of
from mipverify.network.validation import unit_box, validated
from mipverify.proof.interval import interval
from tests.distortion.nets import KINDS
from tests.network.graphs import Graph
from tests.proof.exact import exact
from tests.proof.exact import points as exact_points


def convolutions(seed: int, folder: Path, prune: float = 0.0) -> Network:
    """Grouped, dilated and transposed convolutions, normalization, a residual sum, an average and a dense layer."""
    graph = Graph(["N", 2, 6, 6], seed)

    def weight(*shape: int) -> str:
        array = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
        return graph.constant(np.where(np.abs(array) < prune, 0, array).astype(np.float32))

    x = graph.node("Conv", ["x", weight(4, 1, 3, 3), weight(4)], pads=[1, 1, 1, 1], group=2)
    scale = graph.constant(np.random.default_rng(seed + 7).uniform(0.5, 1.5, 4).astype(np.float32))
    variance = graph.constant(np.random.default_rng(seed + 8).uniform(0.5, 1.5, 4).astype(np.float32))
    first = graph.node("Relu", [graph.node("BatchNormalization", [x, scale, weight(4), weight(4), variance])])
    x = graph.node("Conv", [first, weight(4, 4, 3, 3)], pads=[2, 2, 2, 2], dilations=[2, 2])
    x = graph.node("Relu", [graph.node("Add", [x, first])])
    x = graph.node("ConvTranspose", [x, weight(4, 2, 2, 2)], strides=[2, 2])
    x = graph.node("Flatten", [graph.node("AveragePool", [graph.node("Relu", [x])], kernel_shape=[3, 3])])
    return load(graph.save(folder / f"net{seed}-{prune}.onnx", graph.node("Gemm", [x, weight(200, 3), weight(3)])))


def random_points(network: Network, seed: int, count: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *network.input_shape))


def assert_both(first: Network, second: Network, alike: bool) -> None:
    found = pair(first, second)
    assert found.alike is alike
    x = random_points(first, 0)
    expected = [part.forward(x.reshape(len(x), *part.input_shape)).reshape(len(x), -1) for part in (first, second)]
    wanted = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(found.network.forward(x), wanted, rtol=1e-9, atol=1e-9)
    units = [np.arange(0, int(np.prod(found.network.nodes[layer.difference].shape)), 2) for layer in found.layers]
    tied = with_inequalities(found, units) if alike else found.network
    np.testing.assert_allclose(tied.forward(x), wanted, rtol=1e-9, atol=1e-9)
    values = tied.values(x)
    assert all((values[tied.relu_source(node)] >= -1e-9).all() for node in tied.inequalities)
    assert len(tied.inequalities) == 2 * len(found.layers)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights(kind: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert_both(KINDS[kind](0, tmp_path), KINDS[kind](1, tmp_path / "b"), True)


def test_pruned_convolutions(tmp_path: Path) -> None:
    assert_both(convolutions(0, tmp_path), convolutions(0, tmp_path, prune=0.3), True)
    assert_both(convolutions(0, tmp_path), convolutions(1, tmp_path), True)


def test_other_forms(tmp_path: Path) -> None:
    first = KINDS["dense"](0, tmp_path)
    assert_both(first, KINDS["skips"](0, tmp_path), False)
    assert_both(KINDS["convolutional"](0, tmp_path), replaced_input(first, (9,), tmp_path), False)


def replaced_input(like: Network, shape: tuple[int, ...], folder: Path) -> Network:
    """A dense network of another input shape, with as many outputs."""
    rng, size = np.random.default_rng(3), int(np.prod(shape))
    nodes = (
        Input(shape),
        Affine((5,), (Term(0, Dense(rng.normal(size=(5, size)))),)),
        Relu((5,), 1),
        Affine((like.output_size,), (Term(2, Dense(rng.normal(size=(like.output_size, 5)))),)),
    )
    return Network(nodes, 3)


def test_the_same_network_has_no_differences(tmp_path: Path) -> None:
    network = convolutions(0, tmp_path)
    found = pair(network, network)
    assert found.alike
    assert not found.layers
    assert len(found.network.nodes) == len(network.nodes) + 1


def test_weights_whose_difference_rounds_are_subtracted_exactly() -> None:
    rng = np.random.default_rng(0)
    nodes = []
    for tiny in (2.0**-40, 1.0):
        weights = rng.normal(size=(3, 2)).astype(np.float32).astype(np.float64), rng.normal(size=(2, 3))
        nodes.append(
            Network(
                (
                    Input((2,)),
                    Affine((3,), (Term(0, Dense(weights[0] * tiny)),), rng.normal(size=3) * tiny),
                    Relu((3,), 1),
                    Affine((2,), (Term(2, Dense(weights[1])),), rng.normal(size=2)),
                ),
                3,
            )
        )
    first, second = nodes
    both = pair(first, second)
    layers = with_inequalities(both, [np.arange(3)])
    errors = [
        node.error_bound for node in both.network.nodes if isinstance(node, Affine) and node.error_bound is not None
    ]
    allowed = sum((Fraction(float(array.sum())) for array in errors), Fraction(0)) * 10
    for x in exact_points(rng, np.full(2, -1.0), np.full(2, 1.0), 10):
        wanted = exact(first, x)[first.output] + exact(second, x)[second.output]
        for network in (both.network, layers):
            found = exact(network, x)[network.output]
            assert all(abs(a - b) <= allowed for a, b in zip(found, wanted, strict=True))


def test_differences_are_bounded_as_differences(tmp_path: Path) -> None:
    """A weight that changes by a thousandth moves the output of stable units by about that, however wide these are."""
    first = KINDS["dense"](0, tmp_path)
    last = first.nodes[first.output]
    assert isinstance(last, Affine)
    weight = last.terms[0].operator.weight * (1 + 1e-3)  # type: ignore[attr-defined]
    second = replace(
        first, nodes=(*first.nodes[:-1], replace(last, terms=(Term(last.terms[0].source, Dense(weight)),)))
    )
    found = pair(first, second)
    bounds = interval(found.network, np.zeros((1, 3)), np.ones((1, 3)))
    apart = next(k for k, node in enumerate(found.network.nodes) if k == len(found.network.nodes) - 3)
    wide = bounds.upper[found.network.output] - bounds.lower[found.network.output]
    narrow = bounds.upper[apart] - bounds.lower[apart]
    assert narrow.max() < 0.01 * wide.max()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    first = KINDS["convolutional"](0, tmp_path)
    for shape in ((1, 1, 3, 4), (1, 3, 3, 1, 2), (10,)):
        with pytest.raises(InputError, match="takes inputs of shape"):
            pair(first, replaced_input(first, shape, tmp_path))
    other = replace(first, nodes=first.nodes, output=first.output - 1)
    with pytest.raises(InputError, match="outputs"):
        pair(first, other)


def test_both_originals_are_replayed_and_compared(tmp_path: Path) -> None:
    first, second = convolutions(0, tmp_path), convolutions(0, tmp_path, prune=0.3)
    network = pair(first, second).network
    replay = validated(network, unit_box(network))
    x = random_points(network, 1, 3).astype(np.float32).reshape(3, -1)
    expected = np.concatenate([replay_of(first).run(x), replay_of(second).run(x)], axis=1)
    assert np.array_equal(replay.run(x), expected)
    wrong = replace(second, nodes=(*second.nodes[:-1], replace(second.nodes[-1], bias=np.ones(second.output_shape))))
    with pytest.raises(InputError, match="what was read is not what runs"):
        validated(pair(first, wrong).network, unit_box(network))
