"""Cheap figures of a network on some images: accuracy, what intervals prove, unstable units."""

from __future__ import annotations

import torch
from mipverify.models.training.data import Images
from mipverify.models.training.files import Trained
from mipverify.models.training.objective import attack, worst_logits
from mipverify.presolve import interval
from torch import Tensor, nn

from mipverify.network import Network

BATCH = 500


def quick_metrics(trained: Trained, images: Images, eps: float) -> dict[str, float]:
    """`test accuracy`, `bounded accuracy` (proven by interval arithmetic) and mean `unstable units` at radius eps."""
    network = Network.from_torch(trained.module, trained.input_shape)
    right, proven, unstable = 0, 0, 0
    with torch.no_grad():
        for x, y in zip(images.pixels.split(BATCH), images.labels.split(BATCH), strict=True):
            bounds = interval(network, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
            right += int((trained.module(x).argmax(1) == y).sum())
            proven += int((worst_logits(bounds, y).argmax(1) == y).sum())
            unstable += int(bounds.unstable_counts().sum())
    count = len(images)
    return {"test accuracy": right / count, "bounded accuracy": proven / count, "unstable units": unstable / count}


def accuracy(module: nn.Module, images: Images) -> float:
    """Share of images that are classified as their label."""
    with torch.no_grad():
        right = [
            (module(x).argmax(1) == y).sum()
            for x, y in zip(images.pixels.split(BATCH), images.labels.split(BATCH), strict=True)
        ]
    return int(torch.stack(right).sum()) / len(images)


def attacked_accuracy(
    module: nn.Module, images: Images, eps: float, *, steps: int = 40, restarts: int = 1, seed: int = 0
) -> float:
    """Share of images that are classified as their label after every one of `restarts` PGD attacks."""
    right: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for x, y in zip(images.pixels.split(BATCH), images.labels.split(BATCH), strict=True):
            held = module(x).argmax(1) == y
            for _ in range(restarts):
                point = attack(module, x, y, eps, steps, 2.5 * eps / steps)
                held = held & (module(point).argmax(1) == y)
            right.append(held)
    return float(torch.cat(right).float().mean())
