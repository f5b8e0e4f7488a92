"""Distances to the closest adversarial input on every piece of network: no sampled point is closer, a witness is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify import minimum_distortion
from tests.formats.sources import outputs
from tests.parity.pieces import PIECES, SIZE, build

GAP = 1e-2
TIMEOUT = 60
SAMPLES = 20_000


def sizes(step: np.ndarray, norm: str) -> np.ndarray:
    """The norm of every row of `step` (N, n)."""
    orders = {"linf": np.inf, "l1": 1, "l2": 2}
    return np.linalg.norm(step, ord=orders[norm], axis=1)


def ball(center: np.ndarray, radius: float, norm: str, rng: np.random.Generator) -> np.ndarray:
    """Points (SAMPLES, n) strictly inside the ball and inside [0, 1], many of them at its border and in its corners."""
    step = rng.normal(size=(SAMPLES, len(center)))
    step[::2] = np.sign(step[::2])
    step[1::4] *= rng.random((len(step[1::4]), len(center))) < 0.2
    step /= np.maximum(sizes(step, norm), 1e-12)[:, None]
    step[::3] *= rng.random((len(step[::3]), 1))
    points = np.clip(center + step * radius * (1 - 1e-5), 0, 1)
    return points.astype(np.float32).astype(np.float64)


CASES = [
    *((name, "linf") for name in PIECES if name != "average_pooling"),  # slow, and linear as a convolution is
    *((name, norm) for name in ("masked_relu", "normalization", "zero_layers") for norm in ("l1", "l2")),
    ("skip_connections", "l1"),
    ("skip_connections", "l2"),
]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_brute_force_finds_nothing_closer(name: str, norm: str, tmp_path: Path) -> None:
    path, rng = build(name, 1, tmp_path / "net.onnx"), np.random.default_rng(1)
    network = mipverify.load(path)
    image = rng.uniform(0.2, 0.8, (1, SIZE, SIZE)).astype(np.float32)
    label = int(outputs(path, image[None])[0].argmax())
    found = minimum_distortion(network, image, label, norm=norm, gap=GAP, timeout=TIMEOUT)
    center = image.reshape(-1).astype(np.float64)

    def adversarial(points: np.ndarray) -> np.ndarray:
        y = outputs(path, points.reshape(-1, 1, SIZE, SIZE))
        return np.delete(y, label, axis=1).max(axis=1) >= y[:, label]

    reach = found.lower if found.status != "none" else 16.0
    points = ball(center, reach, norm, rng)
    inside = sizes(points - center, norm) < found.lower
    assert not adversarial(points[inside]).any()
    if found.status == "none":
        return
    assert found.status == "optimal", found
    assert found.upper is not None
    assert found.upper <= found.lower * (1 + GAP) + 1e-9
    assert found.witness is not None
    witness = found.witness.input.reshape(1, -1).astype(np.float64)
    assert adversarial(witness).all()
    assert sizes(witness - center, norm)[0] <= found.upper * (1 + 1e-9)


def test_norms_are_ordered(tmp_path: Path) -> None:
    path, rng = build("masked_relu", 2, tmp_path / "net.onnx"), np.random.default_rng(2)
    network, image = mipverify.load(path), rng.uniform(0.2, 0.8, (1, SIZE, SIZE)).astype(np.float32)
    label = int(outputs(path, image[None])[0].argmax())
    found = {
        n: minimum_distortion(network, image, label, norm=n, gap=GAP, timeout=TIMEOUT) for n in ("linf", "l2", "l1")
    }
    assert {answer.status for answer in found.values()} == {"optimal"}
    upper = {norm: answer.upper or np.inf for norm, answer in found.items()}
    assert found["linf"].lower <= upper["l2"]
    assert found["l2"].lower <= upper["l1"]
    assert found["l2"].lower <= SIZE * upper["linf"]


def test_a_target_and_a_margin_are_farther(tmp_path: Path) -> None:
    path, rng = build("skip_connections", 3, tmp_path / "net.onnx"), np.random.default_rng(3)
    network, image = mipverify.load(path), rng.uniform(0.2, 0.8, (1, SIZE, SIZE)).astype(np.float32)
    label = int(outputs(path, image[None])[0].argmax())
    free = minimum_distortion(network, image, label, gap=GAP, timeout=TIMEOUT)
    others = [i for i in range(3) if i != label]
    single = [minimum_distortion(network, image, label, targets=[t], gap=GAP, timeout=TIMEOUT) for t in others]
    closest = min(answer.upper for answer in single if answer.upper is not None)
    assert free.upper is not None
    assert abs(free.upper - closest) <= 2 * GAP * closest
    wider = minimum_distortion(network, image, label, margin=0.5, gap=GAP, timeout=TIMEOUT)
    assert wider.lower >= free.lower
    if wider.witness is not None:
        y = wider.witness.output.reshape(-1)
        assert max(y[i] for i in others) >= y[label] + 0.5 - 1e-6


def test_without_a_witness_no_distance_is_optimal(tmp_path: Path) -> None:
    path, rng = build("overlapping_max_pooling", 1, tmp_path / "net.onnx"), np.random.default_rng(1)
    network, image = mipverify.load(path), rng.uniform(0.2, 0.8, (1, SIZE, SIZE)).astype(np.float32)
    label = int(outputs(path, image[None])[0].argmax())
    found = minimum_distortion(network, image, label, norm="l1", timeout=1e-3)
    assert found.upper is not None or found.status != "optimal"
