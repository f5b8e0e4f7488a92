"""Cheap figures of a network on some images: accuracy, what intervals prove, unstable units."""

from __future__ import annotations

import numpy as np
import torch
from mipverify.models.adversarial import pgd_attack
from mipverify.models.certified import margins_from
from mipverify.models.differentiable import input_box
from mipverify.models.quick import attack_twin
from mipverify.models.training.data import Images
from mipverify.models.training.files import Trained
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
            bounds = interval(network, *input_box(x, eps))
            right += int((trained.module(x).argmax(1) == y).sum())
            proven += int(((margins_from(bounds, y) > 0).sum(1) == network.output_size - 1).sum())
            unstable += int(bounds.unstable_counts().sum())
    count = len(images)
    return {"test accuracy": right / count, "bounded accuracy": proven / count, "unstable units": unstable / count}


def verified_accuracy(trained: Trained, images: Images, eps: float) -> float:
    """Share of images that the better of intervals and CROWN over interval bounds proves at radius eps, to rounding.

    Costs about as much as 10 passes of the images through the network, back and forth.
    """
    network = Network.from_torch(trained.module, trained.input_shape)
    proven = 0
    with torch.no_grad():
        for x, y in zip(images.pixels.split(BATCH // 5), images.labels.split(BATCH // 5), strict=True):
            bounds = interval(network, *input_box(x, eps))
            margins = torch.maximum(margins_from(bounds, y), margins_from(bounds, y, "crown"))
            proven += int(((margins > 0).sum(1) == network.output_size - 1).sum())
    return proven / len(images)


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
    twin = attack_twin(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for x, y in zip(images.pixels.split(BATCH), images.labels.split(BATCH), strict=True):
            held = module(x).argmax(1) == y
            for _ in range(restarts):
                point = pgd_attack(twin, x, y, eps, steps=steps)
                held = held & (module(point).argmax(1) == y)
            right.append(held)
    return float(torch.cat(right).float().mean())


def unstable_by_layer(trained: Trained, images: Images, eps: float) -> list[float]:
    """Mean number of units of each ReLU layer that interval arithmetic leaves unstable at radius eps."""
    network = Network.from_torch(trained.module, trained.input_shape)
    total = np.zeros(len(network.relus))
    with torch.no_grad():
        for x in images.pixels.split(BATCH):
            bounds = interval(network, *input_box(x, eps))
            total += bounds.unstable_counts().sum(axis=0)
    return [float(count) for count in total / len(images)]
