"""Small torch modules for the tests of training: dense, convolutional, with skips, normalized, masked."""

from __future__ import annotations

import torch
from mipverify.models import Traced
from mipverify.models.pruning import MaskedReLU
from torch import Tensor, nn


class Skip(nn.Module):
    """Two branches that meet again, one of them a convolution, and a ReLU that reads their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.last = nn.Linear(180, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(y) + y).flatten(1))


def modules() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (module in float64 with weights that leave units of every kind, input shape)."""
    torch.manual_seed(0)
    kept = torch.rand(4, 6, 6) < 0.5
    linear = (torch.rand(4, 6, 6) < 0.5) & ~kept
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "dense": (
            nn.Sequential(
                nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)
            ),
            (6,),
        ),
        # Windows all the way to the input, with pads, strides and dilations of every kind.
        "windows": (
            nn.Sequential(
                nn.Conv2d(2, 3, (3, 2), (1, 2), (1, 0)),
                nn.ReLU(),
                nn.Conv2d(3, 4, 2, (2, 1), padding=1, dilation=(2, 1)),
                nn.ReLU(),
                nn.Flatten(),
                nn.LazyLinear(8),
                nn.ReLU(),
                nn.Linear(8, 3),
            ),
            (2, 16, 18),
        ),
        # Windows outgrow the feature maps: dense rows from there on.
        "deep": (
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(4, 3, 3, stride=2),
                nn.ReLU(),
                nn.Flatten(),
                nn.LazyLinear(3),
            ),
            (1, 8, 7),
        ),
        "skip": (Skip(), (1, 6, 6)),
        "normalized": (
            nn.Sequential(
                nn.Conv2d(1, 2, 3),
                nn.BatchNorm2d(2),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(8, 5),
                nn.LeakyReLU(),
                nn.Linear(5, 3),
            ),
            (1, 6, 6),
        ),
        "masked": (
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                MaskedReLU(kept, linear),
                nn.Flatten(),
                nn.Linear(144, 8),
                nn.ReLU(),
                nn.Linear(8, 3),
            ),
            (1, 6, 6),
        ),
    }
    for module, shape in found.values():
        module.double()
        module.eval()
        with torch.no_grad():
            module(torch.rand(1, *shape, dtype=torch.float64))  # lazy layers
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.normal_()
                    part.running_var.uniform_(0.5, 2)
                elif isinstance(part, nn.Linear | nn.Conv2d):
                    part.bias.normal_(mean=0.1, std=0.3)
    return found


def case(name: str, batch: int = 3) -> tuple[nn.Module, Traced, Tensor]:
    """The module, traced, and inputs (batch, *shape) in [0, 1]."""
    module, shape = modules()[name]
    generator = torch.Generator().manual_seed(1)
    return module, Traced(module, shape), torch.rand(batch, *shape, generator=generator, dtype=torch.float64)


NAMES = ("dense", "windows", "deep", "skip", "normalized", "masked")
EPS = 0.07
