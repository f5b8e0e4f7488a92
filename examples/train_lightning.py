"""Lightning: one callback adds ReLU stability and weight sparsity to a module's own loss.

    pip install 'mipverify[lightning]'
    python examples/train_lightning.py

Trains a tiny classifier on the hundred bundled digits in a few seconds.
"""

from __future__ import annotations

import argparse
from importlib.resources import files

import lightning
import numpy as np
import torch
from mipverify.models import RadiusSchedule, StabilityCallback, adversarial_loss, unstable_units
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPS = 0.05


def bundled_digits() -> tuple[Tensor, Tensor]:
    """Images (100, 1, 28, 28) in [0, 1] and labels (100,)."""
    with np.load(str(files("mipverify.models.zoo") / "mnist_100.npz")) as data:
        images, labels = data["images"], data["labels"]
    return torch.from_numpy(images.reshape(-1, 1, 28, 28) / np.float32(255)), torch.from_numpy(labels).long()


class Digits(lightning.LightningModule):
    """Adversarial training as one would write it without mipverify's callback."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 40), nn.ReLU(), nn.Linear(40, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return adversarial_loss(self.net, x, y, EPS, steps=4)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    images, labels = bundled_digits()
    loader = DataLoader(TensorDataset(images, labels), batch_size=50, shuffle=True)
    module = Digits()
    print("before:", unstable_units(module.net, images, EPS))
    radius = RadiusSchedule(EPS, warmup=options.epochs)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StabilityCallback(radius, stability=1e-3, sparsity=2e-5, attribute="net")],
    )
    trainer.fit(module, loader)
    print("after: ", unstable_units(module.net, images, EPS))


if __name__ == "__main__":
    main()
