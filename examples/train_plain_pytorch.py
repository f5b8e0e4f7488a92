"""A plain PyTorch loop with three more terms: attacked inputs, ReLU stability, weight sparsity. Then verify the result.

    python examples/train_plain_pytorch.py

Trains a tiny classifier on the hundred bundled digits in a few seconds, exports it and proves some of them robust.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from mipverify.models import (
    RadiusSchedule,
    Traced,
    adversarial_loss,
    relu_stability_loss,
    unstable_units,
    weight_sparsity,
)
from torch import nn

import mipverify

EPS = 0.05


def bundled_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (100, 1, 28, 28) in [0, 1] and labels (100,)."""
    with np.load(str(files("mipverify.models.zoo") / "mnist_100.npz")) as data:
        images, labels = data["images"], data["labels"]
    return torch.from_numpy(images.reshape(-1, 1, 28, 28) / np.float32(255)), torch.from_numpy(labels).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--verify", type=int, default=3, help="how many of the digits to verify")
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
    traced = Traced(model, (1, 28, 28))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    steps = options.epochs * 2
    radius = RadiusSchedule(EPS, warmup=max(1, steps // 2))
    print("before:", unstable_units(traced, images, EPS))
    for epoch in range(options.epochs):
        for number, batch in enumerate(torch.randperm(100).split(50)):
            x, y = images[batch], labels[batch]
            loss = adversarial_loss(model, x, y, radius(2 * epoch + number), steps=4)
            loss = loss + 5e-3 * relu_stability_loss(traced, x, EPS) + 5e-6 * weight_sparsity(traced)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print("after: ", unstable_units(traced, images, EPS))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(model.eval(), (images[:1],), str(file), dynamo=False, input_names=["image"])
        network = mipverify.load(file)
        for index in range(options.verify):
            specification = mipverify.robustness(images[index].numpy(), int(labels[index]), EPS, num_classes=10)
            print(f"digit {index}:", mipverify.verify(network, specification, timeout=20).verdict)


if __name__ == "__main__":
    main()
