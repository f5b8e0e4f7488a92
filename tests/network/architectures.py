"""torch modules of the kinds that users verify."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn


class Block(nn.Module):
    """The residual block of a ResNet."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride) if stride != 1 else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return functional.relu(y)


class Functional(nn.Module):
    """Functions, methods and arithmetic in place of layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.second = nn.Linear(8, 8)
        self.register_buffer("mask", (torch.arange(8) % 3 > 0).float())
        self.mean = nn.Parameter(torch.tensor([0.1, -0.2, 0.3]).reshape(1, 3, 1, 1))

    def forward(self, x):
        x = (x - self.mean) / 0.5
        x = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        a = torch.relu(self.first(x)) * self.mask
        b = functional.linear(a, self.second.weight, self.second.bias).clamp(-1, 1)
        left, right = b.chunk(2, dim=1)
        joined = torch.cat([left.abs(), torch.maximum(left, right), 1 - right, a[:, 2:4]], 1)
        return joined.view(joined.size(0), 2, -1).mean(1) - joined.unflatten(1, (2, -1)).sum(dim=1) * 0.25


class MaskedLinear(nn.Module):
    """A pruned layer: the weights are a product with a mask."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7))
        self.register_buffer("mask", (torch.randn(5, 7) > 0).float())

    def forward(self, x):
        return functional.leaky_relu(functional.linear(x, self.weight * self.mask), 0.2)


def architectures() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (module in evaluation mode, input shape without batch)."""
    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 4)), (1, 4, 4)),
        "cnn": (
            nn.Sequential(
                nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3)
            ),
            (1, 9, 9),
        ),
        "sequence": (
            nn.Sequential(
                nn.Conv1d(2, 3, 3, padding="same"), nn.PReLU(3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2)
            ),
            (2, 8),
        ),
        "normalized": (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.1), nn.AvgPool2d(2), nn.Flatten()),
            (2, 6, 6),
        ),
        "max_pooled": (
            nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Dropout()),
            (1, 6, 6),
        ),
        "decoder": (
            nn.Sequential(
                nn.Linear(4, 12),
                nn.ReLU(),
                nn.Unflatten(1, (3, 2, 2)),
                nn.ConvTranspose2d(3, 2, 3, 2, 1, output_padding=1),
                nn.ReLU6(),
            ),
            (4,),
        ),
        "resnet": (
            nn.Sequential(
                nn.Conv2d(3, 4, 3, 1, 1),
                nn.ReLU(),
                Block(4, 4, 1),
                Block(4, 6, 2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ),
            (3, 8, 8),
        ),
        "functional": (Functional(), (3, 2, 2)),
        "masked": (nn.Sequential(MaskedLinear(), nn.Linear(5, 3)), (7,)),
        "grouped": (
            nn.Sequential(
                nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2, padding_mode="reflect"),
                nn.Hardtanh(-0.5, 2),
                nn.PixelShuffle(2),
                nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            ),
            (4, 5, 5),
        ),
        "linear": (nn.Linear(3, 2), (3,)),
        "normalized_dense": (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), (6,)),
    }
    for module, _ in found.values():
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                nn.init.normal_(part.weight)
        module.eval()
    return found
