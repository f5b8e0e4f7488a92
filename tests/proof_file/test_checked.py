"""The independent checker accepts what is written, whatever operators the network is made of."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mipverify_check import main as checker
from onnx import TensorProto

import mipverify
from mipverify.engine import run
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import load_vnnlib, robustness
from tests.network.graphs import Graph
from tests.proof_file.nets import WITHOUT_PROGRAMS, dense_file

RADII = (1.0, 0.6, 0.4, 0.25, 0.15, 0.12, 0.1, 0.08, 0.065, 0.05, 0.04, 0.03, 0.01)


def relu(g: Graph, x: str) -> str:
    return g.node("Relu", [x])


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "Relu": relu,
    "LeakyRelu": lambda g, x: g.node("LeakyRelu", [x], alpha=0.2),
    "PRelu": lambda g, x: g.node("PRelu", [x, g.constant([-0.3])]),
    "Abs": lambda g, x: g.node("Abs", [x]),
    "Clip": lambda g, x: g.node("Clip", [x, g.constant(-0.4), g.constant(0.7)]),
    "Clip from below": lambda g, x: g.node("Clip", [x, g.constant(-0.4)]),
    "Clip from above": lambda g, x: g.node("Clip", [x, "", g.constant(0.3)]),
    "HardSigmoid": lambda g, x: g.node("HardSigmoid", [x], alpha=0.6),
    "Max": lambda g, x: g.node("Max", [x, g.node("Neg", [relu(g, x)]), g.constant(-0.2)]),
    "Min": lambda g, x: g.node("Min", [x, g.node("Abs", [x])]),
    "residual": lambda g, x: g.node("Add", [x, relu(g, x)]),
}


def dense_with(folder: Path, activation: Callable[[Graph, str], str], seed: int) -> Network:
    """Three layers of a dense network with this activation."""
    g, x = Graph([1, 6], seed), "x"
    for inputs, outputs in ((6, 10), (10, 8)):
        x = activation(g, g.node("Gemm", [x, g.constant(g.rng.normal(size=(inputs, outputs)) / 3), g.random(outputs)]))
    y = g.node("Gemm", [x, g.random(8, 3), g.random(3)])
    return mipverify.load(g.save(folder / "net.onnx", y))


def pooled(folder: Path, operator: str, seed: int) -> Network:
    """A convolutional network with pooling."""
    g = Graph([1, 2, 7, 7], seed)
    z = g.node("Conv", ["x", g.constant(g.rng.normal(size=(3, 2, 3, 3)) / 4), g.random(3)], pads=[1, 1, 1, 1])
    attributes = (
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]} if operator != "GlobalMaxPool" else {}
    )
    pool = g.node(operator, [relu(g, z)], **attributes)
    flat = g.node("Flatten", [pool])
    size = 3 if operator == "GlobalMaxPool" else 27
    hidden = relu(g, g.node("MatMul", [flat, g.constant(g.rng.normal(size=(size, 6)) / 4)]))
    return mipverify.load(g.save(folder / "net.onnx", g.node("MatMul", [hidden, g.random(6, 3)])))


def checked(folder: Path, proof: Proof, *property_path: Path) -> int:
    path = folder / "proof.npz"
    proof.save(path)
    return checker.main([str(path), str(folder / "net.onnx"), *map(str, property_path)])


def require_verified(folder: Path, network: Network, norm: str = "linf", seed: int = 0, **more: object) -> Counter[str]:
    """Ask about smaller and smaller radii: what holds is verified. The rules that were used."""
    image = np.random.default_rng(seed).random(network.input_shape)
    inputs = image if not more else (image - 0.25) / 0.3
    label = int(network.forward(inputs[None]).argmax())
    used: Counter[str] = Counter()
    for eps in RADII:
        asked = robustness(image, label, eps, num_classes=network.output_size, norm=norm, **more)  # type: ignore[arg-type]
        verdict = mipverify.verify(network, asked, timeout=30, proof=True)
        if verdict.proof is None:
            assert verdict.verdict != "holds"
            continue
        assert verdict.verdict == "holds"
        assert checked(folder, verdict.proof) == 0
        used.update(fact["rule"] for fact in verdict.proof.header["facts"])
    assert used
    return used


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, tmp_path: Path) -> None:
    require_verified(tmp_path, dense_with(tmp_path, ACTIVATIONS[name], 1))


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "GlobalMaxPool"])
def test_pooling(operator: str, tmp_path: Path) -> None:
    require_verified(tmp_path, pooled(tmp_path, operator, 0))


@pytest.mark.parametrize(
    ("views", "arithmetic"), [([], "real"), (["Cast"], "real"), (["Squeeze"], "real"), ([], "float32")]
)
def test_the_scores_that_a_last_argmax_compares(views: list[str], arithmetic: str, tmp_path: Path) -> None:
    g = Graph([1, 6], 1)
    hidden = relu(g, g.node("Gemm", ["x", g.constant(g.rng.normal(size=(6, 10)) / 3), g.random(10)]))
    y = g.node("ArgMax", [g.node("Gemm", [hidden, g.random(10, 3), g.random(3)])], axis=1)
    for view in views:
        y = g.node(view, [y], **({"to": TensorProto.INT32} if view == "Cast" else {}))
    network = mipverify.load(g.save(tmp_path / "net.onnx", y))
    image = np.random.default_rng(0).random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    shown = 0
    for eps in RADII:
        asked = robustness(image, label, eps, num_classes=3)
        verdict = mipverify.verify(network, asked, timeout=20, proof=True, arithmetic=arithmetic)
        assert (verdict.proof is not None) == (verdict.verdict == "holds")
        if verdict.proof is not None:
            shown += 1
            assert checked(tmp_path, verdict.proof) == 0
    assert shown


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_ends_that_keep_the_order(end: str, tmp_path: Path) -> None:
    g = Graph([1, 6], 1)
    hidden = relu(g, g.node("Gemm", ["x", g.constant(g.rng.normal(size=(6, 10)) / 3), g.random(10)]))
    scores = g.node("Gemm", [hidden, g.random(10, 3), g.random(3)])
    require_verified(tmp_path, mipverify.load(g.save(tmp_path / "net.onnx", g.node(end, [scores]))))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_balls(norm: str, tmp_path: Path) -> None:
    require_verified(tmp_path, dense_file(tmp_path / "net.onnx", [6, 20, 20, 3], 2), norm)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_normalized_inputs(norm: str, tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [6, 20, 20, 3], 2)
    require_verified(tmp_path, network, norm, mean="0.25", std="0.3")


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_ball_that_is_hardly_smaller_than_the_question_is_refused(norm: str, tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [6, 20, 20, 3], 2)
    image = np.random.default_rng(0).random(network.input_shape)
    label = int(network.forward((image[None] - 0.25) / 0.3).argmax())
    asked = robustness(image, label, "0.01", num_classes=3, norm=norm, mean="0.25", std="0.3")
    proof = mipverify.verify(network, asked, proof=True).proof
    assert proof is not None
    header = json.loads(json.dumps(proof.header))
    region = header["cases"][0]["region"]
    region["radius"] = str(Fraction(region["radius"]) * (1 - Fraction(1, 10**9)))
    assert checked(tmp_path, Proof(header, proof.arrays)) == 1


def test_a_packed_network_is_read_within_the_memory_that_a_check_may_take(tmp_path: Path) -> None:
    dense_file(tmp_path / "net.onnx", [6, 12, 3], 0)
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress((tmp_path / "net.onnx").read_bytes()))
    network = mipverify.load(packed)
    image = np.random.default_rng(0).random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    proof = mipverify.verify(network, robustness(image, label, "0.001", num_classes=3), proof=True).proof
    assert proof is not None
    proof.save(tmp_path / "proof.npz")
    command = [sys.executable, "-m", "mipverify_check", str(tmp_path / "proof.npz"), str(packed)]
    folders = {"PYTHONPATH": str(Path(checker.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **folders})
    assert (done.returncode, done.stderr) == (0, "")


def test_phases_and_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RECORDED", WITHOUT_PROGRAMS)
    used: Counter[str] = Counter()
    for seed in range(3):
        used += require_verified(tmp_path, dense_file(tmp_path / "net.onnx", [30, 30, 30, 3], seed, 1.2), seed=seed)
        used += require_verified(tmp_path, dense_file(tmp_path / "net.onnx", [2, 24, 24, 3], seed, 1.5), seed=seed)
    assert {"interval", "tighten", "exclude", "phases", "boxes"} <= set(used)


def test_semidefinite_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RECORDED", WITHOUT_PROGRAMS)
    used: Counter[str] = Counter()
    for seed in range(3):
        network = dense_file(tmp_path / "net.onnx", [30, 40, 3], seed, 1.2)
        require_verified(tmp_path, network, seed=seed)
        image = np.random.default_rng(seed).random(network.input_shape)
        label = int(network.forward(image[None]).argmax())
        for eps in RADII:
            verdict = mipverify.verify(network, robustness(image, label, eps, num_classes=3), timeout=30, proof=True)
            if verdict.proof is not None:
                used.update(key for fact in verdict.proof.header["facts"] for key in fact)
    assert used["semidefinite"]


CONDITIONS = {
    "conjunction": "(and (<= Y_{top} Y_{other}) (<= Y_{top} Y_{last}))",
    "disjunction": "(or (and (<= Y_0 {low})) (and (<= Y_1 Y_2) (>= Y_1 {high})))",
    "strict": "(or (and (< Y_0 {low})) (and (> Y_2 {high})))",
}


@pytest.mark.parametrize("sizes", [[2, 20, 20, 3], [30, 25, 25, 3]], ids=["boxes", "phases"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_vnnlib_properties(name: str, sizes: list[int], tmp_path: Path) -> None:
    network, n = dense_file(tmp_path / "net.onnx", sizes, 4, 1.3), sizes[0]
    points = np.random.default_rng(0).random((2000, *network.input_shape))
    outputs = network.forward(points).reshape(-1, 3)
    ranked = np.argsort(-network.forward(np.zeros((1, *network.input_shape))).reshape(-1)).tolist()
    order, shown = dict(zip(("top", "other", "last"), ranked, strict=True)), 0
    hard = (2 if n == 2 else 3) * (name == "disjunction")  # slacks that take too long
    for slack in (0.1, 0.5, 1.5, 4.0)[hard:]:
        low, high = outputs[:, 0].min() - slack, outputs[:, 1:].max() + slack
        text = [f"(declare-const X_{i} Real)" for i in range(n)] + [f"(declare-const Y_{k} Real)" for k in range(3)]
        text += [
            f"(assert (>= X_{i} 0)) (assert (<= X_{i} {1 if name != 'conjunction' else slack / 8}))" for i in range(n)
        ]
        text.append(f"(assert {CONDITIONS[name].format(low=low, high=high, **order)})")
        path = tmp_path / "property.vnnlib"
        path.write_text("\n".join(text))
        verdict = mipverify.verify(network, load_vnnlib(str(path)), timeout=10, proof=True)
        if verdict.proof is not None:
            assert checked(tmp_path, verdict.proof, path) == 0
            shown += 1
    assert shown
