#!/usr/bin/env python3
"""Surrogates in optimization models, embedded by mipverify and by OMLT: binaries, and seconds to the optimum.

OMP_NUM_THREADS=1 benchmarks/beside_omlt.py     (pip install omlt pyomo)

Each network is trained on hills in the unit box, and maximized over the whole box and over a trust region around its
middle. Both models go through LP files to the same HiGHS, with one thread and no gap; seconds are CPU seconds of the
search, the median over seeds.
"""

from __future__ import annotations

import logging
import runpy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import onnx
import pulp

import mipverify

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "surrogate.py"))
SURROGATES = ((2, 16, 16, 1), (4, 24, 24, 1), (8, 32, 32, 1))
BOXES = ((0.0, 1.0), (0.4, 0.6))
LIMIT = 60.0  # seconds of a search
SEEDS = 5  # searches, of which the median counts


def hills(x: np.ndarray) -> np.ndarray:
    """Values (N, 1) at x (N, n)."""
    return sum(np.exp(-4 * ((x - c) ** 2).sum(axis=1, keepdims=True)) * h for c, h in ((0.3, 1.0), (0.8, 0.9)))


def by_mipverify(path: Path, inputs: int, low: float, high: float, out: Path) -> None:
    """Write the model with the network embedded."""
    model = pulp.LpProblem("m", pulp.LpMinimize)
    (value,) = mipverify.embed(
        model, mipverify.load(path), [pulp.LpVariable(f"x{k}", low, high) for k in range(inputs)]
    )
    model += -1 * value
    model.writeLP(str(out))


def by_omlt(path: Path, inputs: int, low: float, high: float, out: Path) -> None:
    """The same with OMLT's big-M formulation, whose bounds come from intervals."""
    import pyomo.environ as pyo
    from omlt import OmltBlock
    from omlt.io.onnx import load_onnx_neural_network
    from omlt.neuralnet import ReluBigMFormulation

    network = onnx.load(path)
    for k, node in enumerate(network.graph.node):  # it asks for names, and for attributes that have their defaults
        node.name = f"node{k}"
        if node.op_type == "Gemm":
            node.attribute.extend(
                onnx.helper.make_attribute(key, value) for key, value in (("alpha", 1.0), ("beta", 1.0), ("transB", 0))
            )
    model: Any = pyo.ConcreteModel()
    model.block = OmltBlock()
    definition = load_onnx_neural_network(network, input_bounds=[(low, high)] * inputs)
    model.block.build_formulation(ReluBigMFormulation(definition))
    model.objective = pyo.Objective(expr=-next(iter(model.block.outputs.values())))
    model.write(str(out))


def solved(path: Path, seed: int) -> tuple[int, float, float]:
    """Binaries of a model file, its minimum (NaN without a proof of it), and seconds of the search."""
    engine = highspy.Highs()
    options = {"output_flag": False, "threads": 1, "mip_rel_gap": 0.0, "time_limit": LIMIT, "random_seed": seed}
    for name, value in options.items():
        engine.setOptionValue(name, value)
    engine.readModel(str(path))
    binaries = sum(kind == highspy.HighsVarType.kInteger for kind in engine.getLp().integrality_)
    begin = time.process_time()
    engine.run()
    done = engine.getModelStatus() == highspy.HighsModelStatus.kOptimal
    value = engine.getInfo().objective_function_value if done else float("nan")
    return binaries, value, time.process_time() - begin


def main() -> None:
    """One line for each surrogate, box and tool."""
    logging.getLogger("pyomo").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "net.onnx", Path(folder) / "model.lp"
        for sizes in SURROGATES:
            EXAMPLE["save"](EXAMPLE["train"](sizes, hills, np.random.default_rng(0)), path)
            for low, high in BOXES:
                for write in (by_omlt, by_mipverify):
                    write(path, sizes[0], low, high, out)
                    runs = [solved(out, seed) for seed in range(SEEDS)]
                    name, binaries = "-".join(map(str, sizes)), runs[0][0]
                    optima = ", ".join(f"{-value:.6f}" for value in sorted({round(value, 6) for _, value, _ in runs}))
                    median = statistics.median(seconds for *_, seconds in runs)
                    print(
                        f"{name:12} [{low}, {high}]  {write.__name__:13} {binaries:3} binaries, optimum {optima}, "
                        f"{median:.2f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
