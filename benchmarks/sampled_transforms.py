#!/usr/bin/env python3
"""Proven margins of images under a rotation or the like against sampled transforms: none may lie below.

OMP_NUM_THREADS=1 benchmarks/sampled_transforms.py NET.onnx DATA THREAT [--images 0,1,2] [--samples 100000]

Of each image the proven lower bound, and the least margin of uniform samples and of all corners.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

import mipverify
from mipverify.engine.threats.parse import parse_threat
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from mipverify.engine.threats.transforming import Transforming

AT_ONCE = 500  # transforms


def main() -> None:
    """One line for each image; exit status 1 where a sample lies below what is proven."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("threat")
    parser.add_argument("--images", default="0,1,2")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--timeout", type=float, default=120.0)
    args = parser.parse_args()
    network, threat = mipverify.load(args.network), parse_threat(args.threat)
    data = mipverify.load_dataset(args.data).fit_to(network.input_shape)
    if not isinstance(threat, Transforming):
        raise SystemExit(f"{args.threat}: is no rotation, translation or scaling")
    rng = np.random.default_rng(0)
    for index in map(int, args.images.split(",")):
        sample = Sample.of(data, index, data.label(index))
        began = time.process_time()
        verdict = threat.verify(network, sample, Limits(args.timeout))
        seconds = time.process_time() - began
        transforms = threat.transforms(sample)
        count = len(transforms.names)
        shares = rng.uniform(-1, 1, (args.samples, count))
        corners = np.array(list(itertools.product((-1, 0, 1), repeat=count)))
        least = np.inf
        for part in np.array_split(np.concatenate([corners, shares]), max(1, args.samples // AT_ONCE)):
            images = transforms.values(part * transforms.inward)
            scores = network.forward(images.reshape(len(part), *network.input_shape)).reshape(len(part), -1)
            others = np.delete(scores, sample.label, axis=1).max(axis=1)
            least = min(least, float((scores[:, sample.label] - others).min()))
        proven = verdict.margin_lower_bound
        shown = "nothing" if proven is None else f"{proven:.4f}"
        print(f"image {index}: {verdict.verdict} in {seconds:.1f} s of CPU, proven {shown}, sampled {least:.4f}")
        if proven is not None and verdict.verdict == "holds" and not proven <= least:
            raise SystemExit("a sample lies below what is proven")


if __name__ == "__main__":
    main()
