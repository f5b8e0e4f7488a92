"""Weight sparsity: what counts, and how often."""

from __future__ import annotations

import pytest
import torch
from mipverify.models import Traced, weight_sparsity
from torch import nn

from mipverify.network import Affine


def test_a_convolution_counts_as_often_as_applied() -> None:
    """Without pads, that is the l1 norm of its matrix."""
    module = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2))
    traced = Traced(module, (2, 7, 7))
    matrices = [t.operator.to_sparse() for node in traced.network.nodes if isinstance(node, Affine) for t in node.terms]
    assert weight_sparsity(traced).item() == pytest.approx(sum(abs(m).sum() for m in matrices), rel=1e-5)


def test_pads_do_not_change_the_count() -> None:
    conv = nn.Conv2d(1, 2, 3, padding=1)
    assert weight_sparsity(conv, (1, 5, 6)).item() == pytest.approx(30 * conv.weight.abs().sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("module", "shape", "times"),
    [
        (nn.Linear(4, 3), (4,), 1),
        (nn.Linear(4, 3), (5, 4), 5),
        (nn.Conv1d(2, 4, 3, groups=2), (2, 9), 7),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 4, 5), 20),
    ],
    ids=["dense", "dense along an axis", "grouped", "transposed"],
)
def test_counts(module: nn.Module, shape: tuple[int, ...], times: int) -> None:
    assert weight_sparsity(nn.Sequential(module), shape).item() == pytest.approx(
        times * module.weight.abs().sum().item(), rel=1e-5
    )


def test_normalization_and_pooling_do_not_count() -> None:
    conv = nn.Conv2d(1, 2, 3)
    module = nn.Sequential(conv, nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2))
    assert weight_sparsity(module, (1, 6, 6)).item() == pytest.approx(16 * conv.weight.abs().sum().item(), rel=1e-5)


def test_training_makes_weights_small() -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 5)
    traced, optimizer = Traced(module, (5,)), torch.optim.SGD(module.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        weight_sparsity(traced).backward()
        optimizer.step()
    assert module.weight.abs().max() <= 0.011
