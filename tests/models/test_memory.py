"""Memory of the losses grows with the width of a layer, not with its square."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mipverify.models import Traced, certified_loss, differentiable, relu_stability_loss
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Notes the size in bytes of the largest tensor that any operation makes, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor):
                self.bytes = max(self.bytes, part.untyped_storage().nbytes())
        return result


def footprint(module: nn.Module, x: Tensor, loss: Any) -> tuple[int, int]:
    """Bytes of the largest tensor made, and of all distinct tensors that were kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    traced = Traced(module, tuple(x.shape[1:]))
    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(traced, x)
        value.backward()
    return largest.bytes, sum(kept.values())


def convolutional(side: int) -> tuple[nn.Module, Tensor]:
    """Two convolutional layers with 3 side^2 units each; windows for the second."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(side),
        nn.Flatten(),
        nn.Linear(3, 3),
    )
    return module, torch.rand(1, 1, side, side)


def skipping(side: int) -> tuple[nn.Module, Tensor]:
    """A layer whose units are sums of convolutions: their rows are dense."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.first(x))
            return torch.relu(self.second(y) + y)

    torch.manual_seed(0)
    return nn.Sequential(Sum(), nn.AvgPool2d(side), nn.Flatten(), nn.Linear(3, 3)), torch.rand(1, 1, side, side)


@pytest.mark.parametrize("make", [convolutional, skipping])
@pytest.mark.parametrize("bounds", ["interval", "improved_interval", "crown"])
def test_stability(make: Any, bounds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the width: the square would be sixteen times as much."""
    monkeypatch.setattr(differentiable, "CHUNK_BYTES", 2**16)

    def loss(traced: Traced, x: Tensor) -> Tensor:
        return relu_stability_loss(traced, x, 0.1, bounds=bounds, rows=None)

    small, large = (footprint(*make(side), loss) for side in (8, 16))
    assert large[0] < 4.5 * max(small[0], 2**17)
    assert large[1] < 6 * small[1]


def test_chunks_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the coefficients of all of them would be kept for the backward pass."""
    kept = []
    for size in (2**14, 2**30):
        monkeypatch.setattr(differentiable, "CHUNK_BYTES", size)
        kept.append(footprint(*skipping(10), lambda t, x: relu_stability_loss(t, x, 0.1, bounds="crown", rows=None))[1])
    assert kept[1] > 10 * kept[0]


@pytest.mark.parametrize("bounds", ["interval", "crown"])
def test_certified(bounds: str) -> None:
    y = torch.tensor([1])
    small, large = (
        footprint(*convolutional(side), lambda t, x: certified_loss(t, x, y, 0.1, bounds=bounds)) for side in (8, 16)
    )
    assert large[0] < 4.5 * small[0]
    assert large[1] < 4.5 * small[1]
