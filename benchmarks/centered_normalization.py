#!/usr/bin/env python3
"""CPU milliseconds of one step of interval-bounded training, normalized by a clean pass and by the centres of bounds.

OMP_NUM_THREADS=1 benchmarks/centered_normalization.py [--architecture cnn_norm] [--batch 100] [--runs 11]

A step has the loss of `mipverify train --preset mnist-normalized --eps 0.3` at its full radius: loss, backward pass and
the optimizer's step. Both kinds are timed in turn, each twice, the second time as a control; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import torch
from mipverify.models.architectures import build
from mipverify.models.initialization import ibp_initialization
from mipverify.models.training import preset
from mipverify.models.training.objective import Objective, Sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="cnn_norm")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--runs", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(str(files("mipverify.models.zoo") / "mnist_100.npz")) as data:
        x = torch.from_numpy(data["images"][: args.batch].reshape(-1, 1, 28, 28) / np.float32(255))
        y = torch.from_numpy(data["labels"][: args.batch]).long()
    kinds = ("clean", "centers", "clean, again", "centers, again")
    steps = {kind: step_of(args.architecture, kind.partition(",")[0], x, y) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for run in range(args.runs + 1):  # the first is not counted
        for kind, step in steps.items():
            begin = time.process_time()
            step()
            if run:
                times[kind].append(time.process_time() - begin)
    for kind, found in times.items():
        print(f"{kind:16s} {1e3 * statistics.median(found):6.0f} ms, least {1e3 * min(found):.0f}")


def step_of(architecture: str, normalized: str, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of a fresh network, which goes on from call to call."""
    options = preset("mnist-normalized", eps=0.3, architecture=architecture, statistics=normalized)
    module = build(architecture, seed=0)
    ibp_initialization(module, generator=torch.Generator().manual_seed(0))
    objective = Objective(module.train(), (1, 28, 28), options)
    optimizer = torch.optim.Adam(module.parameters(), lr=options.learning_rate)

    def step() -> None:
        loss = objective(x, y, 1.0, Sums())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
