"""Three hundred small questions about a bundled network in one session: `python examples/many_questions.py`.

Asks of each image and radius whether the class can change, shows a bar, and says how many questions hold at each
radius. Random inputs around each image check the answers: none may change a class that is proven.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import files

import numpy as np

import mipverify
from mipverify.network.replay import replay_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", default="0.02,0.05,0.1", help="radii")
    parser.add_argument("--count", type=int, default=100, help="how many of the hundred bundled digits")
    parser.add_argument("--samples", type=int, default=20, help="random inputs around each, at each radius")
    options = parser.parse_args()

    zoo = files("mipverify.models.zoo")
    network = mipverify.load(str(zoo / "mnist_small_linf0.1.onnx"))
    data = mipverify.load_dataset(str(zoo / "mnist_100.npz")).fit_to(network.input_shape)
    radii = options.eps.split(",")
    questions = [(data.image(k), data.label(k), eps) for eps in radii for k in range(options.count)]

    began = time.perf_counter()
    with mipverify.Session(network) as session:
        answers = session.verify_all(questions, timeout=20, progress=True)
    for turn, eps in enumerate(radii):
        own = answers[turn * options.count : (turn + 1) * options.count]
        held = sum(isinstance(answer, mipverify.Verdict) and answer.verdict == "holds" for answer in own)
        print(f"{eps}: {held} of {len(own)} hold")
    print(f"{len(questions)} questions in {time.perf_counter() - began:.2f} s")

    rng, replay = np.random.default_rng(0), replay_of(network)
    for (image, label, eps), answer in zip(questions, answers, strict=True):
        if isinstance(answer, mipverify.Verdict) and answer.verdict == "holds":
            noise = rng.uniform(-1, 1, (options.samples, image.size)) * float(eps)
            near = np.clip(image.reshape(1, -1) + 0.999 * noise, 0, 1).astype(np.float32)
            if (replay.run(near).argmax(axis=1) != label).any():
                print("brute force found an input that changes a class that was proven")
                return 1
    print("brute force agrees")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
