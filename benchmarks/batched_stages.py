#!/usr/bin/env python3
"""CPU milliseconds a sample of the batched stages of a report, in this process, and who decided how many samples.

OMP_NUM_THREADS=1 benchmarks/batched_stages.py NET.onnx DATA EPS [--samples 0:512] [--runs 5]
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time

import mipverify
from mipverify.engine.batch import verify_batch


def main() -> None:
    """Time the stages several times; the median counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("eps")
    parser.add_argument("--samples", default="0:512")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    begin, end = map(int, args.samples.split(":"))
    network = mipverify.load(args.network)
    dataset = mipverify.load_dataset(args.data).fit_to(network.input_shape)
    images, labels = dataset.batch(begin, end), dataset.labels[begin:end]
    costs, stages = [], collections.Counter[str]()
    for _ in range(args.runs):
        stages.clear()
        start = time.process_time()
        for result in verify_batch(network, images, labels, args.eps, only_cheap=True):
            stages[f"{result.stage}: {result.verdict}"] += 1
        costs.append(1000 * (time.process_time() - start) / len(images))
    print(f"median {statistics.median(costs):.2f} ms of CPU a sample, {min(costs):.2f} to {max(costs):.2f}")
    for stage, count in stages.most_common():
        print(f"{count:7} {stage}")


if __name__ == "__main__":
    main()
