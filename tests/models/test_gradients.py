"""Gradients of the losses against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mipverify.models import certified_loss, relu_stability_loss, weight_sparsity
from torch import Tensor, nn

from tests.models.nets import EPS, NAMES, case


def compare(module: nn.Module, loss: Callable[[], Tensor], directions: int = 3) -> None:
    """The derivative along random directions of all parameters equals that of central differences."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.zero_grad()
    loss().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    assert any(bool((g != 0).any()) for g in gradients)
    generator = torch.Generator().manual_seed(0)
    step = 1e-6
    for _ in range(directions):
        along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, along, strict=True):
                    p += sign * step * d
            values.append(loss().item())
            with torch.no_grad():
                for p, d in zip(parameters, along, strict=True):
                    p -= sign * step * d
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, along, strict=True))
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bounds", ["interval", "improved_interval", "crown"])
def test_stability(name: str, bounds: str) -> None:
    module, traced, x = case(name)
    compare(module, lambda: relu_stability_loss(traced, x, EPS, bounds=bounds, rows=None))


def test_stability_by_a_sample_of_rows() -> None:
    module, traced, x = case("windows")

    def loss() -> Tensor:
        generator = torch.Generator().manual_seed(4)
        return relu_stability_loss(traced, x, EPS, bounds="crown", rows=20, generator=generator)

    compare(module, loss)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bounds", ["interval", "crown"])
def test_certified(name: str, bounds: str) -> None:
    module, traced, x = case(name)
    y = torch.tensor([0, 2, 1])
    compare(module, lambda: certified_loss(traced, x, y, EPS, bounds=bounds, crown_share=0.7))


@pytest.mark.parametrize("mixture", ["loss", "logits", "product"])
def test_mixtures(mixture: str) -> None:
    module, traced, x = case("dense")
    y = torch.tensor([0, 2, 1])
    compare(module, lambda: certified_loss(traced, x, y, EPS, attacked=x + 0.05, mixture=mixture, alpha=0.3))


@pytest.mark.parametrize("name", ["dense", "windows", "skip"])
def test_sparsity(name: str) -> None:
    module, traced, _ = case(name)
    compare(module, lambda: weight_sparsity(traced))
