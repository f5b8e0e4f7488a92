"""The parts of today's certified training: initial weights, regularizers of the warm-up, small boxes."""

from __future__ import annotations

import math

import pytest
import torch
from mipverify.models import certified_loss, ibp_initialization, small_box_centers, warmup_regularizer
from mipverify.models.architectures import build
from mipverify.models.schedules import Schedule
from mipverify.models.training.objective import radius_share
from mipverify.presolve import interval
from torch import nn
from torch.nn import functional

from mipverify.errors import InputError
from mipverify.network import Network


def network(seed: int = 0) -> nn.Module:
    return build("cnn_a", (1, 12, 12), 4, seed)


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, 12, 12, generator=chance), torch.arange(count) % 4


def widths(module: nn.Module, eps: float) -> list[float]:
    """Mean width of the pre-activations of each ReLU layer, as a share of that of the box."""
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    graph = Network.from_torch(module, (3, 32, 32))
    bounds = interval(graph, x - eps, x + eps)
    sources = [graph.nodes[node].source for node in graph.relus]
    return [float((bounds.upper[s] - bounds.lower[s]).detach().mean()) / (2 * eps) for s in sources]


def test_initial_weights_keep_the_width_of_intervals() -> None:
    module = build("cnn_b", (3, 32, 32), 10, seed=0)
    assert widths(module, 0.01)[-1] > 50
    ibp_initialization(module, generator=torch.Generator().manual_seed(0))
    for part in module.modules():
        if isinstance(part, nn.Linear):  # many weights: their spread is close to sigma
            assert float(part.weight.detach().std()) == pytest.approx(
                math.sqrt(2 * math.pi) / part.in_features, rel=0.05
            )
    # An affine layer doubles the width and a ReLU halves it; padding takes some away.
    assert all(0.2 < width < 4 for width in widths(module, 0.01))


def reference(module: nn.Module, x: torch.Tensor, eps: float, tau: float) -> float:
    """The regularizer of Shi et al., layer by layer in float64 for a sequential network."""
    lower, upper = (x - eps).clamp(0, 1).double(), (x + eps).clamp(0, 1).double()
    first = float((upper - lower).mean())
    terms, layers = 0.0, 0
    for part in module.double():
        if isinstance(part, nn.ReLU):
            layers += 1
            c = (lower + upper) / 2
            terms += max(0.0, tau - first / float((upper - lower).mean())) / tau
            active, inactive = lower > 0, upper < 0
            alpha = float(c[active].sum()) / -float(c[inactive].sum())
            spread = (c - c.mean()) ** 2
            beta = float(spread[active].sum()) / float(spread[inactive].sum())
            terms += sum(max(0.0, tau - min(r, 1 / r)) / tau for r in (alpha, beta))
            lower, upper = lower.relu(), upper.relu()
        elif isinstance(part, nn.Flatten):
            lower, upper = part(lower), part(upper)
        else:
            center, radius = part((lower + upper) / 2), (upper - lower) / 2
            if isinstance(part, nn.Conv2d):
                spread = functional.conv2d(radius, part.weight.abs(), None, part.stride, part.padding)
            else:
                spread = radius @ part.weight.abs().T
            lower, upper = center - spread, center + spread
    module.float()
    return terms / layers


@pytest.mark.parametrize("eps", [0.001, 0.003])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_regularizer_of_the_warm_up(eps: float, tau: float) -> None:
    module, (x, _) = network(), batch()
    with torch.no_grad():
        found = float(warmup_regularizer(module, x, eps, tolerance=tau))
        assert found == pytest.approx(reference(module, x, eps, tau), rel=1e-3)
    assert found > 0


def test_regularizer_tightens_and_balances() -> None:
    module, (x, _) = network(), batch()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    values = []
    for _ in range(30):
        loss = warmup_regularizer(module, x, 0.02)
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
        optimizer.step()
    assert values[-1] < 0.7 * values[0]


def test_regularizer_where_nothing_is_decided() -> None:
    module, (x, _) = network(), batch()
    loss = warmup_regularizer(module, x, 1.0)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    with pytest.raises(InputError, match="tolerance"):
        warmup_regularizer(module, x, 0.1, tolerance=0.0)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_small_boxes_lie_in_the_ball(share: float) -> None:
    module, (x, y) = network(), batch()
    eps = 0.1
    centers = small_box_centers(module, x, y, eps, share, generator=torch.Generator().manual_seed(1))
    assert float((centers - x).abs().max()) + share * eps <= eps + 1e-6
    assert centers.min() >= 0
    assert centers.max() <= 1
    small = certified_loss(module, centers, y, share * eps, reduction="none")
    whole = certified_loss(module, x, y, eps, reduction="none")
    assert bool((small <= whole + 1e-5).all())
    if share < 1:
        assert bool((functional.cross_entropy(module(centers), y) > functional.cross_entropy(module(x), y)).all())
        assert small.mean() < whole.mean()
    else:
        assert torch.equal(small, whole)


def test_small_boxes_need_a_share() -> None:
    module, (x, y) = network(), batch()
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match="share of a small box"):
            small_box_centers(module, x, y, 0.1, share)


def test_the_radius_grows_smoothly_as_published() -> None:
    # 20 epochs of growth out of 70: like t^4 until a quarter of it, then straight to the end [Xu et al. 2020].
    ramp = (0.0, 20 / 70)
    straight = 4 * 0.25**3
    end = 0.25**4 + straight * 0.75
    for epoch, expected in ((0, 0.0), (2.5, 0.125**4 / end), (5, 0.25**4 / end), (15, 1 - straight * 0.25 / end)):
        assert radius_share(ramp, epoch / 70, "smooth") == pytest.approx(expected, abs=1e-12)
        assert Schedule(1.0, 2000, shape="smooth")(round(epoch * 100)) == pytest.approx(expected, abs=1e-12)
    assert radius_share(ramp, 20 / 70, "smooth") == radius_share(ramp, 0.9, "smooth") == 1.0
