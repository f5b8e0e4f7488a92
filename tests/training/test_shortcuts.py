"""What is computed in a cheaper way for speed has the values of the plain way."""

from __future__ import annotations

import pytest
import torch
from mipverify.models.architectures import build
from mipverify.models.certified import certified_loss
from mipverify.models.interval import estimate_interval
from mipverify.models.quick import attack_twin, input_gradient, quick_twin
from mipverify.models.stability import relu_stability_loss
from mipverify.models.training.objective import Objective, Sums, radius_share
from mipverify.models.training.options import TrainingOptions
from mipverify.presolve import interval
from torch import nn
from torch.nn import functional

from mipverify.network import Network


@pytest.mark.parametrize("side", [5, 8, 9, 28])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 2, 2), (4, 2, 1), (3, 2, 0), (3, 3, 1), (2, 3, 0)])
def test_input_gradient(side: int, kernel: int, stride: int, padding: int) -> None:
    x = torch.rand(3, 2, side, side + 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, kernel, kernel, dtype=torch.float64)
    y = functional.conv2d(x, weight, None, stride, padding)
    g = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, g)
    assert torch.allclose(input_gradient(g, weight, stride, padding, side, side + 1), expected)


def test_twin_follows_the_module() -> None:
    module = build("rs_cnn", (1, 8, 8), 4, seed=0)
    twin = attack_twin(module)
    assert twin is not module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01)
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    assert torch.equal(twin(x), module(x))
    (a,), (b,) = (torch.autograd.grad(m(x).square().sum(), x) for m in (twin, module))
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_twin_has_the_gradients_of_the_module() -> None:
    module = build("rs_cnn", (1, 9, 8), 4, seed=0).double()
    x = torch.rand(3, 1, 9, 8, dtype=torch.float64)
    plain, quick, attack = (
        torch.autograd.grad(m(x).square().sum(), list(module.parameters()), allow_unused=True)
        for m in (module, quick_twin(module), attack_twin(module))
    )
    for a, b in zip(plain, quick, strict=True):
        assert torch.allclose(a, b)
    assert attack[:4] == (None,) * 4
    assert torch.allclose(attack[4], plain[4])


def test_twin_leaves_other_modules_alone() -> None:
    for module in (build("mlp_a", (4,), 2), build("res", (1, 8, 8), 2), nn.Sequential(nn.Conv2d(8, 2, 3))):
        assert attack_twin(module) is module


@pytest.mark.parametrize("name", ["rs_cnn", "res", "mlp_b"])
def test_estimate_intervals(name: str) -> None:
    module = build(name, (1, 8, 8), 4, seed=1).double()
    network = Network.from_torch(module, (1, 8, 8))
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    lower, upper = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    light, full = estimate_interval(network, lower, upper), interval(network, lower, upper)
    for a, b in zip((*light.lower, *light.upper), (*full.lower, *full.upper), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bounds", ["interval", "improved_interval", "crown"])
def test_objective_is_what_the_options_say(bounds: str) -> None:
    module = build("rs_cnn", (1, 8, 8), 4, seed=2)
    options = TrainingOptions(
        eps=0.1, attack_steps=0, certified=0.3, stability=0.01, stability_bounds=bounds, radius_factor=1.1, ramp=(0, 1)
    )
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    sums = Sums()
    torch.manual_seed(0)  # which rows are bounded
    loss = Objective(module, (1, 8, 8), options)(x, y, 0.5, sums)
    clean = functional.cross_entropy(module(x), y)
    if bounds == "interval":
        certified = certified_loss(module, x, y, 0.055)
        expected = 0.7 * clean + 0.3 * certified + 0.01 * relu_stability_loss(module, x, 0.055)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-3)  # rounding errors are counted there
    torch.manual_seed(0)
    stability = relu_stability_loss(module, x, 0.055, bounds=bounds)  # type: ignore[arg-type]
    assert sums.means()["stability loss"] == pytest.approx(stability.item(), rel=1e-4)
    assert sums.means()["loss"] == pytest.approx(loss.item())


def test_radius_grows_over_the_ramp() -> None:
    assert [radius_share((0.25, 0.75), p) for p in (0, 0.25, 0.5, 0.75, 1)] == [0, 0, 0.5, 1, 1]
    assert radius_share((0, 0), 0) == 1
