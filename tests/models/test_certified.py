"""Certified losses: margins that hold, agreement with verification, and mixtures with attacked inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mipverify.models import (
    adversarial_loss,
    certified_loss,
    certified_margins,
    input_box,
    pgd_attack,
    training_bounds,
)
from mipverify.models.traced import detached
from mipverify.presolve import interval
from torch import nn
from torch.nn import functional

from mipverify.errors import InputError
from mipverify.proof.backward import row_minimum
from mipverify.proof.rows import functionals
from tests.models.nets import EPS, NAMES, case

LABELS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("bounds", "share"), [("interval", 1.0), ("crown", 1.0), ("crown", 0.5)])
def test_margins_hold_at_sampled_points(name: str, bounds: str, share: float) -> None:
    module, traced, x = case(name)
    lower, upper = input_box(x, EPS)
    with torch.no_grad():
        margins = certified_margins(traced, x, LABELS, EPS, bounds=bounds, crown_share=share)
        weight = torch.rand(400, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        weight[::2] = weight[::2].round()
        points = lower + weight * (upper - lower)
        logits = module(points.flatten(0, 1)).reshape(400, len(x), -1)
        own = logits.gather(2, LABELS.expand(400, -1)[..., None])
    assert (own - logits >= margins - 1e-9).all()
    assert (margins[torch.arange(3), LABELS] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_crown_margins_are_those_of_presolve(name: str) -> None:
    _, traced, x = case(name)
    network = detached(traced.network)
    boxes = (side.numpy().reshape(-1, *network.input_shape) for side in input_box(x, EPS))
    proven = interval(network, *boxes)
    margins = certified_margins(traced, x, LABELS, EPS, bounds="crown").detach().numpy()
    for sample, label in enumerate(LABELS.tolist()):
        for target in range(network.output_size):
            row = np.zeros((1, *network.output_shape))
            row.reshape(-1)[label] += 1
            row.reshape(-1)[target] -= 1
            bound = row_minimum(proven, functionals({network.output: row}, np.array([sample]))).lower
            assert margins[sample, target] == pytest.approx(bound[0] if target != label else 0, abs=1e-9)


def test_the_last_layer_is_merged_with_the_differences() -> None:
    """Against W_last[y] - W_last[j] on intervals of the hidden units, written out; and tighter than without."""
    module, traced, x = case("dense")
    with torch.no_grad():
        margins = certified_margins(traced, x, LABELS, EPS)
        bounds = training_bounds(traced.network, *input_box(x, EPS)).bounds
        low, high = (side[traced.network.relus[-1]].flatten(1) for side in (bounds.lower, bounds.upper))
        last = module[-1]
        for sample, label in enumerate(LABELS.tolist()):
            rows = last.weight[label] - last.weight
            merged = rows.clamp(min=0) @ low[sample] + rows.clamp(max=0) @ high[sample] + last.bias[label] - last.bias
            torch.testing.assert_close(margins[sample], merged)
            outputs = bounds.lower[-1].flatten(1)[sample], bounds.upper[-1].flatten(1)[sample]
            apart = outputs[0][label] - outputs[1]
            others = torch.arange(4) != label
            assert (margins[sample] > apart)[others].all()


@pytest.mark.parametrize("bounds", ["interval", "crown"])
def test_the_loss_is_above_that_of_any_attack(bounds: str) -> None:
    module, traced, x = case("windows")
    bound = certified_loss(traced, x, LABELS, EPS, bounds=bounds, reduction="none")
    attacked = pgd_attack(module, x, LABELS, EPS, steps=20)
    found = functional.cross_entropy(module(attacked), LABELS, reduction="none")
    assert (bound >= found).all()
    assert certified_loss(traced, x, LABELS, EPS, bounds=bounds).item() == pytest.approx(bound.mean().item())
    exact = certified_loss(traced, x, LABELS, 0.0, bounds=bounds)  # without a ball, the plain loss
    assert exact.item() == pytest.approx(functional.cross_entropy(module(x), LABELS).item(), abs=1e-9)


@pytest.mark.parametrize("mixture", ["loss", "logits", "product"])
def test_mixtures_lead_from_attack_to_bounds(mixture: str) -> None:
    module, traced, x = case("dense")
    attacked = pgd_attack(module, x, LABELS, EPS)

    def mixed(alpha: float) -> float:
        return certified_loss(traced, x, LABELS, EPS, attacked=attacked, mixture=mixture, alpha=alpha).item()

    assert mixed(0.0) == pytest.approx(functional.cross_entropy(module(attacked), LABELS).item())
    assert mixed(1.0) == pytest.approx(certified_loss(traced, x, LABELS, EPS).item())
    assert mixed(0.0) < mixed(0.3) < mixed(0.7) < mixed(1.0)


def test_mixtures_by_definition() -> None:
    module, traced, x = case("dense")
    logits = module(x)
    d = logits - logits.gather(1, LABELS[:, None])
    v = -certified_margins(traced, x, LABELS, EPS)
    options = {"attacked": x, "alpha": 0.25, "reduction": "none"}
    L = {"d": torch.logsumexp(d, 1), "v": torch.logsumexp(v, 1)}
    expected = {
        "loss": 0.75 * L["d"] + 0.25 * L["v"],
        "logits": torch.logsumexp(0.75 * d + 0.25 * v, 1),
        "product": L["d"] ** 0.75 * L["v"] ** 0.25,
    }
    for mixture, value in expected.items():
        torch.testing.assert_close(certified_loss(traced, x, LABELS, EPS, mixture=mixture, **options), value)


def test_training_proves_more() -> None:
    module, traced, x = case("windows", batch=6)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)

    def proven() -> int:
        margins = certified_margins(traced, x, y, 0.02)
        return int(((margins > 0).sum(1) == 2).sum())

    before = proven()
    for _ in range(60):
        optimizer.zero_grad()
        certified_loss(traced, x, y, 0.02).backward()
        optimizer.step()
    assert proven() > before + 2


def test_a_network_that_ends_in_a_relu() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU())
    x, y = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    for bounds in ("interval", "crown"):
        margins = certified_margins(module, x, y, 0.0, bounds=bounds)
        logits = module(x)
        torch.testing.assert_close(margins, logits.gather(1, y[:, None]) - logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixture": "loss"}, "attacked"),
        ({"attacked": torch.zeros(3, 6)}, "mixture"),
        ({"attacked": torch.zeros(3, 6), "mixture": "sum"}, "'sum'"),
        ({"alpha": 1.5}, "alpha"),
        ({"bounds": "improved_interval"}, "improved_interval"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    _, traced, x = case("dense")
    with pytest.raises(InputError, match=message):
        certified_loss(traced, x, LABELS, EPS, **options)


def test_labels_out_of_range_are_refused() -> None:
    _, traced, x = case("dense")
    with pytest.raises(InputError, match="between 0 and 3"):
        certified_loss(traced, x, torch.tensor([0, 4, 1]), EPS)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_whole_numbers(kind: torch.dtype) -> None:
    module, traced, x = case("dense")
    for mixture in ({}, {"attacked": x, "mixture": "loss", "alpha": 0.5}):
        found = certified_loss(traced, x, LABELS.to(kind), EPS, **mixture)
        assert found == certified_loss(traced, x, LABELS, EPS, **mixture)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    losses = [
        adversarial_loss(module, x, y, EPS, domain=None, generator=generator)
        for y, generator in zip((LABELS, LABELS.to(kind)), generators, strict=True)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("labels", [torch.eye(4)[LABELS], LABELS.float(), LABELS > 0, LABELS[:2], LABELS[:, None]])
@pytest.mark.parametrize("loss", [certified_loss, certified_margins, pgd_attack, adversarial_loss])
def test_labels_that_are_no_classes(loss: Callable, labels: torch.Tensor) -> None:
    module, _, x = case("dense")
    with pytest.raises(InputError, match="class is needed for each of 3 samples"):
        loss(module, x, labels, EPS)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_inputs_of_half_precision(kind: torch.dtype) -> None:
    _, traced, x = case("dense")
    half = x.to(kind)
    assert certified_loss(traced, half, LABELS, EPS) == certified_loss(traced, half.float(), LABELS, EPS)
