"""Attacks of training and schedules of the radius."""

from __future__ import annotations

import itertools

import pytest
import torch
from mipverify.models import RadiusSchedule, adversarial_loss, pgd_attack
from torch.nn import functional

from mipverify.errors import InputError
from tests.models.nets import case

LABELS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("domain", [(0.0, 1.0), (0.3, 0.6), None])
def test_points_lie_in_the_ball_and_in_the_domain(random_start: bool, domain) -> None:
    module, _, x = case("windows")
    x = x if domain is None else x.clamp(*domain)
    attacked = pgd_attack(module, x, LABELS, 0.1, random_start=random_start, domain=domain, steps=5, step_size=0.07)
    assert not attacked.requires_grad
    assert ((attacked - x).abs() <= 0.1 + 1e-12).all()
    assert ((attacked - x).abs() > 0.05).any()
    if domain is not None:
        assert attacked.min() >= domain[0]
        assert attacked.max() <= domain[1]


def test_the_attack_raises_the_loss_of_each_sample() -> None:
    module, _, x = case("dense")
    attacked = pgd_attack(module, x, LABELS, 0.1, random_start=False)
    before, after = (functional.cross_entropy(module(p), LABELS, reduction="none") for p in (x, attacked))
    assert (after > before).all()
    assert adversarial_loss(module, x, LABELS, 0.1, random_start=False).item() == pytest.approx(after.mean().item())


def test_on_a_linear_network_the_attack_is_exact() -> None:
    """The worst point of a two-class linear network is the corner that the gradient's sign names."""
    torch.manual_seed(0)
    module = torch.nn.Linear(7, 2)
    x = torch.rand(4, 7)
    y = torch.tensor([0, 1, 0, 1])
    attacked = pgd_attack(module, x, y, 0.05, domain=None)
    towards = (module.weight[1] - module.weight[0]).sign() * torch.where(y == 0, 1.0, -1.0)[:, None]
    torch.testing.assert_close(attacked, x + 0.05 * towards)


def test_seeds_and_gradients_of_parameters() -> None:
    module, _, x = case("dense")
    points = [
        pgd_attack(module, x, LABELS, 0.1, steps=2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])
    assert all(p.grad is None for p in module.parameters())
    assert not x.requires_grad


@pytest.mark.parametrize("shape", ["linear", "smooth"])
def test_schedules_grow_from_zero_to_the_final_radius(shape: str) -> None:
    radius = RadiusSchedule(0.3, warmup=100, start=10, shape=shape)
    values = [radius(step) for step in range(130)]
    assert values[:11] == [0.0] * 11
    assert values[110:] == [0.3] * 20
    steps = [b - a for a, b in itertools.pairwise(values[10:111])]
    assert all(step > 0 for step in steps)
    assert max(steps) < 0.005  # no jumps
    assert values[60] == pytest.approx(
        0.15 if shape == "linear" else 0.3 * (0.25**4 + 0.25 * 4 * 0.25**3) / (0.25**4 + 0.75 * 4 * 0.25**3)
    )


def test_no_warmup_is_a_constant() -> None:
    assert RadiusSchedule(0.2, warmup=0)(0) == 0.2


def test_bad_arguments_are_refused() -> None:
    module, _, x = case("dense")
    with pytest.raises(InputError, match="eps"):
        pgd_attack(module, x, LABELS, -0.1)
    with pytest.raises(InputError, match="smoth"):
        RadiusSchedule(0.1, 5, shape="smoth")
    with pytest.raises(InputError, match="at least 0"):
        RadiusSchedule(-0.1, 5)
