#!/usr/bin/env python3
"""CPU milliseconds of one training step on the paper's MNIST network, loss by loss, against the attacked step.

OMP_NUM_THREADS=1 benchmarks/training_cost.py [--eps 0.1] [--batch 64] [--rows 128] [--runs 7]

A step is a loss and its backward pass. Each run times all losses in turn; medians count. The network is that of Xiao et
al. 2019 for MNIST, at its random start, when nearly every unit is unstable: rows are as many as they ever are.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import torch
from mipverify.models import Traced, adversarial_loss, certified_loss, relu_stability_loss, weight_sparsity
from torch import Tensor, nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(str(files("mipverify.models.zoo") / "mnist_100.npz")) as data:
        x = torch.from_numpy(data["images"][: args.batch].reshape(-1, 1, 28, 28) / np.float32(255))
        y = torch.from_numpy(data["labels"][: args.batch]).long()
    module = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    traced, eps, rows = Traced(module, (1, 28, 28)), args.eps, args.rows
    attacked = "attacked step (PGD, 8 steps)"
    losses: dict[str, Callable[[], Tensor]] = {
        attacked: lambda: adversarial_loss(module, x, y, eps),
        "clean step": lambda: nn.functional.cross_entropy(module(x), y),
        "weight sparsity": lambda: weight_sparsity(traced),
        "RS loss, interval": lambda: relu_stability_loss(traced, x, eps),
        "RS loss, improved interval": lambda: relu_stability_loss(
            traced, x, eps, bounds="improved_interval", rows=rows
        ),
        "RS loss, CROWN": lambda: relu_stability_loss(traced, x, eps, bounds="crown", rows=rows),
        "certified loss, interval": lambda: certified_loss(traced, x, y, eps),
        "certified loss, CROWN": lambda: certified_loss(traced, x, y, eps, bounds="crown"),
    }
    times: dict[str, list[float]] = {name: [] for name in losses}
    for run in range(args.runs + 1):
        for name, loss in losses.items():
            start = time.process_time()
            module.zero_grad()
            loss().backward()
            if run:  # the first one warms up
                times[name].append(time.process_time() - start)
    whole = statistics.median(times[attacked])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:30} {1000 * median:7.1f} ms   {median / whole:5.2f} of the attacked step")


if __name__ == "__main__":
    main()
