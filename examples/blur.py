"""Adversarial blurring: the 3 x 3 kernel is the variable, as in MIPVerify.jl.

    python examples/blur.py

Every kernel with entries that are not negative and sum to one is allowed; at share r of the family no entry but the
middle one exceeds r. Prints whether any kernel changes the class of a digit and the smallest margin that was proven,
and checks both by brute force: no sampled kernel may have a smaller margin.
"""

from __future__ import annotations

import argparse
from importlib.resources import files

import numpy as np

import mipverify
from mipverify.network.replay import replay_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=3, help="which of the hundred bundled digits")
    parser.add_argument("--share", type=float, default=0.3, help="share of the family that is asked about")
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()

    zoo = files("mipverify.models.zoo")
    network = mipverify.load(str(zoo / "mnist_small_linf0.1.onnx"))
    data = mipverify.load_dataset(str(zoo / "mnist_100.npz")).fit_to(network.input_shape)
    image, label = data.image(options.index), data.label(options.index)

    family = mipverify.blur(image, 3)
    verdict = family.verify(network, label, radius=options.share, timeout=30)
    print(f"digit {options.index} ({label}), kernels up to share {options.share:g}: {verdict.verdict}")
    print(f"smallest margin proven: {verdict.margin_lower_bound}")

    rng, replay = np.random.default_rng(0), replay_of(network)
    kernels = rng.uniform(0, options.share, (options.samples, 8)) * (rng.random((options.samples, 8)) < 0.7)
    kernels /= np.maximum(1, kernels.sum(axis=1, keepdims=True))
    scores = replay.run(np.stack([family.image(p) for p in kernels]).astype(np.float32))
    margins = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
    print(f"smallest margin of {options.samples} sampled kernels: {margins.min():.6g}")
    wrong = bool((margins <= 0).any())
    if verdict.witness is not None:
        kernel = np.insert(verdict.statistics["parameters"], 4, 1 - np.sum(verdict.statistics["parameters"]))
        print(f"kernel that changes the class:\n{kernel.reshape(3, 3).round(4)}")
        scores = replay.run(verdict.witness.input.reshape(1, -1))[0]
        agrees = bool(np.delete(scores, label).max() >= scores[label])
    else:
        agrees = not wrong and verdict.margin_lower_bound is not None and margins.min() >= verdict.margin_lower_bound
    print("brute force agrees" if agrees else "brute force DISAGREES")
    return 0 if agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
