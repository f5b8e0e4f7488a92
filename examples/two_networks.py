"""Is a pruned network of the same opinion as the original? A property of VNN-LIB 2 about two networks, and its answer.

Takes a small network and the same with small weights removed, and asks whether some image of a set gets a first score
that differs by so much: `python examples/two_networks.py`.
"""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import mipverify

INPUTS = 784
HEAD = """(vnnlib-version <2.0>)
(declare-network original (declare-input X float32 [1,1,28,28]) (declare-output Y float32 [1,10]))
(declare-network pruned (isomorphic-to original)
  (declare-input U float32 [1,1,28,28]) (declare-output V float32 [1,10]))
"""


def prune(source: Path, target: Path, below: float) -> int:
    """Write a network without its weights of small magnitude; returns how many these are."""
    model = onnx.load(source)
    removed = 0
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor).copy()
        if weights.ndim < 2:
            continue
        small = np.abs(weights) < below
        removed += int(small.sum())
        weights[small] = 0
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, target)
    return removed


def property_text(image: np.ndarray, eps: float, difference: float) -> str:
    """Both networks see the same image, near the one given, and their first scores differ."""
    lines = [HEAD]
    for index, pixel in zip(np.ndindex(1, 1, 28, 28), image.reshape(-1), strict=True):
        at = ",".join(map(str, index))
        low, high = max(float(pixel) - eps, 0.0), min(float(pixel) + eps, 1.0)
        lines.append(f"(assert (>= X[{at}] {low:.9f})) (assert (<= X[{at}] {high:.9f})) (assert (== X[{at}] U[{at}]))")
    lines.append(f"(assert (or (>= Y[0,0] (+ V[0,0] {difference})) (>= V[0,0] (+ Y[0,0] {difference}))))")
    return "\n".join(lines)


def main() -> None:
    zoo = files("mipverify.models.zoo")
    source = Path(str(zoo / "mnist_small_linf0.1.onnx"))
    image = mipverify.load_dataset(str(zoo / "mnist_100.npz")).image(0)
    with tempfile.TemporaryDirectory() as folder:
        pruned, query = Path(folder) / "pruned.onnx", Path(folder) / "query.vnnlib"
        print(f"{prune(source, pruned, 1e-3)} weights removed")
        for difference in (1.0, 0.01):
            query.write_text(property_text(np.asarray(image), 0.02, difference))
            network, specification = mipverify.load_query(query, {"original": source, "pruned": pruned})
            verdict = mipverify.verify(network, specification, timeout=60)
            print(f"the first scores differ by less than {difference}: {verdict.verdict}")


if __name__ == "__main__":
    main()
