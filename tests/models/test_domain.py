"""Inputs outside of the domain are refused by every loss, attack and count, as `robustness` refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mipverify.models import (
    adversarial_loss,
    certified_loss,
    certified_margins,
    input_box,
    pgd_attack,
    relu_stability_loss,
    unstable_units,
)
from torch import nn

from mipverify.errors import InputError
from tests.models.nets import case

LABELS = torch.tensor([0, 2, 1])
CALLS: dict[str, Callable[..., Any]] = {
    "input box": lambda module, x, **more: input_box(x, 0.01, **more),
    "stability": lambda module, x, **more: relu_stability_loss(module, x, 0.01, **more),
    "attack": lambda module, x, **more: pgd_attack(module, x, LABELS, 0.01, steps=1, **more),
    "adversarial loss": lambda module, x, **more: adversarial_loss(module, x, LABELS, 0.01, steps=1, **more),
    "certified loss": lambda module, x, **more: certified_loss(module, x, LABELS, 0.01, **more),
    "margins": lambda module, x, **more: certified_margins(module, x, LABELS, 0.01, **more),
    "count": lambda module, x, **more: unstable_units(module, x, 0.01, **more),
    "count of arrays": lambda module, x, **more: unstable_units(module, x.numpy(), 0.01, **more),
}


@pytest.mark.parametrize("call", CALLS)
def test_normalized_inputs_are_refused(call: str) -> None:
    module, _, x = case("dense")
    x = x.detach().clamp(0, 1)
    CALLS[call](module, x)
    moved = x.clone()
    moved.reshape(len(x), -1)[1, 2] = -0.42
    with pytest.raises(InputError, match=r"image pixel 2 is -0.42, outside of the domain \[0.0, 1.0\]"):
        CALLS[call](module, moved)
    CALLS[call](module, moved, domain=None)
    CALLS[call](module, moved, domain=(-0.5, 1.0))


def test_the_ends_of_the_domain_belong_to_it() -> None:
    ends = torch.tensor([[0.0, 1.0], [np.float32(0.3), 1.0]])
    low, high = input_box(ends, 0.25)
    assert low.min() == 0
    assert high.max() == 1
    input_box(ends[1:], 0.25, domain=(0.3, 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_limits_of_each_channel(dtype: torch.dtype) -> None:
    """The same as clipping each channel by itself."""
    x = torch.tensor([[[[0.25]], [[2.0]]]], dtype=dtype)
    domain = (torch.tensor([0.0, 1.875]).reshape(2, 1, 1), torch.tensor([0.5, 3.0]).reshape(2, 1, 1))
    lower, upper = input_box(x, 0.5, domain)
    assert lower.flatten().tolist() == [0.0, 1.875]
    assert upper.flatten().tolist() == [0.5, 2.5]
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.eye(2))
        module[1].bias.copy_(torch.tensor([-0.625, -1.75]))  # z within [-0.625, -0.125] and [0.125, 0.75]
    assert unstable_units(module, x, 0.5, domain=domain).counts.sum() == 0
    assert unstable_units(module, x, 0.5, domain=None).counts.sum() == 2
    with pytest.raises(InputError, match=r"image pixel 1 is 2, outside of the domain \[0.0, 1.0\]"):
        input_box(x, 0.5, (torch.zeros(2, 1, 1), torch.ones(2, 1, 1)))
    with pytest.raises(InputError, match="domain limits of shapes"):
        input_box(x, 0.5, (torch.zeros(3, 1, 1), 1.0))
