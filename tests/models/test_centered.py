"""Batch normalization by the centres of bounds: one pass, the same bounds, slopes, running statistics, loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mipverify.models import (
    CertifiedLoss,
    Schedule,
    Traced,
    certified_loss,
    certified_margins,
    clean_statistics,
    ibp_initialization,
    input_box,
    pgd_attack,
    relu_stability_loss,
    training_bounds,
    warmup_regularizer,
)
from mipverify.models.architectures import build
from mipverify.models.centered import centered_bounds
from mipverify.presolve import interval
from torch import nn
from torch.nn import functional

from mipverify.errors import InputError
from mipverify.network import Network

SHAPE = (2, 8, 8)


class Residual(nn.Module):
    """Convolutions with and without a bias, a shortcut, pooling, and a dense layer, all but the last normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6, affine=False), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        logits: torch.Tensor = self.last(self.pool((self.second(x) + x).relu()))
        return logits


def network(kind: str = "residual") -> nn.Module:
    torch.manual_seed(0)
    module = Residual() if kind == "residual" else build("cnn_norm", SHAPE, 3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module.train()


def batch(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    return torch.rand(count, *SHAPE, generator=chance), torch.arange(count) % 3


@pytest.mark.parametrize("kind", ["residual", "cnn_norm"])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3])
def test_bounds_are_those_of_the_network_that_the_statistics_make(kind: str, eps: float) -> None:
    module, (x, _) = network(kind).double(), batch()
    x = x.double()
    plain = Network.from_torch(module, SHAPE)
    found, statistics = centered_bounds(module, plain, *input_box(x, eps))
    again = training_bounds(found.network, *input_box(x, eps)).bounds
    for side, expected in ((found.lower, again.lower), (found.upper, again.upper)):
        for ours, theirs in zip(side, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    for layer, (mean, variance) in statistics.items():
        names = [name for name, part in module.named_modules() if part is layer]
        node = next(index for index, name in enumerate(plain.names) if name in names)
        center = 0.5 * (found.lower[node] + found.upper[node]).movedim(2, -1).flatten(0, -2)
        torch.testing.assert_close(center.mean(0), torch.zeros_like(mean), atol=1e-9, rtol=0)
        torch.testing.assert_close(center.var(0, correction=0), variance)


def test_a_ball_of_radius_zero_has_the_statistics_of_the_clean_batch() -> None:
    module, (x, _) = network(), batch()
    found, statistics = centered_bounds(module, Network.from_torch(module, SHAPE), *input_box(x, 0.0))
    clean = clean_statistics(module, x)
    assert set(statistics) == set(clean)
    for layer, pair in clean.items():
        for ours, theirs in zip(statistics[layer], pair, strict=True):
            torch.testing.assert_close(ours, theirs)
    outside = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    for part in outside:
        part.eval()
    torch.testing.assert_close(found.network.forward(x[:, None])[:, 0], module(x), atol=1e-5, rtol=1e-4)


def test_sampled_points_lie_inside_the_bounds() -> None:
    module, (x, _) = network(), batch()
    found, _ = centered_bounds(module, Network.from_torch(module, SHAPE), *input_box(x, 0.1))
    low, high = input_box(x, 0.1)
    chance = torch.Generator().manual_seed(1)
    for _ in range(20):
        point = low + (high - low) * torch.rand(x.shape, generator=chance).round()
        for value, lower, upper in zip(found.network.values(point[:, None]), found.lower, found.upper, strict=True):
            slack = 1e-4 * (1 + value.abs())
            assert bool(((value >= lower - slack) & (value <= upper + slack)).all())


def test_the_loss_has_the_slope_of_the_parameters_through_the_statistics() -> None:
    module, (x, y) = network().double(), batch()
    x = x.double()

    def loss() -> torch.Tensor:
        return certified_loss(Traced(module, SHAPE, statistics="centers"), x, y, 0.1)

    weight = module.get_parameter("second.0.weight")
    (slope,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = 1e-6
    with torch.no_grad():
        weight += step * direction
        above = loss()
        weight -= 2 * step * direction
        below = loss()
    assert float((slope * direction).sum()) == pytest.approx(float(above - below) / (2 * step), rel=1e-4)


def test_scaling_the_weights_before_a_normalization_changes_nothing() -> None:
    module, (x, y) = network(), batch()
    traced = Traced(module, SHAPE, statistics="centers")
    before = certified_margins(traced, x, y, 0.1)
    with torch.no_grad():
        module.get_parameter("second.0.weight").mul_(7.0)
    torch.testing.assert_close(certified_margins(traced, x, y, 0.1), before, atol=1e-3, rtol=1e-3)


def test_running_statistics_move_to_those_of_the_centers_and_give_the_same_bounds() -> None:
    module, (x, y) = network(), batch()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = None  # plain means over all batches
    traced = Traced(module, SHAPE, statistics="centers")
    in_training = certified_margins(traced, x, y, 0.2)
    module.eval()
    torch.testing.assert_close(certified_margins(traced, x, y, 0.2), in_training, atol=1e-4, rtol=1e-4)
    sound = interval(Network.from_torch(module, SHAPE), *input_box(x, 0.2))
    assert bool((sound.lower[sound.network.output] <= sound.upper[sound.network.output]).all())


def test_one_call_moves_running_statistics_by_the_momentum() -> None:
    module, (x, _) = network(), batch()
    layer = module.get_submodule("second.1")
    assert isinstance(layer, nn.BatchNorm2d)
    _, statistics = centered_bounds(module, Network.from_torch(module, SHAPE), *input_box(x, 0.1))
    Traced(module, SHAPE, statistics="centers").centered_bounds(*input_box(x, 0.1))
    mean, variance = statistics[layer]
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * variance)
    assert int(layer.num_batches_tracked or 0) == 1


def test_attacked_points_of_a_mixture_are_scored_with_the_statistics_of_the_bounds() -> None:
    module, (x, y) = network("cnn_norm"), batch()
    traced = Traced(module, SHAPE, statistics="centers")
    attacked = x.clamp(0.02, 0.98)
    mixed = certified_loss(traced, x, y, 0.1, attacked=attacked, mixture="loss", alpha=0.25)
    found, _ = centered_bounds(module, Network.from_torch(module, SHAPE), *input_box(x, 0.1))
    plain = functional.cross_entropy(found.network.forward(attacked[:, None]).reshape(len(x), -1), y)
    bounded = certified_loss(traced, x, y, 0.1)
    torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * bounded, atol=1e-4, rtol=1e-4)


