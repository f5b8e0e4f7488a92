#!/usr/bin/env python3
"""CPU seconds of many small questions about one network: a session against one call of `verify` after the other.

OMP_NUM_THREADS=1 benchmarks/many_questions.py NET.onnx EPS... [--data DATA] [--count 100] [--runs 3]

With --data balls around its first images; without it, around random points of [-0.5, 0.5]^n, whose class must
not change.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time

import numpy as np

import mipverify
from mipverify.network.replay import replay_of
from mipverify.specification import Specification


def questions(network: mipverify.Network, data: str | None, radii: list[str], count: int) -> list[Specification]:
    """A question for each radius and input."""
    if data is not None:
        given = mipverify.load_dataset(data).fit_to(network.input_shape)
        images, labels, domain = given.images[:count], given.labels[:count], (0, 1)
    else:
        images = (np.random.default_rng(0).random((count, network.input_size)) - 0.5).astype(np.float32)
        labels, domain = replay_of(network).run(images).argmax(axis=1), None
    classes = network.output_size
    return [
        mipverify.robustness(x, int(y), eps, num_classes=classes, domain=domain)
        for eps in radii
        for x, y in zip(images, labels, strict=True)
    ]


def main() -> None:
    """Both ways in turn, several times; the medians count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("eps", nargs="+")
    parser.add_argument("--data")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    network = mipverify.load(args.network)
    asked = questions(network, args.data, args.eps, args.count)
    mipverify.verify(network, asked[0])  # what is imported on the first question
    costs: dict[str, list[float]] = {"single calls": [], "session": []}
    for _ in range(args.runs):
        start = time.process_time()
        single = [mipverify.verify(network, one) for one in asked]
        costs["single calls"].append(time.process_time() - start)
        start = time.process_time()
        with mipverify.Session(network) as session:
            found = session.verify_all(asked)
        costs["session"].append(time.process_time() - start)
        words = [one.verdict if isinstance(one, mipverify.Verdict) else str(one) for one in found]
        if words != [one.verdict for one in single]:
            raise SystemExit("the verdicts differ")
    for name, each in costs.items():
        print(f"{name}: median {statistics.median(each):.2f} s of CPU, {min(each):.2f} to {max(each):.2f}")
    print(", ".join(f"{count} {word}" for word, count in collections.Counter(words).most_common()))


if __name__ == "__main__":
    main()
