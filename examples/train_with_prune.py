"""`torch.nn.utils.prune` and ReLU pruning between training and finetuning: the zeros stay, also in the ONNX file.

    python examples/train_with_prune.py

Trains a tiny classifier on the hundred bundled digits in a few seconds, prunes it in three ways and trains on.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from mipverify.models import (
    Traced,
    adversarial_loss,
    make_permanent,
    pgd_attack,
    prune_relus,
    prune_small_weights,
    relu_stability_loss,
    unstable_units,
    weight_sparsity,
)
from torch import nn
from torch.nn.utils import prune

import mipverify

EPS = 0.05


def bundled_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (100, 1, 28, 28) in [0, 1] and labels (100,)."""
    with np.load(str(files("mipverify.models.zoo") / "mnist_100.npz")) as data:
        images, labels = data["images"], data["labels"]
    return torch.from_numpy(images.reshape(-1, 1, 28, 28) / np.float32(255)), torch.from_numpy(labels).long()


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    traced = Traced(model, (1, 28, 28))  # follows pruned weights too
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(100).split(50):
            x, y = images[batch], labels[batch]
            loss = adversarial_loss(model, x, y, EPS, steps=4)
            loss = loss + 5e-3 * relu_stability_loss(traced, x, EPS) + 5e-6 * weight_sparsity(traced)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def report(name: str, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    with torch.no_grad():
        right = int((model(images).argmax(1) == labels).sum())
    weights = [part.weight for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    nonzero = sum(int((weight != 0).sum()) for weight in weights)
    print(f"{name}: {right} of 100 right, {nonzero} nonzero weights, undecided {unstable_units(model, images, EPS)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    torch.manual_seed(0)
    images, labels = bundled_digits()
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(784, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )
    train(model, images, labels, options.epochs)
    report("trained  ", model, images, labels)

    prune.l1_unstructured(model[3], "weight", amount=0.3)  # torch's own, by share
    prune_small_weights(model, 1e-3)  # on top of it, by size
    counts = prune_relus(model, images, 0.05, attack=lambda x: pgd_attack(model, x, model(x).argmax(1), EPS))
    print("ReLUs:", ", ".join(f"layer {name}: {count}" for name, count in counts.items()))
    report("pruned   ", model, images, labels)

    train(model, images, labels, options.epochs // 2)
    report("finetuned", model, images, labels)

    make_permanent(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(model.eval(), (images[:1],), str(file), dynamo=False, input_names=["image"])
        print("exported:", mipverify.load(file))


if __name__ == "__main__":
    main()
