"""Tabular data: radii of each feature, features that cannot change, and linear constraints between features.

    python examples/tabular.py

Trains a small network on synthetic loan applications (income, debt, savings, years in work, age, in units of their
ranges) with a few lines of numpy, and asks for the least change that turns a refusal into an approval: age and years
in work are fixed, income is hard to change, and what is saved less what is owed may not rise by more than a tenth.
Checks the answer by brute force on a grid of the allowed changes.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.network.replay import replay_of

FEATURES = ("income", "debt", "savings", "years", "age")
SCALE = np.array([0.5, 1.0, 1.0, 0.0, 0.0])  # what one unit of distance means for each feature; 0: cannot change
HIDDEN = 12
MARGIN = 6.0  # by how much the score of a refusal exceeds that of an approval at the applicant that is chosen


def applications(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 5) in [0, 1] and whether a loan was approved (count,)."""
    x = rng.random((count, len(FEATURES)))
    income, debt, savings, years, age = x.T
    score = income * (0.5 + years) + 0.6 * savings - 1.2 * debt * (1.3 - income) - 0.3 * np.abs(age - 0.5)
    return x, (score + 0.05 * rng.normal(size=count) > 0.3).astype(int)


def train(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Weights of a network with two hidden layers, by Adam on cross-entropy."""
    sizes = (x.shape[1], HIDDEN, HIDDEN, 2)
    weights: list[np.ndarray] = []
    for before, after in pairwise(sizes):
        weights += [rng.normal(size=(before, after)) * np.sqrt(2 / before), np.zeros(after)]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step in range(1, 1501):
        rows = rng.integers(len(x), size=128)
        values = [x[rows]]
        for layer in range(3):
            values.append(values[-1] @ weights[2 * layer] + weights[2 * layer + 1])
            if layer < 2:
                values[-1] = np.maximum(values[-1], 0)
        shares = np.exp(values[3] - values[3].max(axis=1, keepdims=True))
        back = shares / shares.sum(axis=1, keepdims=True) - np.eye(2)[y[rows]]
        for layer in (2, 1, 0):
            gradients = (values[layer].T @ back / len(rows), back.mean(axis=0))
            back = (back @ weights[2 * layer].T) * (values[layer] > 0)
            for place, gradient in zip((2 * layer, 2 * layer + 1), gradients, strict=True):
                first[place] = 0.9 * first[place] + 0.1 * gradient
                second[place] = 0.999 * second[place] + 0.001 * gradient**2
                rate = 5e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights[place] -= rate * first[place] / (np.sqrt(second[place]) + 1e-8)
    return weights


def save(weights: list[np.ndarray], path: Path) -> None:
    """The network as ONNX."""
    names = [f"w{i}" for i in range(len(weights))]
    nodes = []
    for layer in range(3):
        given = "x" if layer == 0 else f"r{layer - 1}"
        nodes.append(helper.make_node("Gemm", [given, names[2 * layer], names[2 * layer + 1]], [f"g{layer}"]))
        if layer < 2:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [f"r{layer}"]))
    graph = helper.make_graph(
        nodes,
        "loans",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(FEATURES)])],
        [helper.make_tensor_value_info("g2", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(w.astype(np.float32), name) for w, name in zip(weights, names, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", default="l1", choices=("linf", "l1", "l2"))
    parser.add_argument("--grid", type=int, default=41)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    x, y = applications(4000, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loans.onnx"
        save(train(x[:3000], y[:3000], rng), path)
        network = mipverify.load(path)
        replay = replay_of(network)
        right = replay.run(x[3000:].astype(np.float32)).argmax(axis=1) == y[3000:]
        print(f"accuracy on 1000 applications: {right.mean():.3f}")

        scores = replay.run(x[3000:].astype(np.float32))
        person = int(np.argmin(np.where(scores[:, 0] > scores[:, 1] + MARGIN, scores[:, 0] - scores[:, 1], np.inf)))
        applicant = x[3000 + person].astype(np.float32)
        print("refused:", ", ".join(f"{name} {value:.3f}" for name, value in zip(FEATURES, applicant, strict=True)))

        # Savings less debt may not rise by more than 0.1: money must come from somewhere.
        row = np.array([0.0, -1.0, 1.0, 0.0, 0.0])
        limit = float(row @ applicant.astype(np.float64)) + 0.1
        given = {"norm": options.norm, "scale": SCALE, "constraints": [(row, limit)]}
        found = mipverify.minimum_distortion(network, applicant, 0, gap=1e-3, timeout=60, **given)
        print(f"{found.status}: {options.norm} distance {found.lower:.6g} to {found.upper}")
        if found.witness is not None:
            step = found.witness.input.reshape(-1) - applicant
            print("approved with:", ", ".join(f"{n} {v:+.4f}" for n, v in zip(FEATURES, step, strict=True) if v))

        free = np.flatnonzero(SCALE)
        reach = 1.5 * (found.lower if found.upper is None else found.upper) * SCALE[free]
        sides = [
            np.linspace(max(0, value - far), min(1, value + far), options.grid)
            for value, far in zip(applicant[free].tolist(), reach.tolist(), strict=True)
        ]
        axes = np.meshgrid(*sides, indexing="ij")
        points = np.repeat(applicant[None].astype(np.float64), axes[0].size, axis=0)
        points[:, free] = np.stack([axis.reshape(-1) for axis in axes], axis=1)
        points = points[points @ row <= limit].astype(np.float32)
        outputs = replay.run(points)
        approved = outputs[:, 1] >= outputs[:, 0]
        step = np.abs(points[:, free].astype(np.float64) - applicant[free].astype(np.float64)) / SCALE[free]
        order = {"linf": np.inf, "l1": 1, "l2": 2}[options.norm]
        nearest = float(np.linalg.norm(step[approved], ord=order, axis=1).min(initial=np.inf))
        print(f"closest of {len(points)} points of a grid: {nearest:.6g}")
        agrees = nearest >= found.lower and (found.upper is not None or not approved.any())
        print("brute force agrees" if agrees else "brute force DISAGREES")
        return 0 if agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
