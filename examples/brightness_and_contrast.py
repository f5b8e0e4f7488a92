"""How far brightness and contrast of a digit must go before the network is wrong, with and without noise on top.

    python examples/brightness_and_contrast.py

The images are clip((1 + c) x + b) with |b| and |c| at most a half, times the share that is searched for. Prints the
smallest share with proven bounds, and checks it by brute force: on a grid of b and c no image inside is wrong.
"""

from __future__ import annotations

import argparse
from importlib.resources import files

import numpy as np

import mipverify
from mipverify.network.replay import replay_of

RANGE = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=3, help="which of the hundred bundled digits")
    parser.add_argument("--gap", type=float, default=0.02)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--grid", type=int, default=21)
    options = parser.parse_args()

    zoo = files("mipverify.models.zoo")
    network = mipverify.load(str(zoo / "mnist_small_linf0.1.onnx"))
    data = mipverify.load_dataset(str(zoo / "mnist_100.npz")).fit_to(network.input_shape)
    image, label = data.image(options.index), data.label(options.index)

    family = mipverify.brightness_and_contrast(image, RANGE, RANGE)
    found = family.minimum_distortion(network, label, gap=options.gap, timeout=60)
    print(f"digit {options.index} ({label}): {found.status}, share {found.lower:.6g} to {found.upper}")
    share = found.lower
    if found.witness is not None:
        brightness, contrast = found.statistics["parameters"]
        print(f"closest wrong image: brightness {brightness:+.4f}, contrast {contrast:+.4f}")

    def wrong(parameters: np.ndarray) -> np.ndarray:
        scores = replay_of(network).run(np.stack([family.image(p) for p in parameters]).astype(np.float32))
        return np.asarray(np.delete(scores, label, axis=1).max(axis=1) >= scores[:, label])

    axis = np.linspace(-1, 1, options.grid) * RANGE * share * (1 - 1e-6)
    inside = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    agrees = not wrong(inside).any()
    if found.witness is not None:
        agrees = agrees and bool(wrong(np.array([found.statistics["parameters"]])).all())
    print(f"{len(inside)} images inside: " + ("brute force agrees" if agrees else "brute force DISAGREES"))

    noisy = mipverify.brightness_and_contrast(image, 0.05, 0.05).with_noise(options.noise)
    verdict = noisy.verify(network, label, timeout=30)
    print(f"brightness and contrast of 5 %, and {options.noise:g} on every pixel: {verdict.verdict}")
    return 0 if agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
