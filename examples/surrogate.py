"""A trained network as part of an optimization model: the best operating point of a plant that a network stands for.

    python examples/surrogate.py

Trains a small network on a measured yield (of temperature and flow, both scaled to [0, 1]) with a few lines of numpy,
embeds it in a PuLP model with a price for the flow and a limit on both, and maximizes the profit with CBC and with
HiGHS. Checks the optimum by enumeration of a grid with ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pulp
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.network.replay import replay_of

SIZES = (2, 16, 16, 1)
PRICE = 0.4  # of one unit of flow
LIMIT = 1.2  # on temperature + flow
AGREE = 1e-4  # how far solvers' answers may differ from the network's value


def measured(x: np.ndarray) -> np.ndarray:
    """The yield (N, 1) at x (N, 2): two hills."""
    hills = [((0.25, 0.7), 0.05, 1.0), ((0.8, 0.35), 0.08, 0.9)]
    return sum(h * np.exp(-((x - np.array(c)) ** 2).sum(axis=1, keepdims=True) / w) for c, w, h in hills)


def train(
    sizes: Sequence[int], target: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> list[np.ndarray]:
    """Weights and biases of a dense network of these sizes, by Adam on the squared error over the unit box."""
    weights: list[np.ndarray] = []
    for before, after in pairwise(sizes):
        weights += [rng.normal(size=(before, after)) * np.sqrt(2 / before), np.zeros(after)]
    layers = len(sizes) - 1
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step in range(1, 3001):
        values = [rng.random((128, sizes[0]))]
        for layer in range(layers):
            values.append(values[-1] @ weights[2 * layer] + weights[2 * layer + 1])
            if layer < layers - 1:
                values[-1] = np.maximum(values[-1], 0)
        back = 2 * (values[-1] - target(values[0])) / len(values[0])
        for layer in reversed(range(layers)):
            gradients = (values[layer].T @ back, back.sum(axis=0))
            back = (back @ weights[2 * layer].T) * (values[layer] > 0)
            for place, gradient in zip((2 * layer, 2 * layer + 1), gradients, strict=True):
                first[place] = 0.9 * first[place] + 0.1 * gradient
                second[place] = 0.999 * second[place] + 0.001 * gradient**2
                rate = 5e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights[place] -= rate * first[place] / (np.sqrt(second[place]) + 1e-8)
    return weights


def save(weights: list[np.ndarray], path: Path) -> None:
    """The network as ONNX."""
    nodes, layers = [], len(weights) // 2
    for layer in range(layers):
        given = "x" if layer == 0 else f"r{layer - 1}"
        nodes.append(helper.make_node("Gemm", [given, f"w{2 * layer}", f"w{2 * layer + 1}"], [f"g{layer}"]))
        if layer < layers - 1:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [f"r{layer}"]))
    graph = helper.make_graph(
        nodes,
        "yield",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(weights[0])])],
        [helper.make_tensor_value_info(f"g{layers - 1}", TensorProto.FLOAT, ["N", len(weights[-1])])],
        [numpy_helper.from_array(w.astype(np.float32), f"w{k}") for k, w in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=401)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "yield.onnx"
        save(train(SIZES, measured, np.random.default_rng(0)), path)
        network = mipverify.load(path)
        replay = replay_of(network)

        model = pulp.LpProblem("plant", pulp.LpMaximize)
        temperature, flow = (pulp.LpVariable(name, 0, 1) for name in ("temperature", "flow"))
        (produced,) = mipverify.embed(model, network, [temperature, flow], name="plant")
        model += produced - PRICE * flow
        model += temperature + flow <= LIMIT, "limit"
        binaries = sum(variable.cat == pulp.LpInteger for variable in model.variables())
        print(f"{sum(SIZES[1:-1])} ReLUs, {binaries} binaries")

        optima, exact = [], True
        for solver in (pulp.PULP_CBC_CMD(msg=False), pulp.HiGHS(msg=False, gapRel=1e-7)):
            model.solve(solver)
            point = np.array([[temperature.value(), flow.value()]], np.float32)
            value = float(replay.run(point)[0, 0]) - PRICE * flow.value()
            optima.append(model.objective.value())
            exact &= model.status == pulp.LpStatusOptimal and abs(value - optima[-1]) <= AGREE
            print(f"{solver.name}: profit {optima[-1]:.6f} at {point[0, 0]:.4f}, {point[0, 1]:.4f}")

        side = np.linspace(0, 1, options.grid)
        points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        points = points[points.sum(axis=1) <= LIMIT]
        best = float((replay.run(points.astype(np.float32))[:, 0] - PRICE * points[:, 1]).max())
        print(f"best of {len(points)} points of a grid: {best:.6f}")
        agrees = exact and all(best - AGREE <= optimum <= best + 2 / options.grid for optimum in optima)
        agrees &= abs(optima[0] - optima[1]) <= AGREE
        print("brute force agrees" if agrees else "brute force DISAGREES")
        return 0 if agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
