#!/usr/bin/env python3
"""Unstable units and accuracy of a network with batch normalization, trained with and without the RS loss.

OMP_NUM_THREADS=1 benchmarks/normalized_stability.py TRAIN.npz TEST.npz [--weight 3e-4] [--epochs 8] [--plain-epochs 18]
    [--images 10000] [--eps 0.1] [--seeds 0 1]

TRAIN.npz, TEST.npz: MNIST as `images` (N, 28, 28) or (N, 1, 28, 28) uint8 and `labels` (N,). Each network is trained on
examples of a two-step attack whose radius grows over the first half. Unstable units are those of intervals over 100
test images, accuracy is that of 2000. Plain epochs are more, so that both take about the same CPU time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mipverify.models import adversarial_loss, relu_stability_loss, unstable_units
from torch import Tensor, nn

BATCH = 64


def network() -> nn.Sequential:
    """Two convolutions and a dense layer: 4,804 units."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def images(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first images (count, 1, 28, 28) of a file, from 0 to 1, and their labels."""
    with np.load(path) as data:
        x = torch.from_numpy(data["images"][:count].reshape(-1, 1, 28, 28) / np.float32(255))
        return x, torch.from_numpy(data["labels"][:count]).long()


def trained(x: Tensor, y: Tensor, eps: float, weight: float, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """A network after so many epochs, and the CPU seconds that they took."""
    torch.manual_seed(seed)
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    begin, steps, step = time.process_time(), epochs * -(-len(x) // BATCH), 0
    for _ in range(epochs):
        for some in torch.randperm(len(x)).split(BATCH):
            radius = eps * min(1.0, 2 * step / steps)
            loss = adversarial_loss(module, x[some], y[some], radius, steps=2)
            if weight:
                loss = loss + weight * relu_stability_loss(module, x[some], eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return module.eval(), time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--weight", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--plain-epochs", type=int, default=18)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y = images(options.train, options.images)
    test, labels = images(options.test, 2000)
    for seed in options.seeds:
        for weight, epochs in ((options.weight, options.epochs), (0.0, options.plain_epochs)):
            module, seconds = trained(x, y, options.eps, weight, epochs, seed)
            with torch.no_grad():
                right = (module(test).argmax(1) == labels).float().mean().item()
            unstable = unstable_units(module, test[:100], options.eps)
            asked = f"seed {seed}, weight {weight:g}, {epochs} epochs, {seconds:.0f} CPU s"
            print(f"{asked}: {100 * right:.2f} % right; unstable units {unstable}", flush=True)


if __name__ == "__main__":
    main()