def test_the_other_losses_and_tighter_bounds_take_the_statistics_too() -> None:
    module, (x, y) = network(), batch()
    traced = Traced(module, SHAPE, statistics="centers")
    interval_loss = relu_stability_loss(traced, x, 0.1)
    tighter = relu_stability_loss(traced, x, 0.1, bounds="crown", rows=None)
    assert bool(tighter <= interval_loss + 1e-4)
    assert bool((certified_margins(traced, x, y, 0.1, bounds="crown").max(1).values < 1e6).all())
    assert bool(warmup_regularizer(traced, x, 0.1).isfinite())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_bounds_alone(dtype: torch.dtype) -> None:
    module, (x, y) = network(), batch()
    traced = Traced(module, SHAPE, statistics="centers")
    plain = certified_loss(traced, x, y, 0.1)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(certified_loss(traced, x, y, 0.1), plain)


def test_a_loop_with_it_learns_and_verifies() -> None:
    """A bright left or right half, in noise: after 60 steps all of it is proven, as the running statistics have it."""
    module = build("cnn_norm", SHAPE, 3, seed=0).train()
    ibp_initialization(module, generator=torch.Generator().manual_seed(0))
    traced = Traced(module, SHAPE, statistics="centers")
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    loss = CertifiedLoss(Schedule(0.1, warmup=30), mixture="loss", alpha=0.9)
    chance = torch.Generator().manual_seed(0)
    for _ in range(60):
        y = torch.randint(0, 2, (32,), generator=chance)
        x = 0.2 * torch.rand(32, *SHAPE, generator=chance)
        x[y == 0, :, :, :4] += 0.7
        x[y == 1, :, :, 4:] += 0.7
        module.eval()
        attacked = pgd_attack(module, x, y, loss.eps, steps=1, generator=chance)
        module.train()
        optimizer.zero_grad()
        loss(traced, x, y, attacked).backward()
        optimizer.step()
        loss.step()
    module.eval()
    proven = (certified_margins(module, x, y, 0.1) > 0).sum(1) == 2
    assert float(proven.float().mean()) > 0.9


def test_layers_in_evaluation_mode_keep_their_running_statistics() -> None:
    module, (x, y) = network(), batch()
    module.eval()
    traced = Traced(module, SHAPE, statistics="centers")
    assert not traced.centered
    torch.testing.assert_close(certified_margins(traced, x, y, 0.1), certified_margins(module, x, y, 0.1))


def test_what_it_cannot_do_is_said() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            again: torch.Tensor = self.norm(self.norm(x).relu())
            return again

    x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.int64)
    unknown: Any = "middle"
    with pytest.raises(InputError, match=r"'norm' \(BatchNorm1d\).*used once"):
        certified_loss(Traced(Twice(), (4,), statistics="centers"), x, y, 0.1)
    with pytest.raises(InputError, match="'middle': one of clean, centers"):
        Traced(Twice(), (4,), statistics=unknown)
    single = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match="one value for each channel"):
        certified_loss(Traced(single, (4,), statistics="centers"), x[:1], y[:1], 0.1)
