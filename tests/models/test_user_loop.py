"""A user's own loop from end to end: trained with bounds, exported by both exporters, verified in every form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mipverify.models import CertifiedLoss, ReLUStabilityLoss, Schedule, WeightSparsity, unstable_units
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mipverify

EPS = 0.05
CLASSES = 3


def data(count: int, seed: int) -> TensorDataset:
    """Images (count, 1, 8, 8) in [0, 1] of three kinds of stripes, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    at = torch.arange(8)
    rows = (at // 2 % 2).float()[:, None].expand(8, 8)
    kinds = torch.stack([rows, rows.T, ((at[:, None] + at) // 2 % 2).float()])
    noise = 0.7 * torch.rand(count, 1, 8, 8, generator=generator)
    return TensorDataset((0.3 * kinds[labels][:, None] + noise).clamp(0, 1), labels)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(24, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


class Residual(nn.Module):
    """A CNN with batch normalization, max-pooling, a residual block and adaptive pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)
        )
        self.pool, self.last = nn.AdaptiveAvgPool2d(2), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.last(self.pool(torch.relu(self.block(y) + y)).flatten(1))


class Functional(nn.Module):
    """Functional calls, two branches that are put together, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Conv2d(1, 3, 5, stride=2, padding=2)
        self.hidden, self.last = nn.Linear(96, 12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([nn.functional.relu(self.a(x)), nn.functional.relu(self.b(x))], 1)
        y = nn.functional.relu(self.hidden(y.view(y.size(0), -1)))
        return self.last(nn.functional.dropout(y, 0.1, self.training))


def accuracy(module: nn.Module, test: TensorDataset) -> float:
    module.eval()
    x, y = test.tensors
    return float((module(x).argmax(1) == y).float().mean())


def train(module: nn.Module, bounded: bool) -> None:
    torch.manual_seed(1)
    loader = DataLoader(data(1536, 0), batch_size=64, shuffle=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    stability = ReLUStabilityLoss(Schedule(EPS, warmup=24), reduction="unit")
    certified, sparsity = CertifiedLoss(Schedule(EPS, warmup=24)), WeightSparsity((1, 8, 8))
    for _ in range(2):
        module.train()
        for x, y in loader:
            loss = nn.functional.cross_entropy(module(x), y)
            if bounded:
                loss = loss + 0.3 * stability(module, x) + 0.1 * certified(module, x, y) + 2e-5 * sparsity(module)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            stability.step()
            certified.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [mlp, Residual, Functional])
def test_train_export_and_verify(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, test = make(), data(400, 9)
    plain = copy.deepcopy(module)
    train(plain, bounded=False)
    train(module, bounded=True)
    right = accuracy(module, test), accuracy(plain, test)
    assert right[1] > 0.85
    assert right[0] > right[1] - 0.08
    margins = module(test.tensors[0]).topk(2).values
    hardest = (margins[:, 0] - margins[:, 1]).argsort()[[0, 2, 4, 8, 16, 32, 64, 128, 256, -1]]
    x, y = (part[hardest] for part in test.tensors)
    undecided = [float(unstable_units(m, x, EPS).mean.sum()) for m in (module, plain)]
    assert undecided[0] < 0.9 * undecided[1]

    files = [tmp_path / "dynamo.onnx", tmp_path / "script.onnx"]
    for file, dynamo in zip(files, (True, False), strict=True):
        torch.onnx.export(module, (x[:1],), str(file), dynamo=dynamo)
    of_module = mipverify.adversarial_accuracy(module, x, y, str(EPS), workers=0, timeout=60)
    found = [sample.verdict for sample in of_module.samples]
    assert "unknown" not in found, found
    assert len(set(found)) > 1, found  # the comparison below can fail
    for file in files:
        of_file = mipverify.adversarial_accuracy(file, x.numpy(), y.numpy(), str(EPS), workers=0, timeout=60)
        assert [sample.verdict for sample in of_file.samples] == found
    one = [mipverify.verify(m, x[0], int(y[0]), eps=EPS, timeout=60).verdict for m in (module, *files)]
    assert len(set(one)) == 1
    read = mipverify.load(files[0]).forward(x.numpy()).reshape(len(x), -1)
    np.testing.assert_allclose(read, module(x).detach(), atol=1e-4)
