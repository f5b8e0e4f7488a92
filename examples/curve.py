"""Adversarial accuracy of a bundled network over the radius, in one run, and what it would have cost radius by radius.

    python examples/curve.py --figure curve.png

Prints the interval at every radius and how many questions were asked, and checks the curve by brute force: no random
input around an image may change a class that is proven at that radius. With --figure also plots it (needs matplotlib).
"""

from __future__ import annotations

import argparse
from importlib.resources import files

import numpy as np

import mipverify
from mipverify.network.replay import replay_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", default="0.02,0.05,0.08,0.1", help="radii")
    parser.add_argument("--count", type=int, default=40, help="how many of the hundred bundled digits")
    parser.add_argument("--samples", type=int, default=20, help="random inputs around each, at each radius")
    parser.add_argument("--figure", help="where the plot goes")
    options = parser.parse_args()

    zoo = files("mipverify.models.zoo")
    network = mipverify.load(str(zoo / "mnist_small_linf0.1.onnx"))
    data = mipverify.load_dataset(str(zoo / "mnist_100.npz")).fit_to(network.input_shape)
    images, labels = data.images[: options.count], data.labels[: options.count]

    curve = mipverify.adversarial_accuracy(
        network, images, labels, options.eps.split(","), workers=0, timeout=20, progress=True
    )
    for point in curve.points:
        error = point.summary["adversarial_error"]
        print(f"{point.summary['eps']}: accuracy {1 - error['upper']:.1%} to {1 - error['lower']:.1%}")
    asked = sum(not sample.decided_at for sample in curve.samples)
    print(f"{asked} questions for {len(curve.samples)} verdicts")
    if options.figure:
        curve.plot_curve().figure.savefig(options.figure, dpi=150)

    rng, replay, agrees = np.random.default_rng(0), replay_of(network), True
    for point in curve.points:
        radius = float(point.summary["eps"])
        for sample in point.samples:
            if sample.verdict == "holds":
                around = images[sample.index] + radius * rng.choice((-1, 1), (options.samples, *images.shape[1:]))
                scores = replay.run(around.clip(0, 1).astype(np.float32).reshape(options.samples, -1))
                agrees &= bool((scores.argmax(axis=1) == sample.label).all())
    print("brute force agrees" if agrees else "brute force DISAGREES")
    return 0 if agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
