"""Verdicts about float32 arithmetic, beside every float32 input of small sets and many orders of summation."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify.engine import verify
from mipverify.engine.distortion import minimum_distortion
from mipverify.engine.schedule import CASCADE, SEMIDEFINITE
from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.network.deployed import deployed
from mipverify.network.replay import replay_of
from mipverify.report.run import adversarial_accuracy
from mipverify.specification import Specification, robustness
from tests.network.graphs import Graph, runtime
from tests.proof.float32 import evaluations
from tests.soundness.nets import question

QUICK = CASCADE[: CASCADE.index(SEMIDEFINITE)]  # all that is over in a moment


def rounding_network(path: Path) -> Path:
    """(x + 2^24) - 2^24, of two inputs: the identity, but in float32 zero below 1."""
    graph = Graph([1, 2])
    far = graph.constant(2.0**24)
    x = graph.node("Sub", [graph.node("Add", ["x", far]), far])
    return graph.save(path, graph.node("MatMul", [x, graph.constant(np.eye(2))]))


def above(threshold: float | Fraction, low: np.ndarray, high: np.ndarray, outputs: int = 2) -> Specification:
    """Violated where the first output is at most a threshold."""
    return question(low, high, [[([1.0, *[0.0] * (outputs - 1)], threshold)]])


def test_rounding_violates_what_is_proven_of_real_numbers(tmp_path: Path) -> None:
    network = load(rounding_network(tmp_path / "net.onnx"))
    asked = above(0.5, np.full(2, 0.6), np.full(2, 0.9))
    real, rounded = (verify(network, asked, arithmetic=name, timeout=20) for name in ("real", "float32"))
    assert (real.verdict, real.arithmetic) == ("holds", "real")
    assert (rounded.verdict, rounded.arithmetic) == ("violated", "float32")
    assert rounded.witness is not None
    assert rounded.witness.output[0] == 0
    assert json.loads(json.dumps(rounded.to_json()))["arithmetic"] == "float32"


def small_network(path: Path, seed: int) -> Network:
    """Two inputs, ReLUs, sums that cancel: a few thousand float32 inputs lie in a small box."""
    graph = Graph([1, 2], seed)
    rng = graph.rng
    weight = rng.normal(size=(2, 5)) * 100
    x = graph.node("MatMul", ["x", graph.constant(weight)])
    center = rng.normal(size=2).astype(np.float32)
    x = graph.node("Add", [x, graph.constant(-(center @ weight))])
    x = graph.node("Relu", [x])
    if seed % 2:
        x = graph.node("LeakyRelu", [graph.node("Mul", [x, graph.constant(rng.normal(size=5))])], alpha=0.3)
    network = load(graph.save(path, graph.node("MatMul", [x, graph.constant(rng.normal(size=(5, 2)))])))
    return network, center


@pytest.mark.parametrize("seed", range(4))
def test_what_holds_holds_of_all_neighbours(tmp_path: Path, seed: int) -> None:
    """Every float32 input of a box, in ONNX Runtime and in random orders, beside thresholds just below their least."""
    network, center = small_network(tmp_path / "net.onnx", seed)
    steps = 6
    axes = [np.float32(c) + np.arange(-steps, steps + 1) * np.spacing(np.abs(c)) for c in center]
    points = np.array(list(itertools.product(*axes)), np.float32)
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    found = [evaluations(deployed(network), points, np.random.default_rng(k))[-1][:, 0] for k in range(10)]
    found.append(replay_of(network).run(points)[:, 0])
    least = float(np.min(found))
    exact = network.forward(points.astype(np.float64))[:, 0].min()
    spread = max(abs(least - exact), 1e-6)
    verdicts = {}
    for factor in (-1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 30.0, 1000.0):
        asked = above(Fraction(least) - Fraction(spread) * Fraction(factor), low, high)
        verdicts[factor] = verify(network, asked, arithmetic="float32", stages=QUICK, timeout=0.5).verdict
    assert all(verdicts[factor] != "holds" for factor in verdicts if factor <= 0)
    assert verdicts[1000.0] == "holds", verdicts


def test_larger_sets_are_never_easier(tmp_path: Path) -> None:
    network, center = small_network(tmp_path / "net.onnx", 3)
    bounds = []
    for radius in (0.0, 1e-6, 1e-4, 1e-2):
        asked = above(-1e4, center - radius, center + radius)
        pair = [verify(network, asked, arithmetic=name, timeout=20).margin_lower_bound for name in ("real", "float32")]
        assert pair[1] < pair[0]
        bounds.append(pair[1])
    assert bounds == sorted(bounds, reverse=True)


def classifier(path: Path) -> Network:
    graph = Graph([1, 4], 2)
    x = graph.node("Relu", [graph.node("Gemm", ["x", graph.random(4, 6), graph.random(6)])])
    return load(graph.save(path, graph.node("MatMul", [x, graph.random(6, 3)])))


def test_reports_and_distances_say_which_arithmetic(tmp_path: Path) -> None:
    network = classifier(tmp_path / "net.onnx")
    images = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    labels = np.array([runtime((tmp_path / "net.onnx").read_bytes(), x[None])[0].argmax() for x in images])
    asked = {"eps": "0.01", "workers": 0, "out": tmp_path / "run"}
    result = adversarial_accuracy(network, images, labels, arithmetic="float32", **asked)
    assert result.summary["arithmetic"] == "float32"
    assert result.summary["holds"] > 0
    assert "every float32 evaluation" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(InputError, match=r"another arithmetic \(float32\)"):
        adversarial_accuracy(network, images, labels, **asked)
    again = adversarial_accuracy(network, images, labels, arithmetic="float32", **asked)
    assert again.summary["samples"] == 6

    real, rounded = (
        minimum_distortion(network, images[0].reshape(1, 4), int(labels[0]), arithmetic=name, timeout=20)
        for name in ("real", "float32")
    )
    assert (real.arithmetic, rounded.arithmetic) == ("real", "float32")
    assert rounded.upper is None or rounded.lower <= rounded.upper
    assert real.upper is None or rounded.lower <= real.upper


def test_proof_files_name_the_arithmetic(tmp_path: Path) -> None:
    network = classifier(tmp_path / "net.onnx")
    x = np.full((1, 4), 0.5, np.float32)
    label = int(runtime((tmp_path / "net.onnx").read_bytes(), x).argmax())
    asked = robustness(x, label, "0.001", num_classes=3)
    verdict = verify(network, asked, arithmetic="float32", proof=True, timeout=20)
    assert verdict.proof is not None
    assert verdict.proof.header["arithmetic"] == "float32"


def test_what_has_no_file_is_refused() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="float32 arithmetic cannot be verified: it was not read from an ONNX file"):
        mipverify.verify(module, np.zeros((1, 2), np.float32), 0, eps=0.1, arithmetic="float32")
    with pytest.raises(InputError, match="arithmetic must be real or float32, not 'half'"):
        mipverify.verify(module, np.zeros((1, 2), np.float32), 0, eps=0.1, arithmetic="half")
