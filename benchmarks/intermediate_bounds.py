"""What CROWN of all unstable units costs: processor seconds, unstable units by layer and peak memory.

    python benchmarks/intermediate_bounds.py NET.onnx PROPERTY.vnnlib [--boxes 16 --share 0.0625] [--repeat 3]

--boxes: that many random parts of the first input box, each with this share of its width along every input, as one
batch. One thread, whatever the environment says.
"""

from __future__ import annotations

import argparse
import os
import resource

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from mipverify.presolve import crown, interval

import mipverify
from mipverify.specification.vnnlib import load_vnnlib


def main() -> None:
    """Measure, and print one line for each repetition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("property")
    parser.add_argument("--boxes", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    network, box = mipverify.load(args.network), load_vnnlib(args.property).cases[0].box
    lower, upper = (side.reshape(1, *network.input_shape) for side in (box.lower, box.upper))
    width = (upper - lower) * args.share
    corner = lower + (upper - lower - width) * np.random.default_rng(0).random((args.boxes, *network.input_shape))
    bounds = interval(network, corner, corner + width)
    for _ in range(args.repeat):
        before = resource.getrusage(resource.RUSAGE_SELF)
        found = crown(bounds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        counts = "+".join(f"{n:g}" for n in np.round(found.unstable_counts().mean(axis=0), 1))
        print(f"{seconds / args.boxes:.4f} s a box, {counts} unstable units, {after.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
